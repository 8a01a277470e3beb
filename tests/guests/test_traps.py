"""The traps of QEMU's balloon and DIMM accounting, each sprung on a real guest under our controller."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import libvirt
import pytest

from host_controller.units import MIB
from lab.controller import Limits
from lab.guest import Guest
from tests.guests.conftest import Rig, RigFactory

BLOCK = 128 * MIB
REFUSED_TWICE = 240.0
CAPACITY = 2400
DIMM = "<memory model='dimm'><target><size unit='MiB'>{mib}</size><node>0</node></target></memory>"
STARVED = 12 * MIB
"""Less than this available, and a lab guest can hardly start a program."""


@pytest.fixture
def rig(make_rig: RigFactory) -> Iterator[Rig]:
    rig = make_rig(CAPACITY, unplug_after=3600)
    yield rig
    rig.assert_within()


def squeezed(rig: Rig, guest: Guest) -> int:
    """Wait until the idle guest is small; bytes that it has."""
    vm = rig.controller.wait_vm(
        guest, lambda vm: vm["assigned_bytes"] - vm["desired_bytes"] < BLOCK // 2, 60, "squeezed"
    )
    rig.controller.wait_at_rest(guest)
    return int(vm["assigned_bytes"])


def least_available(guest: Guest, seconds: float) -> int:
    """The least that is available inside over a while, bytes; fails when the guest does not answer."""
    deadline = time.monotonic() + seconds
    least = 1 << 60
    while time.monotonic() < deadline:
        least = min(least, guest.workload.memory().available_bytes)
    return least


def test_a_dimm_that_is_not_online_is_not_taken_for_memory_given(rig: Rig) -> None:
    # Traps 1 and 2: counted as given, 256 MiB that the guest cannot use would be squeezed out of the rest.
    guest = rig.add("offline", Limits(maximum=2048))
    before = squeezed(rig, guest)
    guest.domain().attachDeviceFlags(DIMM.format(mib=256), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    rig.controller.wait_vm(guest, lambda vm: vm["offline_bytes"] == 256 * MIB, 60, "seen to be offline")
    vm = rig.controller.vm(guest)
    assert vm["assigned_bytes"] <= before + BLOCK // 2, "it is not counted as usable"
    assert vm["charge_bytes"] >= before + 256 * MIB, "it is charged"
    least = least_available(guest, 4)
    print(f"\nat least {least / MIB:.0f} MiB available inside while 256 MiB lay offline")
    assert least > STARVED
    rig.controller.wait_vm(guest, lambda vm: vm["dimms"] == 0, 60, "the unused DIMM taken out")
    assert least_available(guest, 3) > STARVED


def test_an_unplug_does_not_shrink_the_guest_by_the_dimm(make_rig: RigFactory) -> None:
    # Trap 3: QEMU keeps the ballooned amount, so an idle guest of 210 MiB would be left with 82.
    rig = make_rig(CAPACITY, unplug_after=3)
    guest = rig.add("unplugged", Limits(maximum=1024))
    guest.workload.allocate(450, rate=50)
    guest.workload.wait_event("done", "memory", 60)
    rig.controller.wait_vm(guest, lambda vm: vm["dimms"] >= 1, 60, "grown by a DIMM")
    guest.workload.free()
    least = 1 << 60
    # As long as one after the other leaves: on a busy machine a guest refuses one now and then. It is
    # asked again after 30 s, and if it refuses that, after 60 s more.
    left, deadline = rig.controller.vm(guest)["dimms"], time.monotonic() + REFUSED_TWICE
    while left:
        least = min(least, least_available(guest, 0.5))
        if (now := rig.controller.vm(guest)["dimms"]) < left:
            deadline = time.monotonic() + REFUSED_TWICE
        left = now
        assert time.monotonic() < deadline, rig.controller.log_tail()
    squeezed(rig, guest)
    least = min(least, least_available(guest, 3))
    print(f"\nat least {least / MIB:.0f} MiB available inside while its DIMMs were taken out")
    assert rig.observer.latest().guests["unplugged"].ram == 512 * MIB
    assert least > STARVED
    rig.assert_within()


def test_a_rebooting_guest_is_charged_all_of_its_ram_and_returns_to_its_size(rig: Rig) -> None:
    # Traps 4 and 5: `actual` is stale until the new driver is up, and DIMMs survive a reset.
    guest = rig.add("rebooted", Limits(maximum=1024))
    guest.workload.allocate(450, rate=50)
    guest.workload.wait_event("done", "memory", 60)
    rig.controller.wait_vm(guest, lambda vm: vm["dimms"] >= 1, 60, "grown by a DIMM")
    guest.workload.free()
    squeezed(rig, guest)
    boot_id = guest.workload.boot_id()
    ram = rig.controller.vm(guest)["ram_bytes"]
    guest.reset()
    booting = rig.controller.wait_vm(guest, lambda vm: vm["phase"] == "starting", 60, "known to boot")
    assert booting["charge_bytes"] >= ram
    guest.wait_booted()
    assert guest.workload.boot_id() != boot_id
    rig.controller.wait_vm(guest, lambda vm: vm["dimms"] == 0, 60, "the surviving DIMM taken out")
    vm = rig.controller.wait_vm(guest, lambda vm: vm["phase"] == "live", 60, "live again")
    assert vm["ram_bytes"] == 512 * MIB
    squeezed(rig, guest)
    assert guest.workload.memory().vmstat["oom_kill"] == 0


def test_a_starving_guest_is_fed_in_bites_that_it_can_swallow(rig: Rig) -> None:
    # Trap 17: 2 GiB into a guest with 23 MiB free stopped it for 25 s, since a DIMM's page structures
    # take 1/64 of it from what the guest has.
    guest = rig.add("starving", Limits(maximum=1536, buffer=5))
    uuid = rig.controller.vm(guest)["uuid"]
    since = time.monotonic()
    slowest = 0.0
    with ThreadPoolExecutor(1) as pool:
        rates = pool.submit(guest.workload.allocate, 1000, 300)
        rates.result()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        before = time.monotonic()
        memory = guest.workload.memory()
        slowest = max(slowest, time.monotonic() - before)
        if any(event.kind == "done" for event in guest.workload.events):
            break
    assert any(event.kind == "done" for event in guest.workload.events), "the allocation was completed"
    sizes = [
        command.data["size_bytes"] for command in rig.controller.sent("AttachDimm", vm=uuid, since=since)
    ]
    print(f"\nDIMMs of {[size // MIB for size in sizes]} MiB; slowest answer {slowest:.1f} s")
    assert memory.vmstat["oom_kill"] == 0
    assert len(sizes) > 1, "not all at once"
    assert max(sizes) < sum(sizes) // 2 + BLOCK
