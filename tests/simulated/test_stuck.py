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


@pytest.mark.parametrize("growth", [Growth.HOTADD, Growth.VIRTIO_MEM])
def test_one_that_runs_out_does_not_wait_long_for_a_balloon_that_gives_it_nothing(growth: Growth) -> None:
    """Nobody else waits for memory, so nothing but its own want says that time is short."""
    world, engine = idle(growth)
    world.run(60.0)
    (vm,) = engine.state.vms.values()
    world.behave("vm", BEHAVIOURS["stuck"])
    had = vm.assigned_bytes
    world.work("vm", Workload(steady(1 * GIB)))
    asked = world.now
    while vm.ram_bytes + vm.virtio_mem.requested_bytes == vm.config.boot_ram_bytes:
        world.run(0.5)
        assert world.now < asked + 10.0, "half of the patience with a balloon that nobody needs"
    world.run(30.0)
    assert vm.assigned_bytes >= had + GIB - 512 * MIB
    assert not world.violations


def test_a_balloon_that_will_not_deflate_is_asked_again_soon_where_there_is_nothing_else() -> None:
    """A guest that thrashes may do nothing for its balloon for a while, and needs it most then."""
    world, engine = idle(Growth.BALLOON)
    world.run(60.0)
    (vm,) = engine.state.vms.values()
    world.behave("vm", BEHAVIOURS["stuck"])
    world.work("vm", Workload(steady(1 * GIB)))
    while not vm.progress.stuck(world.now):
        world.run(0.5)
        assert world.now < 120.0
    world.behave("vm", BEHAVIOURS["ideal"])
    asked = world.now
    while vm.present_bytes < 1 * GIB:
        world.run(0.5)
        assert world.now < asked + 10.0, "a sixth of the rest of one that does not give"
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
    vm.progress.give_up(vm.present_bytes, world.now, growing=False)
    short = sum(engine.charges.values()) - 400 * MIB
    world.set_capacity(short)
    engine.handle(SettingsChanged(replace(engine.state.settings, capacity_bytes=short)), world.now)
    world.run(8.0)
    assert vm.progress.stuck(world.now), "it has not been asked again yet"
    assert engine.headroom_bytes >= 0
    assert not world.violations
