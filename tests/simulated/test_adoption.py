"""How soon memory moves once VMs that ran with fixed RAM are taken on, on a host that is full of them."""

import pytest

from host_controller.cli.adoptions import WAIT_SECONDS
from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Curve, Workload, noisy, ramp, steady
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


def found_with_a_device(*, capacity: int = 8 * GIB) -> tuple[World, SimulatedVm, Engine]:
    """A VM whose user had given it 1 GiB by virtio-mem, taken on while it runs."""
    world = World(capacity)
    limits = Limits(GIB, 256 * MIB, 3 * GIB)
    vm = world.add(GuestSpec("own", limits, growth=Growth.VIRTIO_MEM, workload=Workload(steady(300 * MIB))))
    world.run(30.0)
    assert vm.agent is not None
    vm.agent.zone = "movable"  # its user's own rule brings memory online
    assert vm.resize_virtio_mem(GIB) is None
    world.run(30.0)
    assert world.vm("own").virtio_mem.online == GIB
    engine = world.control(
        lambda capacity: Engine(Settings(capacity, shrink_after_seconds=10.0, settle_seconds=5.0))
    )
    assert isinstance(engine, Engine)
    return world, vm, engine


def test_a_virtio_mem_device_that_a_vm_came_with_gives_and_takes_memory() -> None:
    world, vm, _ = found_with_a_device()
    world.run(60.0)
    assert world.vm("own").virtio_mem.current == 0, "what nobody needs leaves by the device first"
    assert vm.actual_bytes < 900 * MIB
    world.work("own", Workload(steady(2200 * MIB)))
    world.run(60.0)
    assert world.vm("own").virtio_mem.current > GIB
    assert vm.memory.unmet < MIB
    assert world.violations == []


def test_a_size_that_somebody_else_asks_its_device_for_is_told_charged_and_moved_from_there() -> None:
    world, vm, engine = found_with_a_device()
    world.run(60.0)
    before = engine.headroom_bytes
    assert vm.resize_virtio_mem(2 * GIB) is None
    world.run(2.0)
    said = [one.text for one in engine.notices() if one.kind == "foreign"]
    assert said == ["somebody else asked the virtio-mem device of own for 2 GiB"]
    assert engine.headroom_bytes <= before - 2 * GIB
    world.run(120.0)
    assert world.vm("own").virtio_mem.current == 0, "it does not need it"
    assert world.violations == []


def test_one_who_asks_for_more_than_the_host_has_makes_an_overdraft_that_is_worked_off() -> None:
    world, vm, engine = found_with_a_device(capacity=int(2.5 * GIB))
    world.run(60.0)
    assert vm.resize_virtio_mem(2 * GIB) is None
    world.run(1.5)
    assert engine.headroom_bytes < 0
    assert "somebody else asked the virtio-mem device of own" in engine.state.last_cause
    world.run(120.0)
    assert engine.headroom_bytes >= 0
    assert vm.memory.unmet < MIB


def released(use: Curve, *, capacity: int = 8 * GIB, neighbour: int = 300 * MIB) -> tuple[World, SimulatedVm]:
    """A VM of 1 GiB that has grown by DIMMs; its programs went back to `use`, and it is owed its RAM, no more
    and no less, as `release` has it.
    """
    world = World(capacity)
    limits = Limits(GIB, 256 * MIB, 3 * GIB)
    grows = Workload(ramp(300 * MIB, 1800 * MIB, 0.0, 100.0))
    vm = world.add(GuestSpec("grown", limits, slots=16, workload=grows))
    world.add(GuestSpec("neighbour", Limits(GIB, 256 * MIB, 8 * GIB)))
    world.control(lambda capacity: Engine(Settings(capacity)))
    world.run(120.0)
    assert len(vm.slots.dimms) > 1
    world.work("neighbour", Workload(steady(neighbour)))
    world.work("grown", Workload(use))
    world.run(5.0)
    world.limit("grown", Limits(GIB, GIB, GIB))
    return world, vm


@pytest.mark.parametrize(
    "use", [steady(300 * MIB), noisy(300 * MIB, 0.05, 900.0, "released"), steady(700 * MIB)]
)
def test_what_a_vm_that_is_released_has_beyond_its_ram_leaves_within_the_time_that_release_waits(
    use: Curve,
) -> None:
    world, vm = released(use)
    world.run(WAIT_SECONDS)
    assert vm.slots.dimms == []
    assert abs(vm.actual_bytes - GIB) <= 16 * MIB
    assert world.violations == []


def test_it_leaves_on_a_host_that_cannot_lend_the_size_of_a_dimm() -> None:
    world, vm = released(steady(300 * MIB), capacity=3500 * MIB, neighbour=1750 * MIB)
    world.run(WAIT_SECONDS)
    assert vm.slots.dimms == []
    assert abs(vm.actual_bytes - GIB) <= 16 * MIB
    assert world.violations == []


def test_a_kernel_that_gave_no_dimm_is_asked_at_once_by_another_release() -> None:
    world, vm = released(steady(300 * MIB))
    world.behave("grown", BEHAVIOURS["DIMM stays"])
    world.run(WAIT_SECONDS)
    assert vm.slots.dimms
    world.limit("grown", Limits(GIB, 256 * MIB, 3 * GIB))  # it is managed as before
    world.run(2.0)
    world.behave("grown", BEHAVIOURS["ideal"])
    world.limit("grown", Limits(GIB, GIB, GIB))
    world.run(WAIT_SECONDS / 2)
    assert vm.slots.dimms == []
    assert world.violations == []
