"""Another size for a virtio-mem device, step by step, with every way in which a guest stops short."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from agent import wire
from host_controller.core.interface import Command, ResizeVirtioMem, SendToGuest, SetTarget
from host_controller.core.model import BalloonStats, Growth
from host_controller.core.operations.operation import ACK_LIMIT, ASK_AGAIN, ONLINE_LIMIT
from host_controller.core.operations.resize import TURNED_BACK_SECONDS, Resize
from host_controller.core.operations.stages import Outcome, Stage
from host_controller.core.vm.record import Vm
from host_controller.core.vm.virtio_mem import PATIENCE, VirtioMem
from host_controller.units import MIB
from tests.support import build

CONFIG = {"growth": Growth.VIRTIO_MEM, "slots": 1, "virtio_mem_bytes": 512 * MIB}


def made(current_mib: int, available_mib: int = 200, balloon_mib: int = 512, **config: object) -> Vm:
    size = current_mib * MIB
    vm = build.vm(balloon_mib, config=CONFIG | config, virtio_mem=VirtioMem(size, size, size))
    build.says(vm, build.facts(512 + current_mib, 512 + current_mib - available_mib))
    return vm


def resize(size_mib: int, **changes: object) -> Resize:
    return Resize(itertools.count(1).__next__, size_bytes=size_mib * MIB, **changes)  # type: ignore[arg-type]


def only(commands: list[Command]) -> Command:
    [command] = commands
    return command


def asked_for(commands: list[Command]) -> ResizeVirtioMem:
    command = only(commands)
    assert isinstance(command, ResizeVirtioMem)
    return command


def answer(vm: Vm, operation: Resize, command: ResizeVirtioMem, now: float, error: str | None = None) -> None:
    vm.virtio_mem.answered(command.ticket, error, now)
    operation.done(vm, command.ticket, error, False, now)


def told(vm: Vm) -> None:
    """So much time passes that QEMU has told every size that the device ever had."""
    vm.virtio_mem.catch_up(1000.0)


def growing(vm: Vm, size_mib: int = 256) -> Resize:
    """As far as the hypervisor's answer."""
    operation = resize(size_mib, zone="movable")
    vm.virtio_mem.promise(size_mib * MIB)
    zone = only(operation.advance(vm, 1.0, agent=True))
    assert isinstance(zone, SendToGuest)
    assert isinstance(zone.message, wire.OnlineZone)
    operation.acknowledged(vm, wire.Ack(zone.message.request_id, ok=True))
    answer(vm, operation, asked_for(operation.advance(vm, 1.1, agent=True)), 1.2)
    return operation


def test_the_zone_is_named_before_more_is_asked_for_and_it_is_paid_before_that() -> None:
    vm = made(0)
    operation = resize(128, zone="movable")
    vm.virtio_mem.promise(128 * MIB)
    assert vm.virtio_mem.may_hold_bytes == 128 * MIB
    assert isinstance(only(operation.advance(vm, 1.0, agent=True)), SendToGuest)
    assert vm.virtio_mem.requested_bytes == 0


def test_growth_is_done_when_the_guest_shows_it_though_qemu_has_not_told_it_yet() -> None:
    vm = made(0)
    operation = growing(vm)
    assert operation.advance(vm, 1.3, agent=True) == []
    build.says(vm, build.facts(768, 568, total_bytes=vm.guest.facts.total_bytes + 256 * MIB))  # type: ignore[union-attr]
    operation.advance(vm, 1.4, agent=True)
    assert operation.outcome is Outcome.DONE
    assert vm.virtio_mem.may_hold_bytes == 256 * MIB


def test_an_agent_that_does_not_answer_is_asked_again_and_then_it_grows_as_without_one() -> None:
    vm = made(0)
    operation = resize(128, zone="movable")
    first = operation.advance(vm, 1.0, agent=True)
    assert operation.advance(vm, 1.1 + ASK_AGAIN, agent=True) == first
    (asked,) = operation.advance(vm, 1.2 + ASK_AGAIN + ACK_LIMIT, agent=True)
    assert isinstance(asked, ResizeVirtioMem)


