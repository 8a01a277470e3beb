"""Guests as four tools define them, that run and work, are taken on, serve each other and are given back."""

import json
import re
from dataclasses import dataclass

import libvirt
import pytest

from host_controller.domain_xml.edit import difference
from host_controller.units import MIB
from lab.controller import dynmem
from lab.domain import GuestSpec
from lab.guest import Guest
from tests.guests import guest_agents
from tests.guests.conftest import Rig, RigFactory
from tests.guests.tool_domains import Tool, Wanted, cockpit, defined_by, terraform, vagrant, virt_install

CAPACITY = 3300
RAM = 640
MAXIMUM = 1280
"""Of the one with DIMM slots."""
INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
RULE = """
[[rule]]
match = {name = "lab-*"}
minimum = "%d%%"
"""
STALL_SECONDS = 10.0
"""PSI `full` of a guest in the whole story: nobody may come to stand still."""


@dataclass(frozen=True, slots=True)
class Before:
    """What a guest was before anybody took it on."""

    pid: int
    boot_id: str
    live: str
    definition: str
    stalled_us: int

    @classmethod
    def of(cls, guest: Guest) -> "Before":
        domain = guest.domain()
        return cls(
            guest.qemu_pid(),
            guest.workload.boot_id(),
            domain.XMLDesc(0),
            domain.XMLDesc(INACTIVE),
            stalled_us(guest),
        )


def stalled_us(guest: Guest) -> int:
    found = re.search(r"full .*total=(\d+)", guest.workload.memory().psi)
    assert found is not None
    return int(found[1])


def made_by(rig: Rig, tool: Tool, wanted: Wanted) -> Guest:
    guest = rig.lab.guest(
        GuestSpec(wanted.name, startup_mib=wanted.ram, agent=None, swap_mib=256), rig.session
    )
    rig.guests[guest.name] = guest
    guest.redefine(defined_by(tool, wanted, guest.xml))
    return guest


@pytest.mark.faults  # four guests and their whole story
def test_guests_of_four_tools_are_taken_on_serve_each_other_and_are_given_back(make_rig: RigFactory) -> None:
    rig = make_rig(CAPACITY, shrink_after=1, overhead_floor=64, unplug_after=2)
    installed = made_by(rig, virt_install, Wanted("installed", RAM, maximum=MAXIMUM))
    planned = made_by(rig, terraform, Wanted("planned", RAM))
    clicked = made_by(rig, cockpit, Wanted("clicked", RAM))
    lab_default = made_by(rig, vagrant, Wanted("lab-default", RAM))
    guests = (installed, planned, clicked, lab_default)
    rig.start(*guests)
    for guest, mib in zip(guests, (60, 80, 100, 60), strict=True):
        guest.workload.allocate(mib, rate=40)
        guest.workload.wait_event("done", "memory", 60)
    for guest in (installed, planned):
        guest_agents.listen(guest)
    before = {guest.name: Before.of(guest) for guest in guests}

    taken_on(rig, lab_default)
    said = dynmem("agent", "push", "installed", "--yes", "--connect", rig.session.uri, limit=180)
    assert said.returncode == 0, said.stdout + said.stderr
    witnesses = {installed: "agent", planned: "guest agent", clicked: "statistics", lab_default: "statistics"}
    for guest, witness in witnesses.items():
        rig.controller.wait_vm(
            guest, lambda vm, its=witness: vm["witness"] == its, 90, f"told by its {witness}"
        )
    for guest in guests:
        rig.controller.wait_vm(guest, lambda vm: vm["assigned_bytes"] < (RAM - 150) * MIB, 60, "squeezed")

    served_from_the_others(rig, installed, guests)
    given_back(rig, guests, lab_default)
    for guest in guests:
        was, domain = before[guest.name], guest.domain()
        assert (guest.qemu_pid(), guest.workload.boot_id()) == (was.pid, was.boot_id), "nobody was restarted"
        assert domain.memoryStats()["actual"] == RAM * 1024
        assert difference(was.definition, domain.XMLDesc(INACTIVE), guest.name) == ""
        stalled = (stalled_us(guest) - was.stalled_us) / 1e6
        print(f"{guest.name}: stood still for {stalled:.2f} s")
        assert stalled < STALL_SECONDS
        assert guest.workload.memory().vmstat["oom_kill"] == 0
    for guest in guests[:3]:
        # Empty metadata stays (fact: metadata-leaves-its-element).
        live = guest.domain().XMLDesc(0).replace("  <metadata/>\n", "")
        assert difference(before[guest.name].live, live, guest.name) == ""
    rig.assert_within()


