"""A VM that came with a virtio-mem device of its user's is taken on with it, and given back as it was."""

import libvirt
import pytest

from host_controller.domain_xml.edit import difference
from host_controller.hypervisor.memory_devices import resized
from host_controller.units import MIB
from lab.controller import dynmem
from lab.domain import GuestSpec
from lab.guest import Guest
from tests.guests.conftest import Rig, RigFactory
from tests.guests.tool_domains import Wanted, defined_by, virt_install

CAPACITY = 1800
RAM = 512
DEVICE = 512
GIVEN = 256
"""What its user had given it by the device."""
INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE


def device(guest: Guest) -> tuple[int, int]:
    """Plugged and requested, by QEMU's own word, MiB."""
    with guest.qmp() as monitor:
        (found,) = monitor.execute("query-memory-devices")
    return int(found["data"]["size"]) // MIB, int(found["data"]["requested-size"]) // MIB


def its_user_asks_for(guest: Guest, mib: int) -> None:
    domain = guest.domain()
    domain.updateDeviceFlags(resized(domain.XMLDesc(0), mib * MIB), libvirt.VIR_DOMAIN_AFFECT_LIVE)


@pytest.mark.faults  # a long story
def test_a_device_that_a_vm_came_with_serves_it_and_is_given_back_as_it_was(make_rig: RigFactory) -> None:
    rig = make_rig(CAPACITY, shrink_after=1)
    spec = GuestSpec(
        "own",
        startup_mib=RAM,
        respawn_agent=True,
        swap_mib=256,
        kernel_arguments="memhp_default_state=online_movable",
    )
    guest = rig.lab.guest(spec, rig.session)
    rig.guests["own"] = guest
    guest.redefine(defined_by(virt_install, Wanted("own", RAM, virtio_mem=DEVICE), guest.xml))
    rig.start(guest)
    its_user_asks_for(guest, GIVEN)
    rig.observer.wait_for(lambda sample: sample.guests["own"].virtio_mem == GIVEN * MIB, 60, "plugged")
    domain, boot = guest.domain(), guest.workload.boot_id()
    # libvirt is told once a second at most (fact: virtio-mem-size-is-late).
    rig.observer.wait_for(lambda _: domain.info()[2] == (RAM + GIVEN) * 1024, 60, "libvirt knows of it")
    live, definition = domain.XMLDesc(0), domain.XMLDesc(INACTIVE)

    to = ("--connect", rig.session.uri, "--config", str(rig.controller.config))
    done = dynmem("adopt", "own", "--minimum", "160M", *to)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "balloon and virtio-mem move it between 160 MiB and 1 GiB" in done.stdout
    rig.controller.wait_managed(guest, limit=60)
    rig.observer.wait_for(
        lambda sample: (
            sample.guests["own"].virtio_mem == 0 and sample.guests["own"].actual < (RAM - 64) * MIB
        ),
        90,
        "the device empty, and the balloon at work",
    )
    guest.workload.allocate(620, rate=40)
    guest.workload.wait_event("done", "memory", 90)
    print(f"\ngrown to {rig.controller.vm(guest)['assigned_bytes'] // MIB} MiB, device {device(guest)} MiB")
    assert device(guest)[0] > 0
    guest.workload.free()
    rig.observer.wait_for(lambda sample: sample.guests["own"].virtio_mem == 0, 90, "the device empty again")

    told_of_what_its_user_does(rig, guest)

    again = dynmem("release", "own", "--wait", "120", "--socket", rig.controller.client.path, *to, limit=180)
    assert again.returncode == 0, again.stdout + again.stderr
    assert device(guest) == (GIVEN, GIVEN)
    # It is empty (fact: metadata-leaves-its-element).
    assert difference(live, domain.XMLDesc(0).replace("  <metadata/>\n", ""), "own") == ""
    assert difference(definition, domain.XMLDesc(INACTIVE), "own") == ""
    assert guest.workload.boot_id() == boot
    assert guest.workload.memory().vmstat["oom_kill"] == 0
    rig.assert_within()


def told_of_what_its_user_does(rig: Rig, guest: Guest) -> None:
    """Another size that its user asks for is seen, paid for, and taken back while nobody needs it."""
    its_user_asks_for(guest, DEVICE)
    told = "somebody else asked the virtio-mem device of own for 512 MiB"
    client = rig.controller.client
    rig.controller.wait_for(
        lambda _: any(told in one["text"] for one in client.follow("events", after=0)), 60, "it is told"
    )
    rig.observer.wait_for(lambda sample: sample.guests["own"].virtio_mem == 0, 120, "the device empty again")