def test_a_guest_without_room_for_page_structures_is_asked_for_nothing() -> None:
    vm = made(0, available_mib=8)
    build.says(vm, build.facts(512, 504, free_bytes=0))
    operation = resize(128, zone="movable")
    assert operation.advance(vm, 1.0, agent=False) == []
    assert operation.outcome is Outcome.DROPPED


def test_memory_that_is_not_brought_online_is_taken_back() -> None:
    vm = made(0)
    operation = growing(vm)
    vm.virtio_mem.observe(256 * MIB, None, 1.5)
    assert operation.advance(vm, 1.5, agent=True) == []
    build.says(vm, build.facts(512, 100, at=1.5 + ONLINE_LIMIT, offline_bytes=256 * MIB))
    back = asked_for(operation.advance(vm, 1.6 + ONLINE_LIMIT, agent=True))
    assert back.requested_bytes == 0
    answer(vm, operation, back, 30.0)
    assert operation.outcome is Outcome.FAILED
    assert "online" in operation.note


def test_a_guest_that_takes_a_part_only_is_not_left_with_a_request_that_stays_charged() -> None:
    vm = made(0)
    operation = growing(vm)
    vm.virtio_mem.observe(128 * MIB, None, 1.5)
    operation.advance(vm, 1.5, agent=True)
    less = asked_for(operation.advance(vm, 1.6 + PATIENCE, agent=True))
    assert less.requested_bytes == 128 * MIB
    answer(vm, operation, less, 8.0)
    assert operation.outcome is Outcome.FAILED
    told(vm)
    assert vm.virtio_mem.may_hold_bytes == 128 * MIB


def test_shrinking_needs_no_agent_and_is_done_when_the_blocks_are_gone() -> None:
    vm = made(256)
    operation = resize(128)
    command = asked_for(operation.advance(vm, 1.0, agent=True))
    answer(vm, operation, command, 1.1)
    assert operation.advance(vm, 1.2, agent=True) == []
    assert vm.virtio_mem.may_hold_bytes == 256 * MIB, "charged until it is gone"
    vm.virtio_mem.observe(128 * MIB, None, 2.0)
    operation.advance(vm, 2.0, agent=True)
    assert operation.outcome is Outcome.DONE
    assert vm.virtio_mem.may_hold_bytes == 128 * MIB, (
        "it had come to all that was asked for, and only fell since"
    )
    assert vm.virtio_mem.shrink_rate == 2 * 128 * MIB, "128 MiB in a second: the next time twice as much"


def test_what_somebody_else_asked_for_and_never_came_is_not_taken_for_given_back() -> None:
    vm = made(128)
    vm.virtio_mem.observe(128 * MIB, 512 * MIB, 0.5)
    operation = resize(128)
    command = asked_for(operation.advance(vm, 6.0, agent=True))
    answer(vm, operation, command, 6.1)
    operation.advance(vm, 9.0, agent=True)
    assert operation.outcome is Outcome.DONE
    assert vm.virtio_mem.requested_bytes == 128 * MIB
    assert vm.virtio_mem.shrink_rate == 0, "nobody knows how fast it gives back"


def test_what_qemu_has_not_told_yet_of_a_growth_leaves_as_well_and_is_to_be_spared() -> None:
    """The guest's own kernel had shown it, so the growth was done; QEMU still tells what was there before."""
    vm = made(512, available_mib=100)
    vm.virtio_mem.observe(128 * MIB, 512 * MIB, 0.9)
    operation = resize(384)
    answer(vm, operation, asked_for(operation.advance(vm, 1.0, agent=True)), 1.1)
    assert not operation.awaits_report, "128 MiB leave, and it has 100 available"


def test_a_shrink_is_not_done_by_what_qemu_had_told_before_the_growth_that_it_follows() -> None:
    """Two that follow each other within 50 ms would together take more than one command may."""
    vm = made(0)
    growth = growing(vm)
    build.says(vm, build.facts(768, 568, total_bytes=vm.guest.facts.total_bytes + 256 * MIB))  # type: ignore[union-attr]
    growth.advance(vm, 1.4, agent=True)
    assert growth.outcome is Outcome.DONE
    assert vm.virtio_mem.current_bytes == 0, "QEMU has not told yet"
    shrink = resize(128)
    answer(vm, shrink, asked_for(shrink.advance(vm, 1.5, agent=True)), 1.6)
    shrink.advance(vm, 1.6, agent=True)
    assert shrink.outcome is Outcome.UNDER_WAY
    vm.virtio_mem.observe(128 * MIB, None, 2.0)
    shrink.advance(vm, 2.0, agent=True)
    assert shrink.outcome is Outcome.DONE


