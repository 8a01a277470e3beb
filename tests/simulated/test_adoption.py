"""How soon memory moves once VMs that ran with fixed RAM are taken on, on a host that is full of them."""

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.simulator.guest import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

RAM = GIB
OVERHEAD = 64 * MIB
STEP_SECONDS = 0.25
"""What the steps of one VM took on libvirt 9.0; `adopt` takes one VM after the other."""


def full_host(count: int, *, needed: bool) -> tuple[World, list[str]]:
    """VMs that have run for two minutes without a controller, and one that needs more than it has."""
    world = World(count * (RAM + OVERHEAD) + 512 * MIB + OVERHEAD, check=False)
    idle = Workload(steady(200 * MIB))
    names = [f"vm{number}" for number in range(count)]
    for name in names:
        limits = Limits(RAM, 256 * MIB, RAM)
        world.add(GuestSpec(name, limits, growth=Growth.BALLOON, agent=False, workload=idle))
    world.add(GuestSpec("short", Limits(512 * MIB, 256 * MIB, 8 * GIB), workload=idle))
    world.run(120.0)
    if needed:
        world.work("short", Workload(steady(GIB)))
    world.control(lambda capacity: Engine(Settings(capacity)))
    return world, names


def first_moved(world: World, names: list[str]) -> float:
    begun = world.now
    while all(world.vm(name).actual_bytes == RAM for name in names):
        world.run(0.1)
        assert world.now - begun < 600, "nobody gave anything"
    return world.now - begun


@pytest.mark.figures
@pytest.mark.parametrize(("count", "most_seconds"), [(1, 10.0), (50, 60.0)])
def test_memory_that_somebody_needs_moves_soon_after_vms_are_adopted(count: int, most_seconds: float) -> None:
    seconds = first_moved(*full_host(count, needed=True)) + count * STEP_SECONDS
    lazy = first_moved(*full_host(count, needed=False)) + count * STEP_SECONDS
    print(
        f"\n{count} adopted: memory moved after {seconds:.1f} s; while nobody needed it, after {lazy:.0f} s"
    )
    assert seconds <= most_seconds