def taken_on(rig: Rig, lab_default: Guest) -> None:
    """Three are adopted; Vagrant writes its XML anew, so a rule is for that one."""
    plain = rig.controller.config.read_text()
    rig.controller.config.write_text(plain + RULE % 25)
    rig.controller.client.post("reload")
    to = ("--connect", rig.session.uri, "--config", str(rig.controller.config))
    begun = rig.observer.latest().at
    done = dynmem("adopt", "--all", "--minimum", "25%", "--json", *to, limit=120)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = {vm["name"]: (vm["outcome"], vm["reason"]) for vm in json.loads(done.stdout)["vms"]}
    assert outcomes.pop("lab-default") == ("refused", "it belongs to Vagrant, which writes its XML anew")
    assert outcomes == dict.fromkeys(("installed", "planned", "clicked"), ("adopted", None))
    rig.controller.wait_for(
        lambda status: any(vm["assigned_bytes"] < (RAM - 32) * MIB for vm in status["vms"]),
        60,
        "memory moves",
    )
    print(f"\nfirst memory moved {rig.observer.latest().at - begun:.1f} s after `adopt --all`")
    ruled = rig.controller.wait_vm(lab_default, lambda vm: True, 60, "taken on by its rule")
    assert ruled["source"] == "rule[1]"


def served_from_the_others(rig: Rig, installed: Guest, guests: tuple[Guest, ...]) -> None:
    """It comes to use more than it booted with, which was not there before the others gave."""
    installed.workload.allocate(800, rate=30, name="burst")
    installed.workload.wait_event("done", "burst", 120)
    sample = rig.observer.latest()
    others = [sample.guests[guest.name] for guest in guests[1:]]
    given = sum(RAM * MIB - one.actual for one in others)
    total = sum(one.charge for one in sample.guests.values())
    print(
        f"{installed.name} has {rig.controller.vm(installed)['assigned_bytes'] // MIB} MiB of its {RAM}; "
        f"the others gave {given // MIB} MiB, all cost {total // MIB} of {CAPACITY} MiB"
    )
    assert rig.controller.vm(installed)["dimms"]
    assert total + given > CAPACITY * MIB, "without them it had not fitted"
    installed.workload.free("burst")


def given_back(rig: Rig, guests: tuple[Guest, ...], lab_default: Guest) -> None:
    """Three by `release`; the other has all of its RAM by its rule, which then goes."""
    to = ("--connect", rig.session.uri, "--config", str(rig.controller.config))
    for guest in guests[:3]:
        done = dynmem(
            "release", guest.name, "--wait", "120", "--socket", rig.controller.client.path, *to, limit=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
    said = dynmem("agent", "remove", "installed", "--yes", "--connect", rig.session.uri, limit=180)
    assert said.returncode == 0, said.stdout + said.stderr
    config = rig.controller.config
    plain = config.read_text().partition("\n[[rule]]")[0]
    config.write_text(plain + RULE % 100)
    rig.controller.client.post("reload")
    rig.controller.wait_vm(
        lab_default, lambda vm: vm["actual_bytes"] == RAM * MIB, 60, "it has all of its RAM by its rule"
    )
    config.write_text(plain)
    rig.controller.client.post("reload")
    rig.controller.wait_for(lambda status: not status["vms"], 60, "nobody is managed any more")
