"""A forged `actual` is set right by the guest's own driver, and squeezes nobody, whoever comes upon it."""

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Limits, Settings
from host_controller.core.vm.record import Phase
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LIMITS = Limits(512 * MIB, 192 * MIB, 1 * GIB)


@pytest.mark.parametrize("successor", [False, True])
def test_a_guest_whose_word_was_forged_keeps_what_it_uses(successor: bool) -> None:
    world = World(4 * GIB)
    world.control(lambda capacity: Engine(Settings(capacity, shrink_after_seconds=5.0, settle_seconds=1.0)))
    world.add(GuestSpec("vm", LIMITS, workload=Workload(steady(100 * MIB))))
    world.run(60.0)
    vm = world.vm("vm")
    if successor:
        world.kill_controller()
    vm.balloon.forge(64 * MIB)
    if successor:
        world.restart_controller()
    for _ in range(300):
        world.run(0.1)
        assert vm.memory.available > 8 * MIB
    assert vm.actual_bytes == pytest.approx(vm.memory.usable, abs=1 * MIB)
    assert world.violations == [], "\n".join(world.history.tail())


@pytest.mark.parametrize("seconds", [0.01, 0.2, 0.5, 1.0])
def test_who_was_caught_is_believed_again_though_nobody_sets_right_what_it_wrote_last(seconds: float) -> None:
    world = World(4 * GIB)
    engine = world.control(
        lambda capacity: Engine(Settings(capacity, shrink_after_seconds=5.0, settle_seconds=1.0))
    )
    world.add(GuestSpec("vm", LIMITS, workload=Workload(steady(400 * MIB))))
    world.run(60.0)
    vm = world.vm("vm")
    [known] = engine.vms.values()
    while known.phase is Phase.LIVE and world.now < 120.0:
        vm.balloon.forge(64 * MIB)
        world.run(seconds)
    assert known.phase is Phase.CONTRADICTED
    world.run(30.0)
    assert known.phase is Phase.LIVE
    assert known.balloon.actual_bytes == pytest.approx(vm.memory.usable, abs=1 * MIB)
    assert world.violations == [], "\n".join(world.history.tail())