def test_blocks_that_stay_are_asked_for_no_more_and_it_is_remembered() -> None:
    vm = made(256)
    operation = resize(0)
    answer(vm, operation, asked_for(operation.advance(vm, 1.0, agent=True)), 1.1)
    operation.advance(vm, 1.2, agent=True)
    vm.virtio_mem.observe(64 * MIB, None, 4.0)
    assert operation.advance(vm, 4.0, agent=True) == []
    assert operation.advance(vm, 4.0 + PATIENCE, agent=True) == []
    settle = asked_for(operation.advance(vm, 4.1 + PATIENCE, agent=True))
    assert settle.requested_bytes == 64 * MIB
    answer(vm, operation, settle, 10.0)
    assert operation.outcome is Outcome.FAILED
    assert vm.virtio_mem.settled
    assert "stays at 64 MiB" in operation.note
    assert operation.kept_bytes == 0, "it was movable, so its guest had no room for what lies in it"


def test_what_the_kernel_keeps_of_what_is_to_leave_is_remembered() -> None:
    vm = made(256)
    operation = resize(0)
    answer(vm, operation, asked_for(operation.advance(vm, 1.0, agent=True)), 1.1)
    vm.virtio_mem.observe(128 * MIB, None, 2.0)
    operation.advance(vm, 2.0, agent=True)
    build.says(vm, build.facts(640, 300, at=2.5, online_bytes=640 * MIB))
    answer(vm, operation, asked_for(operation.advance(vm, 2.1 + PATIENCE, agent=True)), 8.0)
    assert (operation.outcome, operation.kept_bytes) == (Outcome.FAILED, 128 * MIB)


def test_growth_that_stays_short_keeps_nothing() -> None:
    vm = made(0)
    operation = growing(vm)
    vm.virtio_mem.observe(128 * MIB, None, 1.5)
    operation.advance(vm, 1.5, agent=True)
    assert asked_for(operation.advance(vm, 1.6 + PATIENCE, agent=True))
    assert operation.kept_bytes == 0


def test_time_in_which_the_vm_may_not_be_touched_is_no_time_to_give_memory_back() -> None:
    vm = made(256)
    operation = resize(0)
    answer(vm, operation, asked_for(operation.advance(vm, 1.0, agent=True)), 1.1)
    operation.advance(vm, 1.2, agent=True)
    operation.hold(2.0)
    assert operation.advance(vm, 100.0, agent=True) == []
    assert asked_for(operation.advance(vm, 100.1 + PATIENCE, agent=True))


def test_what_the_balloon_holds_is_given_back_before_the_device_shrinks() -> None:
    vm = made(256, balloon_mib=384)
    operation = resize(128, raise_to_bytes=512 * MIB)
    command = only(operation.advance(vm, 1.0, agent=True))
    assert isinstance(command, SetTarget)
    assert operation.advance(vm, 1.1, agent=True) == []
    vm.balloon.read(512 * MIB, 1.1)
    assert operation.advance(vm, 1.15, agent=True) == [], "an older target may still be in force"
    vm.balloon.answered(command.ticket, None, 1.2)
    assert asked_for(operation.advance(vm, 1.2, agent=True)).requested_bytes == 128 * MIB


@pytest.mark.parametrize(("minimum_mib", "asks"), [(640, True), (641, False)])
def test_virtio_mem_stays_without_which_a_guest_would_be_below_a_minimum_that_was_raised_meanwhile(
    minimum_mib: int, asks: bool
) -> None:
    vm = made(256, balloon_mib=384)
    operation = resize(128, raise_to_bytes=512 * MIB)
    operation.advance(vm, 1.0, agent=True)
    vm.balloon.read(512 * MIB, 1.1)
    build.answered(vm)
    limits = replace(vm.config.limits, startup_bytes=minimum_mib * MIB, minimum_bytes=minimum_mib * MIB)
    vm.configure(replace(vm.config, limits=limits))
    assert len(operation.advance(vm, 1.2, agent=True)) == asks
    assert operation.outcome is (Outcome.UNDER_WAY if asks else Outcome.DROPPED)


