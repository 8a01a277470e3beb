"""A guest that nobody prepared is taken on while it runs, and given back as it was; it is never restarted."""

import json
import subprocess

import libvirt
import pytest

from host_controller.domain_xml.edit import difference
from host_controller.units import MIB
from lab.code_disk import REPOSITORY
from lab.controller import DYNMEM, Limits, dynmem
from lab.domain import GuestSpec
from lab.guest import Guest
from tests.guests.conftest import Rig, RigFactory
from tests.support.waiting import until

CAPACITY = 1500
RAM = 640
INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE


def found(rig: Rig, name: str) -> Guest:
    """A guest that runs with all of its RAM, of which nothing is ours."""
    guest = rig.lab.guest(GuestSpec(name, startup_mib=RAM, respawn_agent=True), rig.session)
    rig.guests[name] = guest
    rig.start(guest)
    return guest


@pytest.mark.faults  # a long story: two guests and two ways to be taken on
def test_a_running_guest_is_adopted_served_and_released_as_it_was(make_rig: RigFactory) -> None:
    rig = make_rig(CAPACITY, shrink_after=1, overhead_floor=64)
    guest = found(rig, "found")
    boot, domain = guest.workload.boot_id(), guest.domain()
    live, definition = domain.XMLDesc(0), domain.XMLDesc(INACTIVE)
    to = ("--connect", rig.session.uri, "--config", str(rig.controller.config))

    begun = rig.observer.latest().at
    done = dynmem("adopt", "found", "--minimum", "25%", "--json", *to)
    said = rig.observer.latest().at - begun
    assert done.returncode == 0, done.stderr
    (adopted,) = json.loads(done.stdout)["vms"]
    assert adopted["outcome"] == "adopted"
    moved = rig.controller.wait_vm(
        guest, lambda vm: vm["assigned_bytes"] < (RAM - 32) * MIB, 60, "the first memory moved"
    )
    seconds = rig.observer.latest().at - begun
    assert moved["source"] == "adopted"
    rig.controller.wait_vm(guest, lambda vm: vm["agent"] is not None, 60, "heard by its agent")
    small = rig.controller.wait_vm(
        guest, lambda vm: vm["assigned_bytes"] < (RAM - 200) * MIB, 60, "squeezed to what it needs"
    )

    other = rig.add("other", Limits(startup=384, minimum=160, maximum=512, growth="balloon"))
    other.workload.allocate(150, rate=100)
    other.workload.wait_event("done", "memory", 60)

    again = dynmem("release", "found", "--json", "--socket", rig.controller.client.path, *to)
    assert again.returncode == 0, again.stdout + again.stderr
    least, last = small["assigned_bytes"], rig.observer.latest().guests["found"].actual
    print(
        f"\nadopted in {said:.1f} s, first memory moved after {seconds:.1f} s, "
        f"{RAM} → {least / MIB:.0f} MiB; released: {last / MIB:.0f} MiB"
    )
    # It is empty (fact: metadata-leaves-its-element).
    after = domain.XMLDesc(0).replace("  <metadata/>\n", "")
    assert difference(live, after, "found") == ""
    assert difference(definition, domain.XMLDesc(INACTIVE), "found") == ""
    assert domain.memoryStats()["actual"] == RAM * 1024
    assert guest.workload.boot_id() == boot
    for one in (guest, other):
        assert one.workload.memory().vmstat["oom_kill"] == 0
    rig.assert_within()
    served_by_a_rule(rig, guest)
    ends_while_it_is_given_back(rig, guest)


def served_by_a_rule(rig: Rig, guest: Guest) -> None:
    """The same guest as if its XML were somebody else's: nothing is written into it."""
    domain = guest.domain()
    definition = domain.XMLDesc(INACTIVE)
    plain = rig.controller.config.read_text()
    rig.controller.config.write_text(f'{plain}\n[[rule]]\nmatch = {{name = "fo*"}}\nminimum = "25%"\n')
    rig.controller.client.post("reload")
    small = rig.controller.wait_vm(
        guest, lambda vm: vm["assigned_bytes"] < (RAM - 100) * MIB, 60, "squeezed by a rule's limits"
    )
    assert (small["source"], small["limits"]["minimum_bytes"]) == ("rule[1]", RAM // 4 * MIB)
    assert domain.XMLDesc(INACTIVE) == definition
    assert "dynmem:vm" not in domain.XMLDesc(0)
    rig.controller.config.write_text(plain)
    rig.controller.client.post("reload")
    rig.controller.wait_for(
        lambda status: all(vm["name"] != guest.name for vm in status["vms"]), 60, "the rule has gone"
    )


def ends_while_it_is_given_back(rig: Rig, guest: Guest) -> None:
    """`release` says so, and another gives its definition back."""
    domain, at = guest.domain(), ("--connect", rig.session.uri, "--config", str(rig.controller.config))
    definition, socket = domain.XMLDesc(INACTIVE), ("--socket", rig.controller.client.path)
    domain.setMemoryFlags(RAM * 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    until(lambda: domain.info()[2] == RAM * 1024, domain.info, 30)  # what is recorded as it was
    assert dynmem("adopt", "found", "--minimum", "25%", *at).returncode == 0
    rig.controller.wait_vm(
        guest, lambda vm: vm["assigned_bytes"] < (RAM - 100) * MIB, 60, "squeezed once more"
    )
    assert dynmem("pause", "found", *socket).returncode == 0
    command = [str(DYNMEM), "release", "found", *socket, *at]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True) as process:
        rig.controller.wait_vm(
            guest, lambda vm: vm["limits"]["minimum_bytes"] == RAM * MIB, 60, "owed all that it had"
        )
        guest.stop()
        said = "".join(process.communicate(timeout=60))
    print(f"\n{said}")
    assert process.returncode == 1
    assert "`dynmem release found` goes on from there" in said
    again = dynmem("release", "found", *socket, *at)
    assert again.returncode == 0, again.stdout + again.stderr
    assert difference(definition, domain.XMLDesc(INACTIVE), "found") == ""
