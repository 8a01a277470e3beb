"""What a killed controller had asked for is paid for by the one after it."""

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.core.vm.record import Vm
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LIMITS = Limits(512 * MIB, 256 * MIB, 2 * GIB)


def heir_of(world: World) -> tuple[Engine, Vm]:
    """The controller that is there now, and what it knows of the only VM."""
    assert world.driver is not None
    heir = world.driver.controller
    assert isinstance(heir, Engine)
    (vm,) = heir.state.vms.values()
    return heir, vm


@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "about to be asked for"])
def test_a_dimm_that_was_on_its_way_when_the_controller_was_killed_is_paid_for(asked: bool) -> None:
    world = World(4 * GIB)
    first = world.control(lambda capacity: Engine(Settings(capacity)))
    assert isinstance(first, Engine)
    world.add(GuestSpec("vm", LIMITS, workload=Workload(steady(100 * MIB))))
    world.run(60.0)
    world.ambush("vm", "AttachDimm", BEHAVIOURS["late QEMU"])
    world.work("vm", Workload(steady(300 * MIB)))
    (before,) = first.state.vms.values()
    while not before.plug.pending_bytes or (asked and not world.history.commands["AttachDimm"]):
        world.run(0.05)
    plug = before.plug.pending_bytes
    world.kill_controller()
    world.restart_controller()
    world.run(1.0)
    heir, vm = heir_of(world)
    assert not world.vm("vm").dimm_list()
    assert vm.plug.pending_bytes == plug
    assert heir.charges[vm.config.uuid] >= vm.ram_bytes + plug
    world.run(60.0)
    assert sum(dimm.size_bytes for dimm in world.vm("vm").dimm_list()) == plug
    assert vm.plug.pending_bytes == 0
    assert world.violations == [], "\n".join(world.history.tail())


def test_a_size_of_virtio_mem_that_hung_when_the_controller_was_killed_is_charged() -> None:
    """A QEMU that does not answer may carry out what it was asked for whenever it comes back."""
    world = World(4 * GIB)
    first = world.control(lambda capacity: Engine(Settings(capacity)))
    assert isinstance(first, Engine)
    world.add(GuestSpec("vm", LIMITS, growth=Growth.VIRTIO_MEM, workload=Workload(steady(100 * MIB))))
    world.run(60.0)
    world.ambush("vm", "ResizeVirtioMem", BEHAVIOURS["dead QEMU"])
    world.work("vm", Workload(steady(600 * MIB)))
    (before,) = first.state.vms.values()
    while not before.virtio_mem.unanswered:
        world.run(0.05)
    asked = before.virtio_mem.may_hold_bytes
    assert asked > before.virtio_mem.current_bytes
    world.kill_controller()
    world.restart_controller()
    world.run(1.0)
    heir, vm = heir_of(world)
    assert vm.virtio_mem.may_hold_bytes == asked
    assert heir.charges[vm.config.uuid] >= vm.ram_bytes + asked


def test_a_target_that_hung_when_the_controller_was_killed_is_charged_also_after_a_reset() -> None:
    """The guest boots and answers; what QEMU was told before may be carried out after that."""
    world = World(4 * GIB)
    first = world.control(lambda capacity: Engine(Settings(capacity)))
    assert isinstance(first, Engine)
    world.add(GuestSpec("vm", LIMITS, growth=Growth.BALLOON, workload=Workload(steady(100 * MIB))))
    world.run(90.0)
    (before,) = first.state.vms.values()
    world.ambush("vm", "Grow", BEHAVIOURS["dead QEMU"])
    world.work("vm", Workload(steady(700 * MIB)))
    while not before.balloon.sent:
        world.run(0.05)
    world.kill_controller()
    world.restart_controller()
    world.run(1.0)
    world.reset("vm")
    world.run(30.0)
    heir, vm = heir_of(world)
    assert vm.guest.facts is not None, "it has booted"
    assert vm.balloon.moved
    assert heir.charges[vm.config.uuid] >= vm.ram_bytes