def test_virtio_mem_stays_where_nobody_knows_whether_the_balloon_may_give_its_memory_back() -> None:
    vm = made(256, balloon_mib=384)
    operation = resize(128, raise_to_bytes=512 * MIB)
    command = only(operation.advance(vm, 1.0, agent=True))
    assert isinstance(command, SetTarget)
    vm.balloon.read(512 * MIB, 1.1)
    vm.balloon.answered(command.ticket, "no answer in time", 3.0)
    assert operation.advance(vm, 3.1, agent=True) == []
    assert operation.outcome is Outcome.FAILED
    assert operation.note == "the balloon's target was not confirmed"


# --- a guest that comes to need what it was to give back ---


def shrinking(vm: Vm, size_mib: int = 0) -> Resize:
    """As far as the hypervisor's answer."""
    operation = resize(size_mib)
    answer(vm, operation, asked_for(operation.advance(vm, 1.0, agent=True)), 1.1)
    assert operation.advance(vm, 1.2, agent=True) == []
    return operation


def comes_to_need(vm: Vm, left_mib: int = 0, available_mib: int = 0, at: float = 1.5) -> None:
    """So much has left by its own kernel's count, and so much is available."""
    facts = vm.guest.facts
    assert facts is not None
    said = build.facts(at=at, total_bytes=facts.total_bytes - left_mib * MIB, usable_bytes=facts.usable_bytes)
    build.says(vm, replace(said, available_bytes=available_mib * MIB))


def test_a_guest_that_comes_to_need_what_is_to_leave_keeps_what_it_has_not_given_back() -> None:
    vm = made(256, available_mib=300)
    operation = shrinking(vm)
    comes_to_need(vm, left_mib=101)
    back = asked_for(operation.advance(vm, 1.5, agent=True))
    assert back.requested_bytes == 154 * MIB, "in whole blocks, and not what has left"
    assert vm.virtio_mem.may_hold_bytes == 256 * MIB, "it is charged with no more for that"
    assert operation.advance(vm, 1.6, agent=True) == [], "once"
    answer(vm, operation, back, 1.6)
    assert operation.outcome is Outcome.DROPPED, "nobody is to blame"
    assert operation.note == "the guest needs its virtio-mem after all"
    assert vm.unplug_rest.until == 1.5 + TURNED_BACK_SECONDS
    assert vm.unplug_rest.failures == 0


def test_what_has_left_by_its_kernels_count_is_followed_by_less_still() -> None:
    """QEMU has told nothing of it yet. Twice, each from where the last step ended."""
    vm = made(384, available_mib=500)
    operation = shrinking(vm, 256)
    assert not operation.has_left(vm), "its kernel has said nothing since"
    comes_to_need(vm, left_mib=127, available_mib=300)
    assert operation.advance(vm, 1.5, agent=True) == []
    assert not operation.has_left(vm), "a MiB is still there"
    comes_to_need(vm, left_mib=1, available_mib=300, at=1.6)
    assert operation.advance(vm, 1.6, agent=True) == []
    assert operation.has_left(vm)
    further = asked_for(operation.further(vm, 128 * MIB, 1.7))
    assert further.requested_bytes == 128 * MIB
    assert vm.virtio_mem.shrink_rate == 2 * 128 * MIB, "128 MiB within a second"
    assert vm.virtio_mem.may_hold_bytes == 384 * MIB, "charged until QEMU tells"
    assert not operation.has_left(vm), "it is not answered"
    answer(vm, operation, further, 1.8)
    comes_to_need(vm, left_mib=127, available_mib=200, at=1.9)
    assert operation.advance(vm, 1.9, agent=True) == []
    assert not operation.has_left(vm)
    vm.virtio_mem.observe(256 * MIB, None, 2.0)
    assert operation.advance(vm, 2.0, agent=True) == []
    assert operation.outcome is Outcome.UNDER_WAY, "that was the step before"
    comes_to_need(vm, left_mib=1, available_mib=200, at=2.1)
    assert operation.advance(vm, 2.1, agent=True) == []
    assert operation.has_left(vm)
    vm.virtio_mem.observe(128 * MIB, None, 3.0)
    operation.advance(vm, 3.0, agent=True)
    assert operation.outcome is Outcome.DONE
    assert vm.virtio_mem.shrink_rate == 2 * 128 * MIB, "not the 1.3 s until QEMU told"


