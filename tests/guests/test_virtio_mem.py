"""Growth by virtio-mem on a real guest: past startup and back, a reset, a new controller; always paid for."""

import time
from collections.abc import Iterator

import pytest

from host_controller.units import MIB
from lab.controller import Limits, dynmem
from lab.guest import Guest
from tests.guests.conftest import Rig, RigFactory

CAPACITY = 2000
STARTUP = 512
BOOT = 384
"""A quarter of maximum: the rest of startup comes when the agent is there."""
MAXIMUM = 1536
SETTLE = 10.0
"""Seconds after its first report for which it has startup, used or not."""
LIMITS = Limits(startup=STARTUP, minimum=160, maximum=MAXIMUM, growth="virtio-mem")


@pytest.fixture(scope="module")
def rig(make_shared_rig: RigFactory) -> Iterator[Rig]:
    rig = make_shared_rig(CAPACITY, settle=SETTLE)
    yield rig
    rig.assert_within()


@pytest.fixture(scope="module")
def guest(rig: Rig) -> Guest:
    # With swap, as nobody can give it memory while no controller runs.
    return rig.add("plastic", LIMITS, swap_mib=512)


def device(guest: Guest) -> tuple[int, int]:
    """Plugged and requested, by QEMU's own word, bytes."""
    with guest.qmp() as monitor:
        (found,) = monitor.execute("query-memory-devices")
    return int(found["data"]["size"]), int(found["data"]["requested-size"])


def grow(rig: Rig, guest: Guest, mib: int) -> int:
    """Have the guest use so much; bytes of MemTotal when it does."""
    guest.workload.allocate(mib, rate=60)
    guest.workload.wait_event("done", "memory", 90)
    return guest.workload.memory().total_bytes


def resizes(rig: Rig, uuid: str, since: float) -> list[int]:
    """The sizes that the controller has asked for, MiB."""
    return [
        command.data["requested_bytes"] // MIB
        for command in rig.controller.sent("ResizeVirtioMem", vm=uuid, since=since)
    ]


def test_a_prepared_guest_boots_with_less_than_startup_and_gets_it_when_its_agent_reports(
    rig: Rig, guest: Guest
) -> None:
    again = dynmem("enable", guest.name, "--dry-run", "--connect", guest.session.uri)
    assert "nothing to change" in again.stdout, again.stdout + again.stderr
    vm = rig.controller.vm(guest)
    assert vm["growth"] == "virtio-mem"
    assert vm["ram_bytes"] == BOOT * MIB
    rig.controller.wait_sent("ResizeVirtioMem", vm=vm["uuid"], since=guest.started_at, limit=60)
    assert resizes(rig, vm["uuid"], guest.started_at)[0] == STARTUP - BOOT
    rig.observer.wait_for(
        lambda sample: sample.guests[guest.name].virtio_mem == 0, 60, "what it does not use"
    )


def test_it_grows_past_startup_in_memory_that_can_leave_and_is_paid_for(rig: Rig, guest: Guest) -> None:
    uuid, since = rig.controller.vm(guest)["uuid"], time.monotonic()
    grow(rig, guest, 700)
    rig.controller.wait_at_rest(guest)
    total = guest.workload.memory().total_bytes
    plugged, requested = device(guest)
    sample = rig.observer.latest().guests[guest.name]
    memory = guest.workload.memory()
    movable = sum(zones == "Movable" for _, zones in memory.blocks.values()) * memory.block_bytes
    print(f"\nMemTotal {total // MIB}, plugged {plugged // MIB} MiB; sizes {resizes(rig, uuid, since)}")
    assert total > (STARTUP + 150) * MIB
    assert plugged >= total - BOOT * MIB
    assert movable >= plugged, "so that it can be unplugged again"
    assert sample.virtio_mem >= plugged
    assert rig.controller.vm(guest)["charge_bytes"] >= sample.actual + requested
    assert memory.vmstat["oom_kill"] == 0
    charged = rig.controller.client.get("vms", guest.name, "explain")["charge"]
    plugged = min(plugged, device(guest)[0])  # what is not needed may have begun to leave
    assert any(part["name"] == "virtio mem" and part["size_bytes"] >= plugged for part in charged)


def test_what_is_freed_leaves_through_the_device_first(rig: Rig, guest: Guest) -> None:
    guest.workload.free()
    sample = rig.observer.wait_for(
        lambda sample: (
            sample.guests[guest.name].virtio_mem == 0 and sample.guests[guest.name].actual < (BOOT - 64) * MIB
        ),
        120,
        "the device empty, and the balloon at work",
    )
    memory = guest.workload.memory()
    assert memory.total_bytes < 300 * MIB
    assert memory.online_blocks * memory.block_bytes == BOOT * MIB, "page structures are given back too"
    assert sample.guests[guest.name].charge < BOOT * MIB + sample.guests[guest.name].overhead


@pytest.mark.faults
def test_after_a_reset_the_device_is_empty_and_the_guest_gets_its_startup_again(
    rig: Rig, guest: Guest
) -> None:
    grow(rig, guest, 600)
    rig.controller.wait_at_rest(guest)  # else the growth's last sizes are still sent after `since`
    assert device(guest)[0] > 0
    boot_id, since = guest.workload.boot_id(), time.monotonic()
    guest.reset()
    rig.controller.wait_vm(guest, lambda vm: vm["phase"] == "starting", 60, "known to boot")
    guest.wait_booted()
    assert guest.workload.boot_id() != boot_id
    rig.controller.wait_managed(guest)
    uuid = rig.controller.vm(guest)["uuid"]
    rig.observer.wait_for(
        lambda sample: resizes(rig, uuid, since)[:2] == [0, STARTUP - BOOT], 60, "emptied, and then startup"
    )
    memory = guest.workload.memory()
    assert len(memory.blocks) == memory.online_blocks, "nothing was plugged and left offline"
    assert grow(rig, guest, 600) > (STARTUP + 50) * MIB, "it grows again"
    guest.workload.free()


@pytest.mark.faults
def test_a_controller_that_comes_after_a_killed_one_knows_what_is_plugged(rig: Rig, guest: Guest) -> None:
    guest.workload.allocate(700, rate=100)
    rig.controller.wait_vm(guest, lambda vm: vm["virtio_mem_bytes"] > 0, 60, "growing")
    rig.controller.kill()
    rig.controller.start()
    rig.controller.wait_managed(guest)
    guest.workload.wait_event("done", "memory", 90)
    rig.controller.wait_at_rest(guest)
    plugged, requested = device(guest)
    assert plugged == requested > 0
    assert rig.controller.vm(guest)["virtio_mem_bytes"] == plugged
    assert guest.workload.memory().vmstat["oom_kill"] == 0
