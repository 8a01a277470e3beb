"""The checker suspects nobody who is honest: what it takes for a lie excuses overdrafts, and hides others.

And it sees what is done to a guest, also where two commands do it together.
"""

import pytest

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, RunState, Settings
from host_controller.core.operator_events import SettingsChanged
from host_controller.simulator.behaviours import BEHAVIOURS, IDEAL, Behaviour
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.memory import Speeds
from host_controller.simulator.scenario import play
from host_controller.simulator.workload import Workload, burst, ramp, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB
from tests.simulated.generator import meddled_scenario, random_scenario, rough_scenario
from tests.simulated.soak import make_engine, patient_engine


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


@pytest.mark.parametrize(("zone", "faults"), [("movable", 1), ("kernel", 0)])
def test_what_its_kernel_keeps_of_virtio_mem_is_nothing_that_a_guest_could_spare(
    zone: wire.Zone, faults: int
) -> None:
    """Its balloon is at its minimum, and nobody works off an overdraft of 200 MiB."""
    world = World(8 * GIB)
    world.hypervisor.connect(lambda _: None)
    limits = Limits(1 * GIB, 256 * MIB, 4 * GIB)
    vm = world.add(GuestSpec("a", limits, Growth.VIRTIO_MEM, workload=Workload(steady(50 * MIB))))
    world.run(30.0)
    world.hypervisor.submit(hv.SendToGuest(vm.uuid, wire.OnlineZone(1, zone)))
    world.hypervisor.submit(hv.ResizeVirtioMem(vm.uuid, 1, 1 * GIB))
    world.run(20.0)
    world.hypervisor.submit(hv.SetTarget(vm.uuid, 2, 256 * MIB))
    world.run(20.0)
    world.set_capacity(world.checker.total() - 200 * MIB)
    world.run(240.0)
    assert [one.rule for one in world.violations] == faults * ["overdraft-named"]


def with_device(behaviour: Behaviour = IDEAL) -> tuple[World, SimulatedVm]:
    """A guest that uses 838 of its 1536 MiB, 512 of them by virtio-mem; its balloon is slow."""
    world = World(8 * GIB)
    world.hypervisor.connect(lambda _: None)
    limits = Limits(1 * GIB, 256 * MIB, 2 * GIB)
    workload, slow = Workload(steady(600 * MIB)), Speeds(inflate=0.02 * GIB)
    vm = world.add(GuestSpec("a", limits, Growth.VIRTIO_MEM, workload=workload, speeds=slow))
    world.run(30.0)
    world.hypervisor.submit(hv.SendToGuest(vm.uuid, wire.OnlineZone(1, "movable")))
    world.hypervisor.submit(hv.ResizeVirtioMem(vm.uuid, 1, 512 * MIB))
    world.run(20.0)
    world.behave("a", behaviour)
    return world, vm


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize(
    ("target_mib", "device_mib", "found"),
    [(1024, 0, []), (624, 512, []), (624, 400, []), (624, 0, ["small-steps"])],
)
def test_what_a_balloon_was_told_to_take_and_what_is_to_leave_a_device_are_judged_together(
    target_mib: int, device_mib: int, found: list[str], carried_out: bool
) -> None:
    """The guest can spare 400 MiB or the 512 of its device, and not both."""
    world, vm = with_device()
    world.hypervisor.submit(hv.SetTarget(vm.uuid, 2, target_mib * MIB))
    if carried_out:
        world.run(1.0)
    assert world.vm("a").memory.usable > 1500 * MIB, "its balloon is slow"
    assert not world.violations
    world.hypervisor.submit(hv.ResizeVirtioMem(vm.uuid, 3, device_mib * MIB))
    assert [one.rule for one in world.violations] == found


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize(
    ("device_mib", "target_mib", "found"), [(512, 624, []), (400, 624, []), (0, 624, ["small-steps"])]
)
def test_what_is_to_leave_a_device_is_not_there_to_be_ballooned(
    device_mib: int, target_mib: int, found: list[str], carried_out: bool
) -> None:
    world, vm = with_device(BEHAVIOURS["DIMM ignored"])
    world.hypervisor.submit(hv.ResizeVirtioMem(vm.uuid, 2, device_mib * MIB))
    if carried_out:
        world.run(1.0)
    assert world.vm("a").memory.usable > 1500 * MIB, "its blocks stay for now"
    assert not world.violations
    world.hypervisor.submit(hv.SetTarget(vm.uuid, 3, target_mib * MIB))
    assert [one.rule for one in world.violations] == found