def test_what_its_guest_comes_to_need_in_a_second_step_it_keeps_as_in_the_first() -> None:
    vm = made(384, available_mib=500)
    operation = shrinking(vm, 256)
    comes_to_need(vm, left_mib=128, available_mib=300)
    operation.advance(vm, 1.5, agent=True)
    answer(vm, operation, asked_for(operation.further(vm, 0, 1.5)), 1.6)
    comes_to_need(vm, left_mib=100, available_mib=0, at=1.7)
    assert asked_for(operation.advance(vm, 1.7, agent=True)).requested_bytes == 156 * MIB


def left(vm: Vm, operation: Resize, now: float = 1.5, **changes: Any) -> bool:
    """Whether all has left when its kernel counts 128 MiB less, and enough is available."""
    comes_to_need(vm, left_mib=128, available_mib=200, at=now)
    assert vm.guest.facts is not None
    build.says(vm, replace(vm.guest.facts, **changes))
    operation.advance(vm, now, agent=True)
    return operation.has_left(vm)


def test_all_has_left_only_where_its_kernels_count_can_say_so() -> None:
    vm = made(256, available_mib=300)
    assert left(vm, shrinking(vm, 128))
    vm = made(256, available_mib=300)
    assert not left(vm, shrinking(vm, 128), from_agent=False), "its balloon's statistics come late"
    vm = made(256, available_mib=300)
    assert not left(vm, shrinking(vm, 128), at=1.0), "it spoke before"
    vm = made(256, available_mib=100)
    assert not left(vm, shrinking(vm, 128)), "it was squeezed: that is followed for its full time"
    vm = made(256, available_mib=300)
    build.says(vm, build.facts(512 + 300, 512))
    assert not left(vm, shrinking(vm, 128)), (
        "something was leaving when it was asked, and may have left instead"
    )
    vm = made(256, available_mib=300)
    vm.virtio_mem.inherit(256 * MIB)
    assert not left(vm, shrinking(vm, 128)), "nobody knew what it was asked for"
    vm = made(256, available_mib=300)
    vm.virtio_mem.ask("web", 100, 256 * MIB, 0.5)
    assert not left(vm, shrinking(vm, 128)), "nor whether it would be asked for something else"
    vm = made(256, available_mib=300)
    assert vm.guest.facts is not None
    offline = {"offline_bytes": 128 * MIB, "usable_bytes": vm.guest.facts.usable_bytes - 128 * MIB}
    build.says(vm, replace(vm.guest.facts, **offline))
    assert not left(vm, shrinking(vm, 128)), "what was offline may have left instead"


def test_what_has_just_come_by_its_kernels_word_may_leave_again_before_qemu_has_told_of_it() -> None:
    vm = made(256, available_mib=300)
    vm.virtio_mem.observe(64 * MIB, None, 0.5)
    assert left(vm, shrinking(vm, 128))


@pytest.mark.parametrize("arrives", [0.9, 1.3])
def test_what_a_balloon_took_that_was_on_its_way_when_it_was_asked_has_not_left(arrives: float) -> None:
    """It has come to its target, told long ago, before it was asked and since its kernel spoke, or after."""
    vm = made(256, available_mib=300)
    vm.balloon.send(7, 384 * MIB, vm.entitled_bytes, -9.0)
    vm.balloon.answered(7, None, -8.9)
    if arrives < 1.0:
        vm.balloon.read(384 * MIB, arrives)
    operation = shrinking(vm, 128)
    vm.balloon.read(384 * MIB, 1.3)
    assert not left(vm, operation)


