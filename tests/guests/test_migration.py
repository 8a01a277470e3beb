"""A grown guest is moved from host to host, saved, paused and copied: hands off, and then on as before."""

import time
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import libvirt
import pytest

from host_controller.domain_xml.read import read_domain
from host_controller.units import MIB
from lab.controller import Controller, Limits
from lab.guest import Guest
from lab.lab import Lab
from lab.migration import Migration
from tests.guests.conftest import Hosts, Rig, RigFactory

CAPACITY = 1800
LIMITS = Limits(startup=512, minimum=160, maximum=1024)
MEMORY_COMMANDS = {"balloon", "device_add", "device_del", "object-add", "object-del", "qom-set"}
"""What changes a VM's memory, in QEMU's terms."""


@pytest.fixture(scope="module")
def hosts(lab: Lab, make_shared_rig: RigFactory) -> Iterator[Hosts]:
    here, there = (
        make_shared_rig(CAPACITY, lab.new_session(writes_down=True), shrink_after=3, settle=1)
        for _ in range(2)
    )
    guest = here.add("mover", LIMITS)
    hosts = Hosts(here, there, guest)
    yield hosts
    hosts.guest.remove()
    here.assert_within()
    there.assert_within()


@pytest.fixture
def grown(hosts: Hosts) -> dict[str, Any]:
    """The guest here, past its boot RAM and at rest; what the controller says of it."""
    return grow(hosts.here, hosts.guest)


def grow(rig: Rig, guest: Guest) -> dict[str, Any]:
    """Until it has DIMMs and is at rest."""
    guest.workload.free()
    guest.workload.allocate(560, rate=40)
    guest.workload.wait_event("done", "memory", 60)
    rig.controller.wait_vm(guest, lambda vm: bool(vm["dimms"]), 60, "grown past its boot RAM")
    rig.controller.wait_at_rest(guest)
    return rig.controller.vm(guest)


def squeezed(rig: Rig, guest: Guest, before: dict[str, Any], mib: int = 128) -> dict[str, Any]:
    """Until so much memory is taken from it, which it has no use for since its programs ended."""
    below = before["actual_bytes"] - mib * MIB
    return rig.controller.wait_vm(guest, lambda vm: vm["actual_bytes"] < below, 60, "squeezed")


def assert_hands_off(rig: Rig, since: float, until: float) -> None:
    """No command about memory went to any QEMU of a host in that time (seconds since the epoch)."""
    said = [(at, command) for at, command in rig.session.said_to_qemu() if since <= at <= until]
    assert [command for _, command in said], "libvirt writes down what it says"
    assert [(at - since, command) for at, command in said if command in MEMORY_COMMANDS] == []


class Poll(Thread):
    """Reads what a controller says of one VM, 20 times a second, with the time since the epoch."""

    def __init__(self, controller: Controller, guest: Guest) -> None:
        super().__init__()
        self.seen: list[tuple[float, dict[str, Any] | None]] = []
        self._controller, self._name = controller, guest.name
        self._stopped = Event()

    def run(self) -> None:
        while not self._stopped.wait(0.05):
            asked = time.time()
            vms = self._controller.status()["vms"]
            self.seen.append((asked, next((vm for vm in vms if vm["name"] == self._name), None)))

    def __enter__(self) -> "Poll":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()


def test_a_guest_under_a_migration_is_not_touched_and_goes_on_where_it_is_when_that_is_cancelled(
    hosts: Hosts, grown: dict[str, Any]
) -> None:
    here, there, guest = hosts.here, hosts.there, hosts.guest
    # Slow enough to be under way when it is cancelled, though what is freed needs not be sent.
    migration = Migration(guest, there.session, mib_per_second=10)
    here.controller.wait_vm(guest, lambda vm: vm["job"] == "migration", 60, "a migration")
    guest.workload.free()  # from now on it would be squeezed, were it not for the job
    since = here.observer.latest().at
    here.observer.lasts(7)  # twice as long as an excess may last
    until = here.observer.latest().at
    vm = here.controller.vm(guest)
    migration.cancel()
    migration.wait(60)
    assert "canceled" in migration.error
    assert_hands_off(here, migration.began, migration.ended)
    assert "migration" in vm["decision"]["reason"]
    assert vm["charge_bytes"] >= grown["charge_bytes"]
    sizes = {sample.guests["mover"].actual for sample in here.observer.samples if since < sample.at < until}
    assert sizes == {grown["actual_bytes"]}
    squeezed(here, guest, grown)
    took = migration.ended - migration.began
    print(f"\nuntouched for {took:.1f} s, squeezed {time.time() - migration.ended:.1f} s after its end")
    there.controller.wait_for(lambda status: not status["vms"], 60, "what never arrived is forgotten")


