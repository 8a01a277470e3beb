"""The checker suspects nobody who is honest: what it takes for a lie excuses overdrafts, and hides others."""

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.core.operator_events import SettingsChanged
from host_controller.simulator.guest import GuestSpec
from host_controller.simulator.memory import Speeds
from host_controller.simulator.workload import Workload, burst, ramp
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB


@pytest.mark.parametrize("growth", Growth)
def test_a_guest_that_uses_what_it_was_given_is_no_liar_whichever_way_it_grows(growth: Growth) -> None:
    world = World(8 * GIB)
    limits = Limits(512 * MIB, 256 * MIB, 4 * GIB)
    workload = Workload(ramp(100 * MIB, 2 * GIB, 20.0, 10.0))
    world.define(
        GuestSpec("a", limits, growth=growth, workload=workload, boot_seconds=2.0, agent_seconds=0.5)
    )
    world.control(lambda capacity: Engine(Settings(capacity)))
    world.start("a")
    world.run(70.0)
    vm = world.vm("a")
    assert vm.resident_bytes > 2 * GIB
    assert not world.checker.shown.caught(vm)
    assert not world.violations


def test_an_overdraft_that_nobody_could_work_off_is_no_fault_when_demand_falls_at_last() -> None:
    world = World(3 * GIB)
    limits = Limits(1536 * MIB, 256 * MIB, 2 * GIB)
    for name in ("a", "b"):
        busy = Workload(burst(1200 * MIB, 200 * MIB, 300.0, 300.0, 600.0))
        slow = Speeds(inflate=0.05 * GIB)
        world.define(GuestSpec(name, limits, Growth.BALLOON, workload=busy, speeds=slow, boot_seconds=2.0))
    engine = world.control(lambda capacity: Engine(Settings(capacity)))
    assert isinstance(engine, Engine)
    for name in ("a", "b"):
        world.start(name)
    world.run(60.0)
    world.set_capacity(2 * GIB)
    engine.handle(SettingsChanged(Settings(2 * GIB)), world.now)
    world.run(235.0)
    assert world.checker.total() > 2 * GIB, "their demand holds it"
    world.run(20.0)
    assert world.checker.total() <= 2 * GIB
    assert not world.violations
