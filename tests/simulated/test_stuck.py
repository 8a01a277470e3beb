"""A balloon that does not move bars its VM from nothing but giving, and its host from nothing."""

from dataclasses import replace

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.core.operator_events import SettingsChanged
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LIMITS = Limits(512 * MIB, 256 * MIB, 4 * GIB)


def idle(growth: Growth) -> tuple[World, Engine]:
    """A guest that has more than it uses."""
    world = World(8 * GIB)
    engine = world.control(
        lambda capacity: Engine(Settings(capacity, shrink_after_seconds=5.0, settle_seconds=2.0))
    )
    assert isinstance(engine, Engine)
    world.add(GuestSpec("vm", LIMITS, growth=growth, workload=Workload(steady(60 * MIB))))
    return world, engine


@pytest.mark.parametrize("growth", [Growth.HOTADD, Growth.VIRTIO_MEM])
def test_a_vm_whose_balloon_will_not_deflate_grows_beside_it(growth: Growth) -> None:
    world, engine = idle(growth)
    world.run(60.0)
    (vm,) = engine.state.vms.values()
    assert vm.entitled_bytes < 400 * MIB, "it was squeezed"
    world.behave("vm", BEHAVIOURS["stuck"])
    world.work("vm", Workload(steady(1 * GIB)))
    world.run(60.0)
    assert vm.assigned_bytes > 1 * GIB
    assert not world.violations


@pytest.mark.parametrize("growth", list(Growth))
def test_a_vm_whose_balloon_did_not_inflate_grows_as_soon_as_it_needs_to(growth: Growth) -> None:
    world, engine = idle(growth)
    world.behave("vm", BEHAVIOURS["stuck"])
    world.run(1.0)
    (vm,) = engine.state.vms.values()
    while not vm.progress.stuck(world.now):
        world.run(1.0)
        assert world.now < 120.0
    world.behave("vm", BEHAVIOURS["ideal"])
    world.work("vm", Workload(steady(1 * GIB)))
    asked = world.now
    while vm.assigned_bytes < 1 * GIB:
        world.run(0.5)
        assert world.now < asked + 30.0, "half of the rest of an uncooperative balloon"
    assert not world.violations


def test_what_a_vm_has_beside_a_stuck_balloon_is_given_back_in_an_overdraft() -> None:
    world, engine = idle(Growth.VIRTIO_MEM)
    world.run(60.0)
    (vm,) = engine.state.vms.values()
    world.behave("vm", BEHAVIOURS["stuck"])
    world.work("vm", Workload(steady(1 * GIB)))
    while vm.assigned_bytes < 1 * GIB:
        world.run(1.0)
        assert world.now < 120.0
    world.work("vm", Workload(steady(60 * MIB)))
    world.run(3.0)
    short = sum(engine.charges.values()) - 400 * MIB
    world.set_capacity(short)
    engine.handle(SettingsChanged(replace(engine.state.settings, capacity_bytes=short)), world.now)
    world.run(8.0)
    assert vm.progress.stuck(world.now), "it has not been asked again yet"
    assert engine.headroom_bytes >= 0
    assert not world.violations