@pytest.mark.faults
def test_a_paused_guest_is_not_touched_costs_no_more_and_goes_on(hosts: Hosts, grown: dict[str, Any]) -> None:
    here, guest = hosts.here, hosts.guest
    guest.workload.free()
    guest.domain().suspend()
    paused = time.time()
    here.controller.wait_vm(guest, lambda vm: vm["state"] == "paused", 60, "paused")
    here.observer.lasts(5)  # what was freed just before goes back to the host meanwhile
    before = here.controller.vm(guest)
    # A running guest that is silent for so long counts as hung, and costs all its RAM.
    here.observer.lasts(23)
    vm = here.controller.vm(guest)
    resumed = time.time()
    guest.domain().resume()
    assert (vm["phase"], vm["charge_bytes"]) == ("live", before["charge_bytes"])
    assert_hands_off(here, paused + 0.2, resumed)
    vm = squeezed(here, guest, grown)
    assert vm["phase"] == "live"


@pytest.mark.faults
@pytest.mark.parametrize("managed", [False, True], ids=["save", "managed-save"])
def test_a_saved_guest_costs_nothing_and_comes_back_as_it_was(
    hosts: Hosts, grown: dict[str, Any], managed: bool
) -> None:
    here, guest = hosts.here, hosts.guest
    boot = guest.workload.boot_id()
    began = time.time()
    file = str(guest.place / "saved")
    with Poll(here.controller, guest) as poll:
        guest.domain().managedSave() if managed else guest.domain().save(file)
        saved = time.time()
        guest.workload.close()
        here.controller.wait_for(lambda status: not status["vms"], 60, "it costs nothing")
        if managed:
            guest.domain().create()
        else:
            here.session.connection().restore(file)
        here.observer.start(guest)
        guest.wait_booted()
        here.controller.wait_managed(guest)
    assert_hands_off(here, began, saved)
    assert guest.workload.boot_id() == boot
    while_saved = [vm for at, vm in poll.seen if at > began and vm is not None and vm["job"]]
    assert {vm["job"] for vm in while_saved} <= {"save", "migration"}
    assert_taken_over(here, guest, grown, poll)
    guest.workload.free()
    squeezed(here, guest, grown)


def assert_taken_over(rig: Rig, guest: Guest, before: dict[str, Any], poll: Poll) -> None:
    """With the same limits, size and DIMMs; charged with all of its RAM until that is confirmed."""
    first = next(at for at, vm in reversed(poll.seen) if vm is None)
    after = [vm for at, vm in poll.seen if at > first and vm is not None]
    unsure = [vm for vm in after if vm["phase"] == "takeover"]
    assert unsure
    assert all(vm["charge_bytes"] >= vm["ram_bytes"] == before["ram_bytes"] for vm in unsure)
    now = rig.controller.vm(guest)
    assert now["phase"] == "live"
    for key in ("limits", "dimms", "ram_bytes"):
        assert now[key] == before[key], key
    target = rig.controller.wait_sent("SetTarget", vm=now["uuid"])
    assert any(abs(one.data["target_bytes"] - before["actual_bytes"]) <= MIB for one in target)


@pytest.mark.faults
def test_a_snapshot_of_disk_and_memory_is_waited_for(hosts: Hosts, grown: dict[str, Any]) -> None:
    here, guest = hosts.here, hosts.guest
    xml = f"""<domainsnapshot>
      <memory snapshot='external' file='{guest.place}/memory'/>
      <disks><disk name='vda' snapshot='external'><source file='{guest.directory}/over.qcow2'/></disk>
      <disk name='vdb' snapshot='no'/></disks>
    </domainsnapshot>"""
    began = time.time()
    guest.domain().snapshotCreateXML(xml, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA)
    # Its job ends when QEMU goes on, a moment before libvirt's answer is here.
    went_on = max(at for at, command in here.session.said_to_qemu() if at >= began and command == "cont")
    assert_hands_off(here, began, went_on)
    vm = here.controller.vm(guest)
    assert (vm["dimms"], vm["actual_bytes"]) == (grown["dimms"], grown["actual_bytes"])
    guest.workload.free()
    squeezed(here, guest, grown)