@pytest.mark.parametrize("at", [-0.5, 1.3])
def test_what_cannot_be_told_from_what_its_balloon_takes_has_not_left(at: float) -> None:
    vm = made(256, available_mib=300)
    operation = resize(128)
    if at < 1.0:
        vm.balloon.send(7, 384 * MIB, vm.entitled_bytes, at)
    answer(vm, operation, asked_for(operation.advance(vm, 1.0, agent=True)), 1.1)
    if at > 1.0:
        vm.balloon.send(7, 384 * MIB, vm.entitled_bytes, at)
    vm.balloon.answered(7, None, 1.4)
    vm.balloon.read(384 * MIB, 1.4)
    assert not left(vm, operation)


def test_nor_what_somebody_else_asked_back() -> None:
    vm = made(256, available_mib=300)
    operation = shrinking(vm, 128)
    assert left(vm, operation)
    vm.virtio_mem.observe(256 * MIB, 64 * MIB, 1.6)
    assert not operation.has_left(vm)


def test_a_growth_is_not_there_by_what_qemu_had_told_before_the_shrink_that_it_follows() -> None:
    """It was turned back when 100 of 256 MiB had left, which QEMU has not told: they have to come anew."""
    vm = made(256, available_mib=300)
    operation = shrinking(vm)
    comes_to_need(vm, left_mib=100)
    answer(vm, operation, asked_for(operation.advance(vm, 1.5, agent=True)), 1.6)
    vm.guest.confirm_zone("movable")
    growth = resize(256, zone="movable")
    answer(vm, growth, asked_for(growth.advance(vm, 1.7, agent=True)), 1.8)
    comes_to_need(vm, at=1.9)
    assert vm.virtio_mem.current_bytes == growth.size_bytes
    growth.advance(vm, 1.9, agent=True)
    assert growth.outcome is Outcome.UNDER_WAY
    vm.virtio_mem.observe(156 * MIB, None, 2.0)
    growth.advance(vm, 2.0, agent=True)
    vm.virtio_mem.observe(256 * MIB, None, 3.0)
    comes_to_need(vm, left_mib=-50, at=3.1)
    growth.advance(vm, 3.1, agent=True)
    assert growth.outcome is Outcome.DONE


def test_a_guest_with_half_a_margin_left_goes_on_giving_back() -> None:
    vm = made(256, available_mib=300)
    operation = shrinking(vm)
    comes_to_need(vm, available_mib=8)
    assert operation.advance(vm, 1.5, agent=True) == []


def test_it_keeps_no_more_than_it_is_charged_with() -> None:
    """Its agent last spoke before QEMU told that the most of it has left."""
    vm = made(256, available_mib=300)
    operation = shrinking(vm)
    vm.virtio_mem.observe(64 * MIB, None, 1.4)
    comes_to_need(vm)
    assert asked_for(operation.advance(vm, 1.5, agent=True)).requested_bytes == 64 * MIB
    assert vm.virtio_mem.may_hold_bytes == 64 * MIB


def test_nor_what_was_offline_and_leaves_its_kernels_count_as_it_was() -> None:
    """256 MiB are plugged, and 100 of them online."""
    vm = made(256, available_mib=300)
    facts = vm.guest.facts
    assert facts is not None
    offline = {"offline_bytes": 156 * MIB, "usable_bytes": facts.usable_bytes - 156 * MIB}
    build.says(vm, replace(facts, total_bytes=facts.total_bytes - 156 * MIB, **offline))
    operation = shrinking(vm)
    comes_to_need(vm, left_mib=30)
    assert asked_for(operation.advance(vm, 1.5, agent=True)).requested_bytes == 70 * MIB


def test_it_keeps_nothing_that_it_had_not_come_to_before_it_was_asked_for_less() -> None:
    vm = made(256, available_mib=300)
    vm.virtio_mem.observe(256 * MIB, 384 * MIB, 0.5)
    operation = shrinking(vm, 128)
    comes_to_need(vm, left_mib=100)
    assert asked_for(operation.advance(vm, 1.5, agent=True)).requested_bytes == 156 * MIB


