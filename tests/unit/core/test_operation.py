"""Plugging a DIMM and taking one out, step by step, with every way to fail."""

import itertools
from dataclasses import replace

import pytest

from agent import wire
from host_controller.core.interface import AttachDimm, Command, DetachDimm, SendToGuest, SetTarget
from host_controller.core.model import Dimm
from host_controller.core.operations import Plug, Unplug
from host_controller.core.operations.operation import ACK_LIMIT, ASK_AGAIN, ONLINE_LIMIT
from host_controller.core.operations.stages import Outcome
from host_controller.core.operations.unplug import DETACH_LIMIT, OFFLINE_LIMIT, PATIENCE
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.record import Vm
from host_controller.core.vm.stalls import Stalls
from host_controller.units import MIB
from tests.support import build

DIMM = Dimm("dimm0", 256 * MIB, 4096 * MIB)


def plug() -> tuple[Vm, Plug]:
    vm = build.vm(512)
    build.says(vm, build.facts(512, 400, at=1.0))
    return vm, Plug(itertools.count(1).__next__, size_bytes=256 * MIB, zone="movable")


def unplug(raise_to_mib: int | None = 700) -> tuple[Vm, Unplug]:
    vm = build.vm(600, dimms_mib=(256,))
    raise_to = None if raise_to_mib is None else raise_to_mib * MIB
    return vm, Unplug(itertools.count(1).__next__, alias="dimm0", raise_to_bytes=raise_to)


def only(commands: list[Command]) -> Command:
    [command] = commands
    return command


def to_guest(commands: list[Command]) -> wire.HostMessage:
    command = only(commands)
    assert isinstance(command, SendToGuest)
    return command.message


def attach(vm: Vm, operation: Plug) -> AttachDimm:
    zone = to_guest(operation.advance(vm, 1.0, agent=True))
    assert isinstance(zone, wire.OnlineZone)
    operation.acknowledged(vm, wire.Ack(zone.request_id, ok=True))
    command = only(operation.advance(vm, 1.1, agent=True))
    assert isinstance(command, AttachDimm)
    return command


def test_the_zone_is_chosen_before_the_dimm_is_plugged() -> None:
    vm, operation = plug()
    zone = to_guest(operation.advance(vm, 1.0, agent=True))
    assert isinstance(zone, wire.OnlineZone)
    assert zone.zone == "movable"
    assert vm.plug.pending_bytes == 0
    operation.acknowledged(vm, wire.Ack(zone.request_id, ok=True))
    command = only(operation.advance(vm, 1.1, agent=True))
    assert isinstance(command, AttachDimm)
    assert vm.plug.pending_bytes == command.size_bytes == 256 * MIB


def test_a_zone_that_the_agent_has_confirmed_is_not_named_again() -> None:
    vm, first = plug()
    attach(vm, first)
    assert isinstance(only(plug()[1].advance(vm, 2.0, agent=True)), AttachDimm)
    _, other = plug()
    other.zone = "kernel"
    assert isinstance(to_guest(other.advance(vm, 3.0, agent=True)), wire.OnlineZone)


def test_a_guest_that_stalls_is_asked_again_so_that_it_shows_what_it_has_taken_meanwhile() -> None:
    _, operation = plug()
    vm = build.vm(512, facts=build.facts(512, 400), zone="movable", demand=Demand(stall=Stalls(share=0.5)))
    assert isinstance(to_guest(operation.advance(vm, 1.0, agent=True)), wire.OnlineZone)


def test_a_zone_that_nobody_heard_confirmed_is_none() -> None:
    vm, operation = plug()
    vm.guest.confirm_zone("movable")
    operation.zone = "kernel"
    zone = to_guest(operation.advance(vm, 1.0, agent=True))
    assert isinstance(zone, wire.OnlineZone)
    operation.hold(1.1)
    operation.acknowledged(vm, wire.Ack(zone.request_id, ok=True))
    assert operation.outcome is Outcome.DROPPED
    assert isinstance(to_guest(plug()[1].advance(vm, 5.0, agent=True)), wire.OnlineZone)


def test_a_dimm_is_as_large_as_the_guest_can_bear_when_it_is_plugged_not_when_its_zone_was_named() -> None:
    vm, operation = plug()
    zone = to_guest(operation.advance(vm, 1.0, agent=True))
    operation.acknowledged(vm, wire.Ack(zone.request_id, ok=True))  # type: ignore[union-attr]
    build.says(vm, build.facts(512, 502, at=1.1))  # a third of its 10 MiB describes 213
    command = only(operation.advance(vm, 1.1, agent=True))
    assert isinstance(command, AttachDimm)
    assert command.size_bytes == 128 * MIB


