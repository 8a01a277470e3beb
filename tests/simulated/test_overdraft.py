"""An overdraft is worked off by weight, as far as guests can bear it, as in Proxmox's tests T17 to T19."""

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.core.operator_events import SettingsChanged
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

WEIGHTS = {"light": 100, "middle": 200, "heavy": 400}


def overdrawn_by(fall_mib: int, growth: Growth, uses_mib: int) -> tuple[World, Engine]:
    """Three guests of 2 GiB, on a host that has just come to have so much less than they cost."""
    world = World(9 * GIB)
    engine = world.control(lambda capacity: Engine(Settings(capacity)))
    assert isinstance(engine, Engine)
    for name, weight in WEIGHTS.items():
        limits = Limits(2 * GIB, 512 * MIB, 3 * GIB, weight=weight)
        world.add(GuestSpec(name, limits, growth, workload=Workload(steady(uses_mib * MIB))))
    world.run(30.0)
    capacity = sum(engine.charges.values()) - fall_mib * MIB
    world.set_capacity(capacity)
    engine.handle(SettingsChanged(Settings(capacity)), world.now)
    return world, engine


def over_mib(engine: Engine) -> float:
    return -engine.state.ledger.headroom(sum(engine.charges.values())) / MIB


@pytest.mark.parametrize("growth", list(Growth))
@pytest.mark.parametrize("fall_mib", [200, 593, 2000])
def test_who_can_give_gives_at_once_and_the_lighter_one_more(growth: Growth, fall_mib: int) -> None:
    world, engine = overdrawn_by(fall_mib, growth, 600)
    world.run(5.0)
    assert over_mib(engine) <= 0
    light, middle, heavy = (vm.assigned_bytes for vm in engine.state.vms.values())
    assert light <= middle <= heavy
    assert light < heavy
    assert not world.violations


@pytest.mark.parametrize("growth", list(Growth))
def test_what_nobody_can_bear_stays_an_overdraft_and_the_rest_is_worked_off(growth: Growth) -> None:
    world, engine = overdrawn_by(3500, growth, 1500)
    world.run(20.0)
    assert 0 < over_mib(engine) < 3000
    for vm in engine.state.vms.values():
        assert vm.guest.estimate is not None
        assert vm.assigned_bytes <= vm.guest.estimate.irreducible_bytes + 32 * MIB
    assert not world.violations


@pytest.mark.parametrize("growth", list(Growth))
def test_many_that_are_to_give_a_little_each_work_an_overdraft_off(growth: Growth) -> None:
    """Less than is worth a command in each of them, on a host that keeps nothing ready."""
    world = World(100 * GIB)
    engine = world.control(lambda capacity: Engine(Settings(capacity, keep_ready_bytes=0)))
    assert isinstance(engine, Engine)
    for i in range(30):
        limits = Limits(2 * GIB, 512 * MIB, 3 * GIB)
        world.add(GuestSpec(f"vm{i}", limits, growth, workload=Workload(steady(600 * MIB))))
    world.run(20.0)
    capacity = sum(engine.charges.values()) - 100 * MIB
    world.set_capacity(capacity)
    engine.handle(SettingsChanged(Settings(capacity, keep_ready_bytes=0)), world.now)
    world.run(15.0)
    assert over_mib(engine) <= 0
    assert not world.violations


@pytest.mark.parametrize("growth", list(Growth))
def test_what_the_host_fills_in_by_itself_is_given_back_elsewhere(
    growth: Growth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its huge pages hold 50 MiB beside each claim. Else that would stay, and nobody would grow again."""
    filled = 0
    counted = SimulatedVm.resident_bytes
    assert isinstance(counted, property)
    assert counted.fget is not None
    by_guest = counted.fget

    def resident(vm: SimulatedVm) -> int:
        return int(vm.memory.usable) + filled if filled else int(by_guest(vm))

    monkeypatch.setattr(SimulatedVm, "resident_bytes", property(resident))
    world = World(4 * GIB, check=False)
    engine = world.control(lambda capacity: Engine(Settings(capacity, keep_ready_bytes=0)))
    assert isinstance(engine, Engine)
    for name in WEIGHTS:
        limits = Limits(GIB, 512 * MIB, 3 * GIB, buffer_percent=100)
        world.add(GuestSpec(name, limits, growth, workload=Workload(steady(700 * MIB)), reporting=False))
    world.run(100.0)
    filled = 50 * MIB
    world.run(60.0)
    assert over_mib(engine) <= 0
    world.work("light", Workload(steady(900 * MIB)))
    world.run(30.0)
    assert world.vm("light").memory.unmet < MIB