def test_what_has_left_its_balloons_driver_may_know_before_its_agent_says_so() -> None:
    vm = made(256, available_mib=300)
    operation = shrinking(vm)
    assert vm.guest.facts is not None
    total = vm.guest.facts.total_bytes - 128 * MIB
    build.answers(vm, 1.5, BalloonStats(total, 0, updated=1))
    assert asked_for(operation.advance(vm, 1.5, agent=True)).requested_bytes == 128 * MIB


@pytest.mark.parametrize(
    ("targets_mib", "actual_mib"), [((384,), 384), ((384,), 448), ((448,), 384), ((384, 448), 448)]
)
def test_what_its_balloon_gives_meanwhile_is_not_taken_for_what_its_device_still_has(
    targets_mib: tuple[int, ...], actual_mib: int
) -> None:
    """128 MiB came by the balloon while 100 left the device, so its kernel counts more than before."""
    vm = made(256, available_mib=300)
    for ticket, target_mib in enumerate(targets_mib):
        vm.balloon.send(100 + ticket, target_mib * MIB, vm.entitled_bytes, 0.5 * ticket - 1.5)
    vm.balloon.read(actual_mib * MIB, 0.9)
    operation = shrinking(vm)
    vm.balloon.send(7, 512 * MIB, vm.entitled_bytes, 1.3)
    comes_to_need(vm, left_mib=100 - 128)
    assert asked_for(operation.advance(vm, 1.5, agent=True)).requested_bytes == 156 * MIB


@pytest.mark.parametrize(("now", "given_mib"), [(1.5, 128), (4.5, 96)])
def test_nor_is_what_its_balloon_gave_and_is_about_to_take_back(now: float, given_mib: int) -> None:
    """The target before may still be followed for two seconds, and then what was last read is the most."""
    vm = made(256, available_mib=300, balloon_mib=384)
    operation = shrinking(vm)
    vm.balloon.send(7, 512 * MIB, vm.entitled_bytes, 1.3)
    vm.balloon.send(8, 400 * MIB, vm.entitled_bytes, 1.4)
    vm.balloon.read((384 + 96) * MIB, 1.5)
    comes_to_need(vm, left_mib=100 - given_mib, at=now)
    assert asked_for(operation.advance(vm, now, agent=True)).requested_bytes == 156 * MIB


def test_a_guest_that_has_given_all_of_it_back_is_asked_for_nothing_more() -> None:
    vm = made(256, available_mib=300)
    operation = shrinking(vm, 128)
    comes_to_need(vm, left_mib=200)
    assert operation.advance(vm, 1.5, agent=True) == []
    vm.virtio_mem.observe(128 * MIB, None, 2.0)
    operation.advance(vm, 2.0, agent=True)
    assert operation.outcome is Outcome.DONE


def test_a_guest_that_is_squeezed_is_not_let_off_because_it_needs_what_it_has() -> None:
    vm = made(256, available_mib=100)
    operation = shrinking(vm)
    comes_to_need(vm)
    assert operation.advance(vm, 1.5, agent=True) == []


def test_a_guest_that_grows_and_is_at_its_end_is_still_given_what_was_asked_for() -> None:
    vm = made(0)
    operation = growing(vm)
    comes_to_need(vm)
    assert operation.advance(vm, 1.6, agent=True) == []
    assert vm.virtio_mem.requested_bytes == 256 * MIB


def test_a_size_that_qemu_told_before_it_was_asked_for_is_waited_for_and_not_turned_back_from() -> None:
    """It grew a moment ago, and QEMU has not told yet: what it last told is what it is to come to."""
    vm = made(256, available_mib=300)
    vm.virtio_mem.observe(128 * MIB, None, 0.5)
    operation = shrinking(vm, 128)
    assert operation.stage is Stage.COMING_ONLINE
    comes_to_need(vm)
    assert operation.advance(vm, 1.5, agent=True) == []
    assert operation.outcome is Outcome.UNDER_WAY


def test_turning_back_ends_no_longer_rest() -> None:
    vm = made(256, available_mib=300)
    vm.unplug_rest.hold(1000.0)
    operation = shrinking(vm)
    comes_to_need(vm)
    assert asked_for(operation.advance(vm, 1.5, agent=True))
    assert vm.unplug_rest.until == 1000.0
    assert vm.virtio_mem.asked_at == 1.5


