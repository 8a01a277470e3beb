"""An overdraft is worked off by weight, as far as guests can bear it, as in Proxmox's tests T17 to T19."""

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.core.operator_events import SettingsChanged
from host_controller.simulator import agent as simulated_agent
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

WEIGHTS = {"light": 100, "middle": 200, "heavy": 400}


def overdrawn_by(fall_mib: int, growth: Growth, uses_mib: int, swap_mib: int = 0) -> tuple[World, Engine]:
    """Three guests of 2 GiB, on a host that has just come to have so much less than they cost."""
    world = World(9 * GIB)
    engine = world.control(lambda capacity: Engine(Settings(capacity)))
    assert isinstance(engine, Engine)
    for name, weight in WEIGHTS.items():
        limits = Limits(2 * GIB, 512 * MIB, 3 * GIB, weight=weight)
        programs = Workload(steady(uses_mib * MIB), cold_share=0.6)
        world.add(GuestSpec(name, limits, growth, workload=programs, swap_bytes=swap_mib * MIB))
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
def test_what_guests_can_put_into_their_own_swap_works_it_off_by_weight(growth: Growth) -> None:
    """Else it lasts for as long as they use what they have, and nobody grows, however heavy."""
    world, engine = overdrawn_by(1500, growth, 1500, swap_mib=4096)
    world.run(40.0)
    assert over_mib(engine) <= 0
    light, middle, heavy = (vm.assigned_bytes for vm in engine.state.vms.values())
    assert light < middle <= heavy
    world.work("heavy", Workload(steady(1700 * MIB)))
    world.run(60.0)
    assert world.vm("heavy").memory.unmet < MIB
    assert not world.violations


@pytest.mark.parametrize("growth", list(Growth))
def test_swap_on_zram_works_no_overdraft_off(growth: Growth, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes there is memory again: the agent tells of none of it."""
    told = simulated_agent.facts_of
    monkeypatch.setattr(simulated_agent, "facts_of", lambda *of: told(*of)._replace(swap_disk_free_bytes=0))
    world, engine = overdrawn_by(3500, growth, 1500, swap_mib=4096)
    world.run(60.0)
    assert over_mib(engine) > 0
    assert all(world.vm(name).memory.swapped < 32 * MIB for name in WEIGHTS), "nobody was sent there"
    assert not world.violations


@pytest.mark.parametrize("growth", list(Growth))
def test_an_overdraft_fills_nobodys_swap_to_the_last(growth: Growth) -> None:
    world, engine = overdrawn_by(3500, growth, 1500, swap_mib=384)
    world.run(90.0)
    assert over_mib(engine) > 0
    for memory in (world.vm(name).memory for name in WEIGHTS):
        assert memory.swapped > 100 * MIB
        assert memory.swap_size - memory.swapped > 32 * MIB
        assert memory.unmet < MIB
    assert not world.violations


@pytest.mark.parametrize("growth", list(Growth))
def test_a_guest_whose_swap_is_switched_off_is_sent_no_further_in_an_overdraft(growth: Growth) -> None:
    world, _ = overdrawn_by(3500, growth, 1500, swap_mib=4096)
    world.run(8.0)
    memory = world.vm("light").memory
    usable = memory.usable
    assert memory.swapped > 0
    memory.switch_swap_off()
    world.vm("light").wake()
    for _ in range(30):
        world.run(2.0)
        assert memory.usable >= usable - 64 * MIB
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