def test_a_plug_is_done_when_the_guest_has_the_memory_online() -> None:
    vm, operation = plug()
    command = attach(vm, operation)
    vm.replug((DIMM,), 1.15)
    operation.dimms_changed(vm, added=True)
    assert vm.plug.pending_bytes == 0  # from now on it counts as RAM
    operation.done(vm, command.ticket, None, False, 1.2)
    operation.advance(vm, 1.3, agent=True)
    assert operation.outcome is Outcome.UNDER_WAY
    build.says(vm, build.facts(768, 400, at=1.4, online_bytes=768 * MIB))
    operation.advance(vm, 1.5, agent=True)
    assert operation.outcome is Outcome.DONE


def test_a_plug_without_an_agent_goes_by_what_the_balloon_statistics_show() -> None:
    vm, operation = plug()
    build.says(vm, build.facts(512, 400, at=1.0, from_agent=False))
    assert isinstance(only(operation.advance(vm, 1.0, agent=False)), AttachDimm)
    operation.dimms_changed(vm, added=True)
    operation.advance(vm, 1.1, agent=False)
    build.says(vm, build.facts(768, 400, at=2.0, from_agent=False))
    operation.advance(vm, 2.0, agent=False)
    assert operation.outcome is Outcome.DONE


def test_an_agent_that_does_not_answer_is_asked_again_and_then_it_grows_as_without_one() -> None:
    vm, operation = plug()
    first = to_guest(operation.advance(vm, 1.0, agent=True))
    assert operation.advance(vm, 1.0 + ASK_AGAIN, agent=True) == []
    assert to_guest(operation.advance(vm, 1.1 + ASK_AGAIN, agent=True)) == first, "either answer will do"
    assert operation.advance(vm, 1.1 + ASK_AGAIN + ACK_LIMIT, agent=True) == []
    assert isinstance(only(operation.advance(vm, 1.2 + ASK_AGAIN + ACK_LIMIT, agent=True)), AttachDimm)
    assert vm.guest.zone is None, "nobody knows it, so the next growth asks"


def test_growth_whose_agent_is_late_waits_until_it_is_known_that_the_host_has_the_memory_still() -> None:
    vm, operation = plug()
    operation.advance(vm, 1.0, agent=True, may_grow=False)
    operation.advance(vm, 1.1 + ASK_AGAIN, agent=True, may_grow=False)
    late = 1.2 + ASK_AGAIN + ACK_LIMIT
    assert operation.advance(vm, late, agent=True, may_grow=False) == []
    assert operation.about_to_grow
    assert operation.advance(vm, late + 100.0, agent=True, may_grow=False) == []
    assert isinstance(only(operation.advance(vm, late, agent=True)), AttachDimm)


def test_a_dimm_that_would_use_the_last_slot_up_below_maximum_is_not_plugged() -> None:
    vm = build.vm(512, config={"slots": 1})
    build.says(vm, build.facts(512, 502, at=1.0))  # it can bear 128 of the 512 MiB that are missing
    operation = Plug(itertools.count(1).__next__, size_bytes=512 * MIB, zone="movable")
    assert operation.advance(vm, 1.0, agent=False) == []
    assert operation.outcome is Outcome.DROPPED


def test_a_refused_plug_costs_nothing_any_more() -> None:
    vm, operation = plug()
    command = attach(vm, operation)
    operation.done(vm, command.ticket, "no free slot", False, 1.2)
    assert operation.outcome is Outcome.FAILED
    assert "no free slot" in operation.note
    assert vm.plug.pending_bytes == 0


def test_a_plug_whose_outcome_nobody_knows_stays_paid_for_until_somebody_knows() -> None:
    vm, operation = plug()
    command = attach(vm, operation)
    operation.done(vm, command.ticket, "timed out", True, 3.2)
    operation.advance(vm, 1000.0, agent=True)
    assert operation.outcome is Outcome.UNDER_WAY
    assert vm.plug.pending_bytes == 256 * MIB
    operation.dimms_changed(vm, added=False)
    assert operation.outcome is Outcome.FAILED
    assert vm.plug.pending_bytes == 0


def test_memory_that_does_not_come_online_in_time_fails_the_plug() -> None:
    vm, operation = plug()
    attach(vm, operation)
    operation.dimms_changed(vm, added=True)
    operation.advance(vm, 2.0, agent=True)
    operation.advance(vm, 2.1 + ONLINE_LIMIT, agent=True)
    assert operation.outcome is Outcome.FAILED


