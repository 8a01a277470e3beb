"""A guest that allocates as fast as it can reaches its maximum, by virtio-mem or by at most 16 DIMMs."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.core.operator_events import SettingsChanged
from host_controller.core.policy.dead_band import grow_dead_band
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.memory import Memory, Speeds
from host_controller.simulator.trial_file import read_trial
from host_controller.simulator.workload import Workload, ramp, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

WORST = Path(__file__).parents[1] / "data" / "worst"
SLOTS = 16
LIMIT_SECONDS = 3600.0
KILLED_SECONDS = 0.5
"""The simulator has no OOM killer: nothing to be had for so long is taken for its work."""


def grown(
    seed: int,
    maximum_gib: int,
    swap_mib: int = 256,
    host_gib: int = 64,
    growth: Growth = Growth.HOTADD,
    slots: int = SLOTS,
) -> tuple[SimulatedVm, float]:
    """A guest of 1 GiB whose programs take all that it may have at 0.1 to 2 GiB/s, until it has its maximum;
    and the longest time, seconds, in which its kernel had nothing at all for them.
    """
    rng = random.Random(seed)
    speeds = Speeds(touch=rng.uniform(0.1, 2.0) * GIB)
    level = ramp(rng.uniform(100, 400) * MIB, (maximum_gib - 0.45) * GIB, rng.uniform(20, 60), 0.01)
    limits = Limits(GIB, GIB // 2, maximum_gib * GIB)
    spec = GuestSpec(
        "db", limits, growth, slots, swap_bytes=swap_mib * MIB, speeds=speeds, workload=Workload(level)
    )
    world = World(host_gib * GIB, seed=seed, resolution=0.05)
    world.control(lambda capacity: Engine(Settings(capacity)))
    vm = world.define(spec)
    world.start("db")
    begun = longest = world.now
    reached = limits.maximum_bytes
    if growth is Growth.VIRTIO_MEM:
        reached -= grow_dead_band(reached)  # of so little it is given no more while it lacks nothing
    while world.now < LIMIT_SECONDS and (given(vm) < reached or vm.memory.unmet > MIB):
        world.run(0.05)
        if not denied(vm.memory):
            begun = world.now
        longest = max(longest, world.now - begun)
    assert not world.violations
    return vm, longest


def given(vm: SimulatedVm) -> int:
    """RAM and what its virtio-mem device has plugged, bytes."""
    return vm.ram_bytes + vm.virtio_mem.current


def denied(memory: Memory) -> bool:
    """Its programs want memory, and neither reclaim nor swap has any."""
    wants = memory.ideal - memory.anon - memory.swapped > MIB
    swap_room = memory.swap_size - memory.swapped
    return wants and memory.free <= memory.min_mark + MIB and memory.droppable < MIB and swap_room < MIB


@pytest.mark.parametrize("seed", range(100))
def test_from_1_to_16_gib_as_fast_as_it_can_a_guest_reaches_maximum_and_lives(seed: int) -> None:
    vm, longest = grown(seed, 16)
    assert vm.ram_bytes == 16 * GIB
    assert len(vm.slots.dimms) <= SLOTS
    assert longest < KILLED_SECONDS


@pytest.mark.parametrize("seed", range(100))
def test_so_it_does_by_virtio_mem(seed: int) -> None:
    vm, longest = grown(seed, 16, growth=Growth.VIRTIO_MEM)
    assert given(vm) >= 16 * GIB - grow_dead_band(16 * GIB)
    assert vm.memory.unmet < MIB
    assert longest < KILLED_SECONDS


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("maximum_gib", [8, 64, 256])
@pytest.mark.parametrize("swap_mib", [0, 256])
def test_slots_last_for_other_maxima_and_without_swap(seed: int, maximum_gib: int, swap_mib: int) -> None:
    vm, _ = grown(seed, maximum_gib, swap_mib, host_gib=512)
    assert vm.ram_bytes == maximum_gib * GIB


@pytest.mark.parametrize(("slots", "maximum_gib"), [(4, 16), (8, 64)])
@pytest.mark.parametrize("seed", range(3))
def test_few_slots_are_no_reason_to_leave_a_guest_that_has_run_out_with_nothing(
    seed: int, slots: int, maximum_gib: int
) -> None:
    """Its user's own, of a domain that was adopted: so many of half its RAM would not reach its maximum."""
    vm, _ = grown(seed, maximum_gib, host_gib=128, slots=slots)
    assert vm.ram_bytes == maximum_gib * GIB
    assert len(vm.slots.dimms) <= slots


@pytest.mark.parametrize("name", ["slots-run-out", "slots-contention"])
def test_where_slots_once_ran_out_below_maximum_it_ends_at_maximum(name: str) -> None:
    """First what that host is about; then the guest wants the rest, and the host comes to have it."""
    trial = read_trial(WORST / f"{name}.toml")
    world = World(trial.capacity_bytes, seed=trial.seed, resolution=0.05)
    engine = world.control(lambda capacity: Engine(Settings(capacity)))
    assert isinstance(engine, Engine)
    for vm in trial.vms:
        world.add(vm.spec)
    world.run(trial.seconds)
    db = world.vm("db")
    assert len(db.slots.dimms) < SLOTS
    maximum = db.config.limits.maximum_bytes
    enough = trial.capacity_bytes + maximum
    world.set_capacity(enough)
    engine.handle(SettingsChanged(replace(engine.state.settings, capacity_bytes=enough)), world.now)
    world.work("db", Workload(steady(maximum - 0.45 * GIB)))
    while db.ram_bytes < maximum or db.memory.unmet > MIB:
        world.run(1.0)
        assert world.now < LIMIT_SECONDS, (db.ram_bytes / GIB, len(db.slots.dimms))
    assert len(db.slots.dimms) <= SLOTS
    assert not world.violations
