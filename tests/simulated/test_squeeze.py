"""Weight decides when memory is short: what a light VM can put into its own swap, a heavier one can have."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.simulator import agent as simulated_agent
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

CAPACITY = 4 * GIB


@dataclass
class Contention:
    """`light` has used what there is; then `heavy` comes to want as much."""

    world: World
    light: SimulatedVm
    heavy: SimulatedVm
    engine: Engine

    def blocked_by(self, vm: SimulatedVm) -> str:
        return self.engine.decisions[vm.uuid].blocked_by or ""


def contention(
    swap_bytes: int = 0,
    *,
    weights: tuple[int, int] = (1, 10000),
    cache_bytes: int = 0,
    wanted_bytes: int = 2300 * MIB,
    growth: Growth = Growth.BALLOON,
    heavy_swap_bytes: int | None = None,
    cold_share: float = 0.6,
) -> Contention:
    world = World(CAPACITY, resolution=0.05)
    engines: list[Engine] = []

    def make(capacity: int) -> Engine:
        engines.append(Engine(Settings(capacity)))
        return engines[-1]

    for name, weight in zip(("light", "heavy"), weights, strict=True):
        limits = Limits(GIB, 512 * MIB, 3 * GIB, weight=weight)
        swap = swap_bytes if name == "light" or heavy_swap_bytes is None else heavy_swap_bytes
        world.define(GuestSpec(name, limits, growth=growth, swap_bytes=swap, reporting=False))
    world.control(make)
    light, heavy = world.start("light"), world.start("heavy")
    world.run(40.0)
    used = steady(2300 * MIB - cache_bytes)
    world.work("light", Workload(used, steady(cache_bytes), cold_share=cold_share))
    world.run(40.0)
    world.work("heavy", Workload(steady(wanted_bytes)))
    return Contention(world, light, heavy, engines[0])


def test_a_heavy_one_gets_what_it_needs_while_the_light_one_swaps() -> None:
    one = contention(4 * GIB)
    one.world.run(60.0)
    assert one.heavy.memory.unmet < MIB
    assert one.light.memory.swapped > 400 * MIB
    assert one.world.violations == []


@pytest.mark.parametrize("growth", [Growth.HOTADD, Growth.VIRTIO_MEM])
def test_whatever_way_it_grows(growth: Growth) -> None:
    one = contention(4 * GIB, growth=growth)
    one.world.run(90.0)
    assert one.heavy.memory.unmet < 64 * MIB
    assert one.world.violations == []


@pytest.mark.parametrize("growth", list(Growth))
def test_a_heavy_one_without_swap_gets_what_it_needs(growth: Growth) -> None:
    """All that it is seen to need is the margin beyond what it has, again and again."""
    one = contention(4 * GIB, growth=growth, heavy_swap_bytes=0)
    one.world.run(100.0)
    assert one.heavy.memory.unmet < 16 * MIB
    assert one.light.memory.swapped > 400 * MIB
    assert one.world.violations == []


def test_what_a_small_heavy_one_lacks_is_not_left_within_a_large_ones_dead_band() -> None:
    world = World(8 * GIB, resolution=0.05)
    world.control(lambda capacity: Engine(Settings(capacity)))
    limits = Limits(GIB, 512 * MIB, 8 * GIB)
    for name, weight, swap in (("light", 1, 8 * GIB), ("heavy", 10000, 0)):
        asks = replace(limits, weight=weight)
        world.add(GuestSpec(name, asks, growth=Growth.BALLOON, swap_bytes=swap, reporting=False))
    world.run(40.0)
    world.work("light", Workload(steady(6 * GIB), cold_share=0.6))
    world.run(40.0)
    world.work("heavy", Workload(steady(2 * GIB)))
    world.run(120.0)
    assert world.vm("heavy").memory.unmet < 16 * MIB
    assert world.vm("light").memory.unmet < MIB
    assert world.violations == []


@pytest.mark.parametrize("growth", list(Growth))
def test_without_swap_the_heavy_one_waits_and_it_is_said_why(growth: Growth) -> None:
    one = contention(0, growth=growth)
    one.world.run(60.0)
    assert one.heavy.memory.unmet > 300 * MIB
    assert one.light.memory.unmet == 0.0
    assert "no swap on a disk can take it" in one.blocked_by(one.heavy)
    assert one.world.violations == []


def test_cache_is_dropped_first() -> None:
    one = contention(4 * GIB, cache_bytes=1 * GIB, wanted_bytes=1800 * MIB)
    swapped = one.light.memory.swapped
    one.world.run(60.0)
    assert one.heavy.memory.unmet < MIB
    assert one.light.memory.swapped < swapped + 64 * MIB
    assert one.world.violations == []


@pytest.mark.parametrize("growth", list(Growth))
def test_cache_that_a_guest_reads_again_and_again_is_taken_from_it_as_slowly_as_swap(growth: Growth) -> None:
    """The heavy one waits for it. It was all gone in two seconds, and half of it given back afterwards."""
    one = contention(
        0, growth=growth, cache_bytes=1100 * MIB, wanted_bytes=2000 * MIB, heavy_swap_bytes=4 * GIB
    )
    memory, estimate = one.light.memory, one.engine.state.vms[one.light.uuid].guest.estimate
    assert estimate is not None
    works_with = estimate.unswapped_bytes + estimate.cache_bytes
    for _ in range(20):
        had = min(memory.usable, works_with)
        one.world.run(1.0)
        assert memory.usable >= had - had / 32 - 32 * MIB
    assert one.heavy.memory.unmet < 64 * MIB
    assert one.world.violations == []


def test_the_squeezed_guest_is_not_brought_to_its_knees() -> None:
    """Its stalls are watched: what is taken in a second falls as they rise."""
    one = contention(4 * GIB)
    worst = 0.0
    for _ in range(240):
        one.world.run(0.25)
        worst = max(worst, one.light.memory.stall_avg10)
    assert worst < 30.0
    assert one.heavy.memory.unmet < MIB


def test_what_is_read_back_at_once_is_not_put_away_again_for_who_does_not_stall() -> None:
    """The heavy one could use all of it, and the light one's swap has room for much more."""
    one = contention(8 * GIB, wanted_bytes=2800 * MIB)
    worst = 0.0
    for _ in range(65):
        one.world.run(2.0)
        worst = max(worst, one.light.memory.unmet)
    assert one.light.memory.swapped > 1300 * MIB
    assert worst < 64 * MIB
    assert one.world.violations == []