@pytest.mark.faults
def test_a_guest_grows_and_shrinks_while_its_disk_is_copied(hosts: Hosts) -> None:
    here, guest = hosts.here, hosts.guest
    guest.workload.free()
    here.controller.wait_at_rest(guest)
    domain = guest.domain()
    # The overlay of the test before is filled from what lies below it: a block job that lasts.
    domain.blockPull("vda", 1)  # MiB/s
    vm = grow(here, guest)
    assert vm["job"] is None
    assert domain.blockJobInfo("vda", 0), "it is still under way"
    guest.workload.free()
    squeezed(here, guest, vm)
    domain.blockJobAbort("vda", 0)


def test_a_grown_guest_is_taken_over_where_it_is_migrated_to_and_goes_on_growing_and_shrinking(
    hosts: Hosts, grown: dict[str, Any]
) -> None:
    here, there, guest = hosts.here, hosts.there, hosts.guest
    boot = guest.workload.boot_id()
    with Poll(here.controller, guest) as source, Poll(there.controller, guest) as destination:
        migration = Migration(guest, there.session, mib_per_second=200)
        migration.wait(60)
        assert migration.error == ""
        hosts.guest = guest = migration.arrived
        there.observer.start(guest)
        there.controller.wait_managed(guest)
        managed = time.time()
        here.controller.wait_for(
            lambda _: any(vm is None for _, vm in source.seen), 60, "it is gone from here"
        )
    took = migration.ended - migration.began
    print(f"\nmigrated in {took:.1f} s, managed {managed - migration.ended:.1f} s later")
    # The source pays until its QEMU is gone, the destination all RAM from the first moment.
    assert_hands_off(here, migration.began, migration.ended)
    gone = next(at for at, vm in source.seen if vm is None)
    arrived = next(at for at, vm in destination.seen if vm is not None)
    ended = here.observer.gone["mover"] + time.time() - time.monotonic()
    print(f"both paid for it for {gone - arrived:.1f} s")
    assert gone > arrived
    assert gone > ended - 0.3, "its QEMU was gone, give or take one of the observer's samples"
    assert all(vm["charge_bytes"] >= grown["charge_bytes"] for _, vm in source.seen if vm is not None)
    assert_taken_over(there, guest, grown, destination)
    assert guest.workload.boot_id() == boot
    guest.workload.free()
    # It came to rest with up to 100 MiB more than its programs needed, and need not again.
    small = squeezed(there, guest, grown, 300)
    assert grow(there, guest)["actual_bytes"] >= small["actual_bytes"] + 64 * MIB


def test_a_host_without_a_controller_leaves_it_as_it_is_and_one_that_starts_there_takes_it_over(
    hosts: Hosts,
) -> None:
    here, there = hosts.there, hosts.here
    guest = hosts.guest
    before = grow(here, guest)
    there.controller.stop()
    migration = Migration(guest, there.session, mib_per_second=200)
    migration.wait(60)
    assert migration.error == ""
    hosts.guest = guest = migration.arrived
    here.controller.wait_for(lambda status: not status["vms"], 60, "it is gone from there")
    there.observer.start(guest)
    agent = guest.workload.agent()
    guest.workload.free()
    there.observer.lasts(7)
    sizes = {sample.guests["mover"].actual for sample in there.observer.samples[-30:] if sample.guests}
    assert sizes == {before["actual_bytes"]}
    assert guest.workload.agent().pid == agent.pid, "its agent speaks to nobody, and lives"
    config = read_domain(guest.domain().XMLDesc(0)).config
    assert config is not None
    assert config.limits.maximum_bytes == LIMITS.maximum * MIB
    there.controller.start()
    there.controller.wait_managed(guest)
    squeezed(there, guest, before)
