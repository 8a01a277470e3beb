"""The checker suspects nobody who is honest: what it takes for a lie excuses overdrafts, and hides others."""

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.simulator.guest import GuestSpec
from host_controller.simulator.workload import Workload, ramp
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
    assert not world.checker._caught(vm)
    assert not world.violations