def test_turning_back_can_be_refused_and_then_the_larger_size_is_charged() -> None:
    vm = made(256, available_mib=300)
    operation = shrinking(vm)
    comes_to_need(vm)
    answer(vm, operation, asked_for(operation.advance(vm, 1.5, agent=True)), 1.6, error="no")
    assert operation.outcome is Outcome.FAILED
    vm.virtio_mem.observe(0, None, 3.0)
    assert vm.virtio_mem.may_hold_bytes == 256 * MIB


def test_after_a_command_that_failed_nobody_knows_what_is_asked_for_so_the_larger_size_is_charged() -> None:
    vm = made(0)
    operation = resize(256, zone="movable")
    answer(vm, operation, asked_for(operation.advance(vm, 1.0, agent=False)), 3.0, error="no answer in time")
    assert operation.outcome is Outcome.FAILED
    vm.virtio_mem.release()
    assert vm.virtio_mem.may_hold_bytes == 256 * MIB
    assert not vm.virtio_mem.settled
    again = vm.virtio_mem.ask(vm.config.uuid, 9, 0, 4.0)
    vm.virtio_mem.answered(again.ticket, None, 4.0)
    told(vm)
    assert vm.virtio_mem.may_hold_bytes == 0


# --- somebody else asks for a size meanwhile ---

OVERTAKEN = "somebody else asked for another size of its virtio-mem"


def test_what_shrinks_is_given_up_and_asks_for_nothing_where_the_guest_comes_to_need_what_others_gave() -> (
    None
):
    vm = made(512)
    operation = resize(256)
    answer(vm, operation, asked_for(operation.advance(vm, 1.0, agent=True)), 1.1)
    assert operation.advance(vm, 1.2, agent=True) == []
    assert vm.virtio_mem.observe(400 * MIB, 448 * MIB, 2.0)
    build.says(vm, build.facts(960, 960, at=2.1))
    assert operation.advance(vm, 2.2, agent=True) == []
    assert (operation.outcome, operation.note) == (Outcome.DROPPED, OVERTAKEN)


def test_what_was_to_grow_is_given_up_before_it_takes_back_what_others_gave() -> None:
    vm = made(128)
    operation = resize(256, zone="movable")
    zone = only(operation.advance(vm, 1.0, agent=True))
    assert isinstance(zone, SendToGuest)
    assert isinstance(zone.message, wire.OnlineZone)
    assert vm.virtio_mem.observe(128 * MIB, 512 * MIB, 1.2)
    operation.acknowledged(vm, wire.Ack(zone.message.request_id, ok=True))
    assert operation.advance(vm, 1.3, agent=True) == []
    assert (operation.outcome, operation.note) == (Outcome.DROPPED, OVERTAKEN)


def test_nor_is_it_taken_back_once_the_balloon_has_made_room_for_a_smaller_size() -> None:
    vm = made(256, balloon_mib=384)
    operation = resize(128, raise_to_bytes=512 * MIB)
    command = only(operation.advance(vm, 1.0, agent=True))
    assert isinstance(command, SetTarget)
    assert vm.virtio_mem.observe(256 * MIB, 512 * MIB, 1.1)
    vm.balloon.read(512 * MIB, 1.1)
    vm.balloon.answered(command.ticket, None, 1.2)
    assert operation.advance(vm, 1.2, agent=True) == []
    assert (operation.outcome, operation.note) == (Outcome.DROPPED, OVERTAKEN)


def test_what_others_asked_for_before_ours_was_answered_ends_it_since_nobody_knows_whose_came_last() -> None:
    vm = made(256)
    operation = resize(128)
    command = asked_for(operation.advance(vm, 1.0, agent=True))
    assert vm.virtio_mem.observe(256 * MIB, 512 * MIB, 1.1)
    answer(vm, operation, command, 1.2)
    assert operation.advance(vm, 1.3, agent=True) == []
    assert operation.outcome is Outcome.DROPPED
    assert vm.virtio_mem.may_hold_bytes == 512 * MIB