def test_the_balloon_makes_room_before_the_guest_is_asked_to_give_a_dimm_up() -> None:
    vm, operation = unplug()
    command = only(operation.advance(vm, 1.0, agent=True))
    assert isinstance(command, SetTarget)
    assert command.target_bytes == 700 * MIB
    assert operation.advance(vm, 1.1, agent=True) == []
    vm.balloon.read(700 * MIB, 1.1)
    assert operation.advance(vm, 1.15, agent=True) == [], "the target is not answered yet"
    build.answered(vm)
    offline = to_guest(operation.advance(vm, 1.2, agent=True))
    assert offline == wire.Offline(offline.request_id, 4096 * MIB, 256 * MIB)  # type: ignore[union-attr]


def offlined() -> tuple[Vm, Unplug, wire.Offline]:
    vm, operation = unplug()
    operation.advance(vm, 1.0, agent=True)
    vm.balloon.read(700 * MIB, 1.1)
    build.answered(vm)
    request = to_guest(operation.advance(vm, 1.1, agent=True))
    assert isinstance(request, wire.Offline)
    return vm, operation, request


def test_a_dimm_is_gone_when_the_hypervisor_says_so() -> None:
    vm, operation, request = offlined()
    operation.acknowledged(vm, wire.Ack(request.request_id, ok=True))
    command = only(operation.advance(vm, 1.2, agent=True))
    assert isinstance(command, DetachDimm)
    operation.done(vm, command.ticket, None, False, 1.25)
    vm.replug((), 1.25)
    operation.advance(vm, 1.3, agent=True)
    assert operation.outcome is Outcome.DONE


def test_a_dimm_that_a_controller_before_us_had_asked_for_is_given_up_once_our_own_request_is_answered() -> (
    None
):
    """Else a target was sent beside a request that was still being carried out."""
    vm, operation, request = offlined()
    operation.acknowledged(vm, wire.Ack(request.request_id, ok=True))
    command = only(operation.advance(vm, 1.2, agent=True))
    assert isinstance(command, DetachDimm)
    vm.replug((), 1.25)
    operation.advance(vm, 1.3, agent=True)
    assert operation.outcome is Outcome.UNDER_WAY
    operation.done(vm, command.ticket, "no such device", False, 1.35)
    operation.advance(vm, 1.4, agent=True)
    assert operation.outcome is Outcome.DONE


def test_a_dimm_that_is_gone_is_given_up_though_nobody_ever_answers() -> None:
    vm, operation, request = offlined()
    operation.acknowledged(vm, wire.Ack(request.request_id, ok=True))
    operation.advance(vm, 1.2, agent=True)
    vm.replug((), 1.25)
    operation.advance(vm, 1.3 + DETACH_LIMIT, agent=True)
    assert operation.outcome is Outcome.DONE


@pytest.mark.parametrize("how", ["refused", "silent", "will not leave", "says no"])
def test_a_dimm_that_does_not_leave_is_brought_back_online(how: str) -> None:
    vm, operation, request = offlined()
    match how:
        case "refused":
            operation.acknowledged(vm, wire.Ack(request.request_id, ok=False, detail="EBUSY"))
            sent = operation.advance(vm, 1.2, agent=True)
        case "silent":
            sent = operation.advance(vm, 1.2 + OFFLINE_LIMIT, agent=True)
        case _:
            operation.acknowledged(vm, wire.Ack(request.request_id, ok=True))
            operation.advance(vm, 1.2, agent=True)
            if how == "says no":
                operation.done(vm, operation.ticket, None, False, 1.25)
                operation.refused(vm, "dimm0")
            sent = operation.advance(vm, 1.3 + (DETACH_LIMIT if how == "will not leave" else 0.1), agent=True)
    back = to_guest(sent)
    assert isinstance(back, wire.Online)
    assert (back.start_bytes, back.size_bytes) == (request.start_bytes, request.size_bytes)
    assert operation.outcome is Outcome.FAILED


def test_a_guest_that_comes_to_need_a_dimm_keeps_it() -> None:
    vm, operation, request = offlined()
    build.says(vm, build.facts(700, 600, at=1.2))
    assert operation.advance(vm, 1.2, agent=True) == []
    build.says(vm, build.facts(700, 690, at=1.3))
    back = to_guest(operation.advance(vm, 1.3, agent=True))
    assert isinstance(back, wire.Online)
    assert (back.start_bytes, back.size_bytes) == (request.start_bytes, request.size_bytes)
    assert operation.outcome is Outcome.FAILED


