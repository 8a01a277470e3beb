"""A guest to which its balloon is memory in use, as to Windows, gives what it does not use as others do."""

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.simulator.behaviours import BEHAVIOURS, WINDOWS, Behaviour
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

CAPACITY = 9 * GIB
LIMITS = Limits(4 * GIB, 512 * MIB, 4 * GIB)


def two(behaviour: Behaviour, used: int, wanted: int) -> World:
    """One that uses so much of 4 GiB, and another that comes to want so much of 8 GiB."""
    world = World(CAPACITY)
    world.control(lambda capacity: Engine(Settings(capacity, shrink_after_seconds=5.0, settle_seconds=5.0)))
    growth = Growth.BALLOON
    world.add(GuestSpec("one", LIMITS, growth=growth, workload=Workload(steady(used)), behaviour=behaviour))
    other = Limits(8 * GIB, 512 * MIB, 8 * GIB)
    world.run(60.0)
    world.add(GuestSpec("other", other, growth=growth, workload=Workload(steady(wanted))))
    world.run(180.0)
    return world


def has(world: World, name: str) -> int:
    return int(world.vm(name).memory.boot - world.vm(name).memory.ballooned)


@pytest.mark.parametrize("wanted", [4 * GIB, 7 * GIB])
def test_it_gives_as_much_as_a_linux_without_an_agent(wanted: int) -> None:
    windows, linux = (two(one, GIB, wanted) for one in (WINDOWS, BEHAVIOURS["agent silent"]))
    assert abs(has(windows, "one") - has(linux, "one")) <= 128 * MIB
    for world, counts in ((windows, True), (linux, False)):
        assert world.driver is not None
        assert isinstance(engine := world.driver.controller, Engine)
        assert engine.vms[world.vm("one").uuid].guest.counts_balloon is counts
        assert world.violations == []
        assert world.vm("one").memory.unmet_seconds == 0