@pytest.mark.parametrize("growth", list(Growth))
def test_a_heavy_one_that_stalls_gets_what_a_light_one_reads_back_at_once(growth: Growth) -> None:
    """Else it starves for as long as the light one swaps in and out, since that came first."""
    one = contention(8 * GIB, growth=growth, wanted_bytes=2700 * MIB, cold_share=0.2)
    one.world.run(120.0)
    assert one.heavy.memory.unmet < 32 * MIB
    assert one.light.memory.unmet > 200 * MIB
    assert one.world.violations == []


def test_equal_weights_share_what_both_need() -> None:
    one = contention(4 * GIB, weights=(100, 100))
    one.world.run(60.0)
    assert one.light.memory.usable == pytest.approx(one.heavy.memory.usable, rel=0.05)
    assert one.world.violations == []


def test_a_weight_that_changes_while_memory_is_short_moves_it() -> None:
    one = contention(4 * GIB)
    one.world.run(60.0)
    had = one.heavy.memory.usable
    one.world.limit("heavy", Limits(GIB, 512 * MIB, 3 * GIB, weight=1))
    one.world.limit("light", Limits(GIB, 512 * MIB, 3 * GIB, weight=10000))
    one.world.run(90.0)
    assert one.heavy.memory.usable < had - 300 * MIB
    assert one.world.violations == []


# --- bad input: in each of these the rules hold, whatever way the guests grow ---


@pytest.mark.parametrize("growth", list(Growth))
def test_a_small_swap_is_filled_so_far_that_something_is_left(growth: Growth) -> None:
    """A guest that grows faster than it is given memory may have filled all of it by itself before."""
    one = contention(384 * MIB, growth=growth)
    memory = one.light.memory
    by_itself = memory.swap_size - memory.swapped
    one.world.run(90.0)
    assert memory.swapped > 100 * MIB
    assert memory.swap_size - memory.swapped >= min(32 * MIB, by_itself)
    assert memory.unmet < MIB
    assert one.world.violations == []


@pytest.mark.parametrize("growth", list(Growth))
def test_swap_that_is_switched_off_meanwhile_ends_it(growth: Growth) -> None:
    """What lay in it is read back as there is room, and the guest is not sent below what it then uses."""
    one = contention(4 * GIB, growth=growth)
    one.world.run(6.0)
    memory = one.light.memory
    swapped, usable = memory.swapped, memory.usable
    assert swapped > 0
    memory.switch_swap_off()
    one.light.wake()
    for _ in range(30):
        one.world.run(2.0)
        assert memory.usable >= usable - 64 * MIB
    assert memory.swapped < swapped
    assert one.world.violations == []


def told(**changes: int) -> Callable[..., object]:
    real = simulated_agent.facts_of
    return lambda memory, uptime: real(memory, uptime)._replace(**changes)


@pytest.mark.parametrize("growth", list(Growth))
def test_zram_is_no_swap_that_could_be_filled(growth: Growth, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent says nothing of it, so nothing is gained by it."""
    monkeypatch.setattr(simulated_agent, "facts_of", told(swap_disk_free_bytes=0))
    one = contention(4 * GIB, growth=growth)
    swapped = one.light.memory.swapped
    one.world.run(60.0)
    assert one.light.memory.swapped < swapped + MIB, "nobody sent it there"
    assert one.light.memory.unmet < MIB
    assert one.world.violations == []


@pytest.mark.parametrize("growth", list(Growth))
def test_who_tells_of_swap_that_it_does_not_have_harms_itself_only(
    growth: Growth, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = contention(0, growth=growth)
    honest.world.run(90.0)
    boast = told(swap_total_bytes=8 * GIB, swap_disk_free_bytes=8 * GIB)
    monkeypatch.setattr(simulated_agent, "facts_of", boast)
    one = contention(0, growth=growth)
    one.world.run(90.0)
    assert one.heavy.memory.unmet <= honest.heavy.memory.unmet + MIB
    assert one.light.memory.usable <= honest.light.memory.usable + MIB
    assert one.world.violations == []