def minimum(vm: Vm, mib: int) -> None:
    limits = replace(vm.config.limits, startup_bytes=mib * MIB, minimum_bytes=mib * MIB)
    vm.configure(replace(vm.config, limits=limits))


@pytest.mark.parametrize("agent", [True, False])
@pytest.mark.parametrize(("minimum_mib", "goes_on"), [(444, True), (445, False)])
def test_a_dimm_stays_without_which_a_guest_would_be_below_a_minimum_that_was_raised_meanwhile(
    minimum_mib: int, goes_on: bool, agent: bool
) -> None:
    vm, operation = unplug()
    operation.advance(vm, 1.0, agent=agent)
    vm.balloon.read(700 * MIB, 1.1)
    build.answered(vm)
    minimum(vm, minimum_mib)
    assert len(operation.advance(vm, 1.1, agent=agent)) == goes_on
    assert operation.outcome is (Outcome.UNDER_WAY if goes_on else Outcome.DROPPED)


@pytest.mark.parametrize("answered", [True, False])
def test_a_dimm_that_is_offline_is_brought_back_for_a_minimum_that_was_raised_meanwhile(
    answered: bool,
) -> None:
    vm, operation, request = offlined()
    if answered:
        operation.acknowledged(vm, wire.Ack(request.request_id, ok=True))
    minimum(vm, 445)
    assert isinstance(to_guest(operation.advance(vm, 1.2, agent=True)), wire.Online)
    assert operation.outcome is Outcome.FAILED


def test_an_offline_dimm_is_detached_at_once() -> None:
    vm, operation = unplug(None)
    assert isinstance(only(operation.advance(vm, 1.0, agent=True)), DetachDimm)


def asked_twice() -> tuple[Vm, Unplug, DetachDimm]:
    """An offline DIMM that stays, and the second request for it, some time after the answer to the first."""
    vm, operation = unplug(None)
    build.says(vm, build.facts(700, 400, offline_bytes=vm.dimms.plugged[0].size_bytes))
    first = only(operation.advance(vm, 1.0, agent=True))
    assert isinstance(first, DetachDimm)
    assert operation.advance(vm, 1.1 + PATIENCE, agent=True) == [], "not answered yet"
    operation.done(vm, first.ticket, None, False, 7.0)
    assert operation.advance(vm, 6.9 + PATIENCE, agent=True) == []
    second = only(operation.advance(vm, 7.1 + PATIENCE, agent=True))
    assert isinstance(second, DetachDimm)
    assert second.ticket != first.ticket
    return vm, operation, second


def test_a_request_for_an_offline_dimm_that_is_not_heard_is_made_once_more_and_no_more() -> None:
    vm, operation, second = asked_twice()
    operation.done(vm, second.ticket, None, False, 12.2)
    assert operation.advance(vm, 12.0 + DETACH_LIMIT, agent=True) == []
    operation.advance(vm, 12.2 + DETACH_LIMIT, agent=True)
    assert operation.outcome is Outcome.FAILED


@pytest.mark.parametrize("late", [False, True])
def test_a_dimm_that_goes_before_the_second_request_is_answered_is_done_with_only_then(late: bool) -> None:
    vm, operation, second = asked_twice()
    vm.replug((), 1.25)
    operation.dimms_changed(vm, added=False)
    operation.advance(vm, 13.0, agent=True)
    assert operation.outcome is Outcome.UNDER_WAY, "no balloon target may overlap with it"
    operation.done(vm, second.ticket, "no such device", late, 14.0)
    if late:
        operation.advance(vm, 14.1, agent=True)
        assert operation.outcome is Outcome.UNDER_WAY
        operation.dimms_changed(vm, added=False)
    operation.advance(vm, 14.2, agent=True)
    assert operation.outcome is Outcome.DONE


def test_a_dimm_that_may_still_be_going_offline_is_not_asked_for_again() -> None:
    vm, operation = unplug(None)
    command = only(operation.advance(vm, 1.0, agent=True))
    assert isinstance(command, DetachDimm)
    operation.done(vm, command.ticket, None, False, 1.2)
    assert operation.advance(vm, 1.1 + PATIENCE, agent=True) == []
    assert operation.outcome is Outcome.UNDER_WAY


def test_a_plug_that_has_changed_nothing_is_given_up_when_a_job_begins_and_nobody_is_to_blame() -> None:
    vm, operation = plug()
    zone = to_guest(operation.advance(vm, 1.0, agent=True))
    assert isinstance(zone, wire.OnlineZone)
    operation.acknowledged(vm, wire.Ack(zone.request_id, ok=True))
    operation.hold(1.1)
    assert operation.outcome is Outcome.DROPPED