def test_nobody_is_judged_by_a_target_that_a_controller_before_it_gave_and_that_is_not_carried_out() -> None:
    world, vm = with_device(BEHAVIOURS["late QEMU"])
    world.hypervisor.submit(hv.SetTarget(vm.uuid, 2, 624 * MIB))
    world.hypervisor.disconnect()
    world.hypervisor.connect(lambda _: None)
    world.run(5.0)
    assert world.hypervisor.pending(vm.uuid)
    world.hypervisor.submit(hv.ResizeVirtioMem(vm.uuid, 1, 0))
    assert not world.violations


def test_a_guest_without_anything_free_may_make_room_for_a_dimm_by_what_is_free_of_its_swap() -> None:
    """It had a DIMM that it did not bring online, said so at the moment, and had 110 MiB of swap."""
    assert not play(random_scenario(20000072), make_engine).violations


def test_what_a_guest_said_to_have_free_stands_when_it_has_had_more_in_between() -> None:
    """Its agent is silent, and by its statistics it has what it had as it spoke last."""
    assert not play(meddled_scenario(20000107), patient_engine).violations


def test_what_a_killed_controller_asked_of_a_device_may_come_after_the_next_one_was_told() -> None:
    """It had asked for 0, which QEMU did four seconds later. The next one asked for what it had been told."""
    assert not play(meddled_scenario(60000011), patient_engine).violations


def test_a_size_that_somebody_has_asked_for_and_is_asked_for_again_takes_nothing() -> None:
    """Somebody had asked for 128 MiB, which was told, and then for 3.4 GiB, which was not."""
    assert not play(meddled_scenario(60000251), make_engine).violations


def test_what_somebody_else_asks_of_it_meanwhile_counts_once_it_is_told() -> None:
    """The killed one's command was still unanswered, and the next one confirmed what others had asked for."""
    assert not play(meddled_scenario(130000395), patient_engine).violations


def test_a_size_that_was_told_after_a_command_that_nobody_waits_for_may_be_confirmed() -> None:
    """QEMU did late as it was asked, which nobody told, and was asked for what it had told to have."""
    assert not play(meddled_scenario(240000011), patient_engine).violations


def test_a_device_may_be_asked_for_what_it_had_by_qemus_last_word() -> None:
    """It had given 124 MiB within the second in which its guest came to need them."""
    assert not play(meddled_scenario(600000219), make_engine).violations


def test_a_device_that_gave_all_of_it_since_may_be_asked_for_what_it_had_by_qemus_last_word() -> None:
    """A command for 0 that nobody waited for any more was carried out just after QEMU had told 116 MiB."""
    assert not play(rough_scenario(1930000323), patient_engine).violations


def test_what_was_asked_for_and_paid_may_come_whatever_others_have_asked_for_untold() -> None:
    """The next, smaller size was held against it."""
    assert not play(meddled_scenario(1710000555), patient_engine).violations


def test_a_target_that_may_be_in_force_is_no_raise_when_it_is_said_again() -> None:
    """The one after it timed out, and was carried out; of 127 MiB that it was charged with one was said."""
    assert not play(random_scenario(600000200), make_engine).violations


def test_what_others_ask_for_twice_is_a_named_event_though_nobody_was_told_of_either() -> None:
    """512 MiB ended an overdraft, and 3.6 GiB began another."""
    assert not play(meddled_scenario(1890000699), make_engine).violations


def test_a_vm_that_is_reset_while_no_controller_runs_has_an_empty_balloon() -> None:
    """It counted for what it had held before: an overdraft seemed to end, and to begin again unnamed."""
    assert not play(random_scenario(1910000576), make_engine).violations


def test_who_stops_a_vm_that_was_let_run_has_to_let_it_run_again() -> None:
    """An operator paused it a sixth of a second later, between two looks of the checker."""
    shown = World(GIB).checker.shown
    shown.of("a").stopped_at = 1.0
    shown.delivered(hv.VmStateChanged("a", RunState.RUNNING))
    assert shown.of("a").stopped_at is None


def test_a_command_is_left_over_by_who_gave_it_and_not_by_what_it_says() -> None:
    """A controller that begins counts its tickets anew: what it gives may equal what was given before it."""
    shown = World(GIB).checker.shown
    before = hv.SetTarget("a", 1, 512 * MIB)
    shown.of("a").left_over = (before,)
    assert shown.is_left_over(before)
    assert not shown.is_left_over(hv.SetTarget("a", 1, 512 * MIB))


def test_a_guest_that_holds_more_than_it_was_given_before_its_balloon_tells_is_a_named_event() -> None:
    """11 MiB, by its resident memory, on a host that was full but for 3."""
    assert not play(random_scenario(170000052), make_engine).violations