def test_a_plug_that_lost_the_race_against_a_job_is_no_failure_of_the_guest() -> None:
    vm, operation = plug()
    command = attach(vm, operation)
    vm.pauses.job_is("migration")
    operation.done(vm, command.ticket, "not while this job runs: migration", False, 1.2)
    assert operation.outcome is Outcome.DROPPED
    assert vm.plug.pending_bytes == 0


def test_the_time_in_which_a_vm_may_not_be_touched_does_not_count_against_it() -> None:
    vm, operation = plug()
    attach(vm, operation)
    operation.dimms_changed(vm, added=True)
    operation.advance(vm, 2.0, agent=True)
    operation.hold(3.0)
    operation.hold(600.0)
    operation.advance(vm, 1000.0, agent=True)
    assert operation.outcome is Outcome.UNDER_WAY
    operation.advance(vm, 1000.0 + ONLINE_LIMIT, agent=True)
    assert operation.outcome is Outcome.FAILED


def test_an_offlined_dimm_waits_for_the_end_of_a_job_and_is_detached_then() -> None:
    vm, operation, request = offlined()
    operation.acknowledged(vm, wire.Ack(request.request_id, ok=True))
    operation.hold(1.2)
    assert operation.outcome is Outcome.UNDER_WAY
    command = only(operation.advance(vm, 100.0, agent=True))
    assert isinstance(command, DetachDimm)
    vm.pauses.job_is("save")
    operation.done(vm, command.ticket, "not while this job runs: save", False, 100.1)
    operation.hold(100.1)
    vm.pauses.job_is(None)
    build.says(vm, build.facts(700, 400, offline_bytes=vm.dimms.plugged[0].size_bytes))
    assert isinstance(only(operation.advance(vm, 200.0, agent=True)), DetachDimm)
    assert operation.advance(vm, 200.1, agent=True) == [], "this request is still to be answered"


def test_a_guest_that_starts_anew_ends_what_has_not_been_asked_of_the_hypervisor() -> None:
    vm, operation = plug()
    operation.advance(vm, 1.0, agent=True)
    operation.restarted(vm)
    assert operation.outcome is Outcome.DROPPED
    assert operation.note == "the guest started anew"


def test_a_dimm_that_comes_after_its_guest_started_anew_is_nothing_that_anybody_waits_for() -> None:
    vm, operation = plug()
    attach(vm, operation)
    operation.restarted(vm)
    assert operation.outcome is Outcome.UNDER_WAY
    assert vm.plug.pending_bytes == 256 * MIB, "it may still come"
    operation.dimms_changed(vm, added=False)
    assert operation.outcome is Outcome.UNDER_WAY, "somebody else's DIMM left"
    operation.dimms_changed(vm, added=True)
    assert operation.outcome is Outcome.DROPPED
    assert vm.plug.pending_bytes == 0


@pytest.mark.parametrize("reset_first", [False, True])
def test_a_late_hot_add_of_a_guest_that_started_anew_is_over_when_it_is_told_what_became_of_it(
    reset_first: bool,
) -> None:
    vm, operation = plug()
    command = attach(vm, operation)
    if reset_first:
        operation.restarted(vm)
    operation.done(vm, command.ticket, "timed out", True, 3.2)
    if not reset_first:
        operation.restarted(vm)
    operation.advance(vm, 1000.0, agent=True)
    assert operation.outcome is Outcome.UNDER_WAY
    assert vm.plug.pending_bytes == 256 * MIB
    operation.dimms_changed(vm, added=False)
    assert operation.outcome is Outcome.DROPPED
    assert vm.plug.pending_bytes == 0


def test_a_kernel_that_started_anew_is_not_told_to_bring_back_what_the_old_one_offlined() -> None:
    vm, operation, request = offlined()
    operation.acknowledged(vm, wire.Ack(request.request_id, ok=True))
    operation.advance(vm, 1.2, agent=True)
    operation.restarted(vm)
    operation.done(vm, operation.ticket, "timed out", True, 3.2)
    operation.dimms_changed(vm, added=False)
    assert operation.outcome is Outcome.DROPPED
    assert operation.advance(vm, 1000.0, agent=True) == []


def test_a_failure_stays_one_though_the_guest_starts_anew_before_it_is_told() -> None:
    vm, operation = plug()
    command = attach(vm, operation)
    operation.done(vm, command.ticket, "no free slot", False, 1.2)
    operation.restarted(vm)
    assert operation.outcome is Outcome.FAILED
