"""What the small records of a VM remember, and for how long."""

import math
from collections.abc import Callable

import pytest

from agent import wire
from host_controller.core.model import BalloonStats, Dimm, Growth, Limits, RunState
from host_controller.core.vm import phases
from host_controller.core.vm.dimms import Dimms
from host_controller.core.vm.evidence import REFILL_BYTES, REFILL_SECONDS, Evidence
from host_controller.core.vm.growth import LATE_PLUG_SECONDS, LONGEST_REST, PaidPlug, Rest
from host_controller.core.vm.guest import Guest
from host_controller.core.vm.inheritance import (
    InheritedPlug,
    boots_under_way,
    plugs_under_way,
    sizes_under_way,
)
from host_controller.core.vm.pauses import Pauses
from host_controller.core.vm.progress import CORRECTION, REST, Progress
from host_controller.core.vm.record import Pace, Phase
from host_controller.core.vm.virtio_mem import LATE_SECONDS, VirtioMem
from host_controller.units import GIB, MIB
from tests.support import build

# --- rests ---


def test_a_rest_doubles_with_each_failure_up_to_the_longest() -> None:
    rest = Rest()
    for seconds in (30.0, 60.0, 120.0, 240.0):
        rest.failed(30.0, 1000.0)
        assert rest.until == 1000.0 + seconds
    for _ in range(2000):  # an hour each: a guest that never gives a DIMM back, for three months
        rest.failed(30.0, 1000.0)
    assert rest.until == 1000.0 + LONGEST_REST


def test_after_a_success_the_next_failure_is_the_first_again_and_a_rest_that_has_begun_goes_on() -> None:
    rest = Rest()
    rest.failed(30.0, 0.0)
    rest.failed(30.0, 0.0)
    rest.succeeded()
    assert (rest.failures, rest.until) == (0, 60.0)
    rest.failed(30.0, 100.0)
    assert rest.until == 130.0


def test_a_rest_is_held_for_another_reason_without_a_failure() -> None:
    rest = Rest()
    rest.hold(math.inf)
    assert (rest.until, rest.failures) == (math.inf, 0)


def test_each_failure_says_anew_what_did_not_leave() -> None:
    rest = Rest()
    rest.failed(30.0, 0.0, 128 * MIB)
    assert rest.kept_bytes == 128 * MIB
    rest.failed(30.0, 100.0)
    assert rest.kept_bytes == 0, "nobody knows, so all of it rests"


@pytest.mark.parametrize("end", [Rest.forgive, lambda rest: rest.hold(-math.inf)])
def test_what_did_not_leave_is_forgotten_where_all_rests_or_nothing(end: Callable[[Rest], None]) -> None:
    rest = Rest()
    rest.failed(30.0, 0.0, 128 * MIB)
    end(rest)
    assert rest.kept_bytes == 0


def test_of_rests_only_one_after_a_failure_is_told_as_one() -> None:
    rest = Rest()
    rest.hold(1010.0)
    assert rest.after_failure(1000.0) == 0
    rest.failed(30.0, 1000.0)
    assert [rest.after_failure(now) for now in (1000.0, 1029.0, 1030.0)] == [30.0, 1.0, 0.0]
    rest.hold(math.inf)
    assert rest.after_failure(1000.0) == 0


def test_another_kernel_is_forgiven_what_the_last_one_failed_but_what_may_still_come_is_waited_for() -> None:
    rest = Rest()
    for _ in range(10):
        rest.failed(30.0, 1000.0)
    rest.forgive()
    assert (rest.until, rest.failures) == (-math.inf, 0)
    rest.failed(30.0, 1000.0)
    assert rest.until == 1030.0, "its own first failure is the first"
    rest.hold(math.inf)
    rest.forgive()
    assert rest.until == math.inf


# --- a DIMM that is paid for ---


def test_a_dimm_is_paid_from_the_decision_until_it_is_there() -> None:
    plug = PaidPlug()
    plug.pay(128 * MIB)
    assert plug.pending_bytes == 128 * MIB
    assert not plug.awaited
    plug.settle()
    assert plug.pending_bytes == 0


def test_a_dimm_that_somebody_before_us_asked_for_is_paid_until_it_comes_or_cannot_come() -> None:
    plug = PaidPlug()
    plug.inherit(256 * MIB, 50.0)
    assert (plug.pending_bytes, plug.awaited, plug.awaited_until) == (256 * MIB, True, 50 + LATE_PLUG_SECONDS)
    plug.arrived()
    assert (plug.pending_bytes, plug.awaited) == (0, False)


def test_growth_waits_for_an_inherited_dimm_and_no_longer() -> None:
    vm = build.vm(512)
    phases.await_plug(vm, 256 * MIB, 10.0)
    assert (vm.plug.pending_bytes, vm.plug_rest.until) == (256 * MIB, math.inf)
    vm.balloon.read(512 * MIB, 9.9 + LATE_PLUG_SECONDS)
    phases.advance(vm, build.settings(), 20.0)
    assert vm.plug.awaited, "QEMU was last heard while it might still be plugging"
    vm.balloon.read(512 * MIB, 10.0 + LATE_PLUG_SECONDS)
    phases.advance(vm, build.settings(), 21.0)
    assert (vm.plug.awaited, vm.plug.pending_bytes, vm.plug_rest.until) == (False, 0, 21.0)


def test_the_next_controller_is_told_of_every_dimm_that_is_paid_for_and_of_no_other() -> None:
    waits, rests = build.vm(512, dimms_mib=(128,), pending_bytes=256 * MIB), build.vm(512)
    assert plugs_under_way({"a": waits, "b": rests}) == {"a": InheritedPlug(256 * MIB, 1)}


def test_the_next_controller_is_told_what_a_device_may_come_to_that_was_asked_for_another_size() -> None:
    asked, promised, unsure, rose, rests = (VirtioMem(64 * MIB, 64 * MIB, 64 * MIB) for _ in range(5))
    asked.ask("asked", 1, 0, 10.0)
    promised.promise(128 * MIB)
    unsure.ask("unsure", 2, 256 * MIB, 10.0)
    unsure.answered(2, "it timed out", 10.0)
    for ticket, size in enumerate((128 * MIB, 64 * MIB)):
        rose.ask("rose", ticket, size, 10.0)
        rose.answered(ticket, None, 10.0)
    devices = {"asked": asked, "promised": promised, "unsure": unsure, "rose": rose, "rests": rests}
    vms = {name: build.vm(512, virtio_mem=device) for name, device in devices.items()}
    assert sizes_under_way(vms) == {
        "asked": 64 * MIB,
        "promised": 128 * MIB,
        "unsure": 256 * MIB,
        "rose": 128 * MIB,
    }


def test_the_next_controller_is_told_who_is_due_the_rest_of_its_startup() -> None:
    small = {"growth": Growth.VIRTIO_MEM, "virtio_mem_bytes": 512 * MIB, "boot_ram_bytes": 256 * MIB}
    vms = {
        name: build.vm(256, config=small, booted_at=booted, reports_since=reports)
        for name, booted, reports in (
            ("boots", 95.0, math.inf),
            ("booted long ago", 70.0, math.inf),
            ("reports", 80.0, 90.0),
            ("reports for the first time", 80.0, 100.0),
            ("reported long ago", 70.0, 75.0),
            ("ran before us", 95.0, -math.inf),
        )
    }
    whole = {"growth": Growth.VIRTIO_MEM, "boot_ram_bytes": build.LIMITS.startup_bytes}
    vms["boots with all of it"] = build.vm(512, config=whole, booted_at=95.0, reports_since=math.inf)
    assert boots_under_way(vms, 20.0, 100.0) == {
        "boots": (95.0, None),
        "reports": (80.0, 90.0),
        "reports for the first time": (80.0, 100.0),
    }


# --- DIMMs ---


def dimm(alias: str, size_mib: int = 128) -> Dimm:
    return Dimm(alias, size_mib * MIB, None)


def test_what_has_come_and_what_has_gone_is_known_by_the_names_of_the_dimms() -> None:
    dimms = Dimms((dimm("a", 128), dimm("b", 256)))
    assert dimms.bytes == 384 * MIB
    assert dimms.change((dimm("a", 128), dimm("c", 512)), 7.0) == (512 * MIB, 256 * MIB)
    assert (dimms.bytes, dimms.changed_at) == (640 * MIB, 7.0)
    assert dimms.change((dimm("a", 128), dimm("c", 512)), 9.0) == (0, 0)
    assert dimms.changed_at == 7.0
    dimms.change((dimm("a", 128),), 10.0)
    assert dimms.changed_at == 10.0
    dimms.change((dimm("a", 128), dimm("d", 128)), 11.0)
    assert dimms.changed_at == 11.0


def test_the_dimms_of_a_reset_are_remembered_by_name() -> None:
    dimms = Dimms((dimm("a"), dimm("b")))
    dimms.survive()
    dimms.change((dimm("b"), dimm("c")), 1.0)
    assert dimms.survivors == {"a", "b"}


def test_a_dimm_is_spare_since_it_was_first_found_so_and_not_since_it_was_needed() -> None:
    dimms = Dimms((dimm("a"),))
    assert dimms.spare_since(5.0) == 5.0
    assert dimms.spare_since(9.0) == 5.0
    dimms.needed()
    assert dimms.spare_since(12.0) == 12.0


def test_a_dimm_that_comes_raises_claim_target_and_ram_and_starts_the_clocks() -> None:
    vm = build.vm(300, claim_bytes=350 * MIB)
    assert vm.replug((dimm("a", 256),), 20.0) == (256 * MIB, 0)
    assert vm.ram_bytes == 768 * MIB
    assert vm.balloon.claim_bytes == (350 + 256) * MIB
    assert vm.balloon.target_bytes == vm.balloon.actual_bytes == 556 * MIB
    assert (vm.grown_at, vm.progress.at, vm.progress.present_bytes) == (20.0, 20.0, 556 * MIB)
    assert vm.dimms.changed_at == 20.0
    assert vm.replug((dimm("a", 256),), 30.0) == (0, 0)
    assert (vm.grown_at, vm.progress.at) == (20.0, 20.0)
    assert vm.replug((), 40.0) == (0, 256 * MIB)
    assert (vm.ram_bytes, vm.balloon.target_bytes, vm.grown_at) == (512 * MIB, 300 * MIB, 20.0)
    assert (vm.progress.at, vm.progress.present_bytes) == (40.0, 300 * MIB)


def test_a_dimm_list_that_is_told_again_does_not_have_the_target_said_again() -> None:
    vm = build.vm(300, dimms_mib=(128,))
    vm.replug(vm.dimms.plugged, 5.0)
    assert not vm.balloon.resend
    vm.replug((), 6.0)
    assert vm.balloon.resend


# --- evidence ---


def evidence(**changes: object) -> Evidence:
    return Evidence(**({"resident_at": 10.0, "borne_out_at": 10.0} | changes))  # type: ignore[arg-type]


def test_the_overhead_of_qemu_is_the_most_that_was_seen_of_it_also_by_a_record_before() -> None:
    one = Evidence()
    one.count(300 * MIB, 80 * MIB, 100 * MIB, 1.0)
    one.count(200 * MIB, 70 * MIB, 50 * MIB, 2.0)
    assert (one.resident_bytes, one.huge_bytes, one.resident_at) == (200 * MIB, 50 * MIB, 2.0)
    assert one.overhead_bytes == 80 * MIB
    one.count(200 * MIB, 70 * MIB, 50 * MIB, 600.0)
    assert one.overhead_bytes == 80 * MIB, "it may come again"
    other = Evidence()
    other.overhead_of(one)
    assert other.overhead_bytes == 80 * MIB


def test_what_qemu_took_once_is_no_lasting_charge() -> None:
    one, heir = Evidence(), Evidence()
    one.count(300 * MIB, 1000 * MIB, 0, 1.0)
    for second in range(2, 1300, 5):
        one.count(300 * MIB, 70 * MIB, 0, float(second))
        if second < 600:
            assert one.overhead_bytes == 1000 * MIB
    assert one.overhead_bytes == 70 * MIB
    heir.overhead_of(one)
    heir.count(300 * MIB, 60 * MIB, 0, 1300.0)
    assert heir.overhead_bytes == 70 * MIB


@pytest.mark.parametrize(
    ("excess_mib", "huge_mib", "seconds", "refilled_mib", "borne_out"),
    [
        (64, 0, 0.0, 0, True),  # the tolerance alone
        (65, 0, 0.0, 0, False),
        (64 + 16, 100, 0.0, 0, True),  # one pass of khugepaged
        (64 + 17, 100, 0.0, 0, False),
        (64 + 17, 100, REFILL_SECONDS, 0, True),
        (64 + 32, 100, REFILL_SECONDS, 0, True),
        (64 + 33, 100, REFILL_SECONDS, 0, False),
        (64 + 48, 100, 2 * REFILL_SECONDS, 0, True),
        (64 + 49, 100, 2 * REFILL_SECONDS, 0, False),
        (64 + 10, 10, 0.0, 0, True),  # no more than lies in huge pages
        (64 + 11, 10, 0.0, 0, False),
        (64 + 46, 100, 0.0, 30, True),  # what was filled in before
        (64 + 47, 100, 0.0, 30, False),
    ],
)
def test_the_host_explains_as_much_as_it_can_have_filled_in(
    excess_mib: int, huge_mib: int, seconds: float, refilled_mib: int, borne_out: bool
) -> None:
    one = evidence(huge_bytes=huge_mib * MIB, resident_at=10.0 + seconds, refilled_bytes=refilled_mib * MIB)
    assert one.bears_out(excess_mib * MIB, 64 * MIB, 400 * MIB) is borne_out


def test_what_was_filled_in_is_written_down_after_a_pass_and_no_faster() -> None:
    one = evidence(huge_bytes=100 * MIB)
    assert one.bears_out(64 * MIB + 10 * MIB, 64 * MIB, 400 * MIB)
    assert (one.refilled_bytes, one.borne_out_at) == (0, 10.0), "the pass is not over"
    one.count(0, 0, 100 * MIB, 10.0 + REFILL_SECONDS)
    assert one.bears_out(64 * MIB + 10 * MIB, 64 * MIB, 400 * MIB)
    assert (one.refilled_bytes, one.borne_out_at) == (10 * MIB, 20.0)
    assert REFILL_BYTES > 10 * MIB


@pytest.mark.parametrize(
    ("huge_mib", "holes_mib", "kept_mib"), [(400, 400, 50), (30, 400, 30), (400, 20, 20), (400, 0, 0)]
)
def test_what_was_filled_in_stays_as_far_as_there_are_holes_and_huge_pages_to_hold_it(
    huge_mib: int, holes_mib: int, kept_mib: int
) -> None:
    one = evidence(huge_bytes=huge_mib * MIB, refilled_bytes=50 * MIB, resident_at=12.0)
    assert one.bears_out(0, 64 * MIB, holes_mib * MIB)
    assert (one.refilled_bytes, one.borne_out_at) == (kept_mib * MIB, 12.0)


def test_a_contradiction_counts_from_its_first_sight_and_agreement_from_its_last() -> None:
    one = Evidence()
    one.find("above the claim", 5.0)
    one.find("something else", 6.0)
    assert (one.contradiction, one.contradicted_at) == ("above the claim", 5.0)
    one.find(None, 9.0)
    assert (one.contradiction, one.agreed_at) == (None, 9.0)
    one.find(None, 20.0)
    assert one.agreed_at == 9.0
    one.find("again", 30.0)
    assert (one.contradiction, one.contradicted_at) == ("again", 30.0)


# --- pauses, pace, progress ---


@pytest.mark.parametrize(
    ("pauses", "hands_off"),
    [
        (Pauses(), False),
        (Pauses(job="migration"), True),
        (Pauses(RunState.PAUSED), True),
        (Pauses(RunState.CRASHED), True),
        (Pauses(stopped=True), True),
        (Pauses(paused=True), False),  # its operator's word is about us, not about the hypervisor
        (Pauses(fault="ZeroDivisionError"), False),
    ],
)
def test_no_command_goes_to_a_vm_that_stands_still_or_is_moved(pauses: Pauses, hands_off: bool) -> None:
    assert pauses.hands_off is hands_off


def test_a_vm_ran_last_when_it_was_last_seen_to_be_let_run() -> None:
    pauses = Pauses()
    pauses.run_state(RunState.RUNNING, 5.0)
    pauses.run_state(RunState.PAUSED, 9.0)
    assert (pauses.state, pauses.ran_at) == (RunState.PAUSED, 5.0)


def test_a_pace_is_told_only_when_it_is_another() -> None:
    pace = Pace()
    assert pace.look(1.0, 11.0)
    assert not pace.look(1.0, 12.0)
    assert pace.look_at == 12.0
    assert pace.look(5.0, 13.0)


def test_an_uncooperative_balloon_rests_and_is_forgiven_when_it_moves() -> None:
    progress = Progress()
    progress.give_up(300 * MIB, 10.0, growing=False)
    assert progress.stuck(69.9)
    assert not progress.cannot_deflate(69.9)
    assert not progress.stuck(70.0)
    assert (progress.at, progress.present_bytes, progress.stuck_until) == (10.0, 300 * MIB, 10.0 + REST)
    progress.stands(310 * MIB, 20.0)
    assert (progress.at, progress.present_bytes, progress.stuck_until) == (20.0, 310 * MIB, 10.0 + REST)
    progress.goes_on(320 * MIB, 30.0)
    assert (progress.at, progress.present_bytes, progress.stuck_until) == (30.0, 320 * MIB, 30.0)
    progress.goes_on(330 * MIB, 40.0)
    assert progress.stuck_until == 30.0


def test_one_that_does_not_take_what_its_guest_may_lack_is_asked_again_sooner() -> None:
    """Ever later, until it moves or is another kernel's. That says nothing of one that does not give."""
    progress = Progress()
    for seconds in (5.0, 10.0, 20.0, 40.0, REST, REST):
        progress.give_up(300 * MIB, 10.0, growing=True)
        assert progress.cannot_deflate(9.9 + seconds)
        assert not progress.stuck(10.0 + seconds)
    progress.give_up(300 * MIB, 10.0, growing=False)
    assert progress.stuck_until == 10.0 + REST
    progress.forgive(11.0)
    assert progress.stuck_until == 11.0
    progress.give_up(300 * MIB, 20.0, growing=True)
    assert progress.stuck_until == 25.0
    progress.goes_on(310 * MIB, 30.0)
    progress.give_up(310 * MIB, 40.0, growing=True)
    assert progress.stuck_until == 45.0


def test_a_balloon_that_others_move_is_corrected_once_in_a_while() -> None:
    progress = Progress()
    assert progress.may_correct(0.0)
    progress.correct(10.0)
    assert not progress.may_correct(10.0 + CORRECTION)
    assert progress.may_correct(10.1 + CORRECTION)


# --- virtio-mem ---


def device(current_mib: int = 128, requested_mib: int = 128, **changes: object) -> VirtioMem:
    return VirtioMem(current_mib * MIB, requested_mib * MIB, **changes)  # type: ignore[arg-type]


def test_a_device_that_is_asked_for_more_may_hold_it_and_is_confirmed_by_the_answer() -> None:
    one = device()
    command = one.ask("web", 7, 512 * MIB, 10.0)
    assert (command.vm, command.ticket, command.requested_bytes) == ("web", 7, 512 * MIB)
    assert (one.requested_bytes, one.asked_at, one.may_hold_bytes) == (512 * MIB, 10.0, 512 * MIB)
    assert one.unanswered
    one.answered(7, None, 10.0)
    assert (one.unanswered, one.confirmed_bytes, one.ceiling_bytes) == (False, 512 * MIB, 512 * MIB)
    assert not one.settled, "the guest has not plugged it"


def test_a_device_that_is_asked_for_less_may_hold_what_it_had_until_qemu_has_surely_told() -> None:
    one = device(64, 512)
    one.ask("web", 1, 64 * MIB, 10.0)
    assert one.may_hold_bytes == 512 * MIB
    one.catch_up(99.0)
    assert one.may_hold_bytes == 512 * MIB, "not answered yet"
    one.answered(1, None, 100.0)
    one.catch_up(100.0 + LATE_SECONDS)
    assert one.may_hold_bytes == 512 * MIB, "only now it is in force"
    one.catch_up(100.1 + LATE_SECONDS)
    assert one.may_hold_bytes == 64 * MIB


def test_the_largest_size_of_several_that_were_taken_back_is_what_it_may_have_come_to() -> None:
    one = device(0, 512)
    one.ask("web", 1, 256 * MIB, 10.0)
    one.ask("web", 2, 64 * MIB, 10.1)
    one.answered(1, None, 10.2)
    assert one.ceiling_bytes == 512 * MIB, "the other command is still on its way"
    one.answered(2, None, 10.3)
    assert (one.ceiling_bytes, one.may_hold_bytes) == (64 * MIB, 512 * MIB)


def test_a_size_that_failed_may_still_be_asked_for_until_it_is_asked_for_anew() -> None:
    one = device()
    one.ask("web", 1, 512 * MIB, 1.0)
    one.answered(1, "timed out", 1.0)
    assert (one.unsure, one.confirmed_bytes, one.ceiling_bytes) == (True, 0, 512 * MIB)
    one.release()
    assert one.ceiling_bytes == 512 * MIB
    one.ask("web", 2, 128 * MIB, 2.0)
    one.release()
    assert one.ceiling_bytes == 512 * MIB
    one.answered(2, None, 2.0)
    assert (one.unsure, one.ceiling_bytes) == (False, 128 * MIB)
    one.answered(99, "nobody asked that", 2.0)
    assert not one.unsure


def test_a_promise_is_not_released_while_it_is_being_asked_for() -> None:
    one = device()
    one.ask("web", 1, 512 * MIB, 1.0)
    one.ask("web", 2, 128 * MIB, 1.1)
    one.release()
    assert one.ceiling_bytes == 512 * MIB


def test_a_promise_that_is_not_kept_is_released() -> None:
    one = device()
    one.promise(512 * MIB)
    one.promise(256 * MIB)
    assert one.may_hold_bytes == 512 * MIB
    one.release()
    assert one.may_hold_bytes == 128 * MIB


@pytest.mark.parametrize(
    ("changes", "settled"),
    [({}, True), ({"current_mib": 64}, False), ({"unsure": True}, False), ({"_sent": {1: 5}}, False)],
)
def test_a_device_is_settled_when_it_has_what_was_surely_asked_for(
    changes: dict[str, object], settled: bool
) -> None:
    one = device(**changes)  # type: ignore[arg-type]
    assert one.settled is settled
    assert one.steady(1000.0) is settled


@pytest.mark.parametrize("clock", ["moved_at", "asked_at"])
def test_what_qemu_told_of_a_device_is_true_once_it_had_the_time_to_tell_otherwise(clock: str) -> None:
    one = device(**{clock: 10.0})  # type: ignore[arg-type]
    assert not one.steady(10.0 + LATE_SECONDS)
    assert one.steady(10.1 + LATE_SECONDS)


def test_another_size_that_somebody_else_asked_for_is_seen_and_paid() -> None:
    one = device()
    assert not one.observe(128 * MIB, 128 * MIB, 5.0)
    assert one.moved_at == -math.inf
    assert not one.observe(160 * MIB, None, 6.0)
    assert (one.current_bytes, one.moved_at) == (160 * MIB, 6.0)
    assert one.observe(160 * MIB, 512 * MIB, 7.0)
    assert (one.requested_bytes, one.confirmed_bytes, one.may_hold_bytes) == (512 * MIB,) * 3
    assert one.moved_at == 6.0


def test_a_size_told_while_our_own_command_is_on_its_way_or_after_it_failed_is_nobody_elses() -> None:
    asked = device()
    asked.ask("web", 1, 256 * MIB, 1.0)
    for size in (128 * MIB, 256 * MIB):
        assert not asked.observe(128 * MIB, size, 1.1)
    assert asked.requested_bytes == 256 * MIB
    assert not asked.observe(128 * MIB, None, 1.1)
    assert asked.observe(128 * MIB, 512 * MIB, 1.2), "but one that none of ours was is"
    assert (asked.requested_bytes, asked.may_hold_bytes) == (256 * MIB, 512 * MIB)
    failed = device(unsure=True)
    assert not failed.observe(128 * MIB, 256 * MIB, 2.0)
    assert failed.requested_bytes == 256 * MIB


def test_a_device_that_is_seen_again_keeps_what_a_command_without_an_answer_may_bring() -> None:
    answered, asked, unsure = device(), device(), device(unsure=True, ceiling_bytes=300 * MIB)
    asked.ask("web", 1, 512 * MIB, 1.0)
    for before, ceiling, doubt in ((answered, 0, False), (asked, 512 * MIB, True), (unsure, 300 * MIB, True)):
        now = device()
        now.go_on_from(before)
        assert (now.ceiling_bytes, now.unsure) == (ceiling, doubt)
    larger = device(ceiling_bytes=GIB)
    larger.go_on_from(asked)
    assert larger.ceiling_bytes == GIB


# --- the guest's words ---


def test_a_driver_has_answered_when_its_stamp_is_another_than_before() -> None:
    guest = Guest()
    first, second = BalloonStats(1, 1, updated=5), BalloonStats(1, 1, updated=6)
    assert not guest.answered_stats(first, 512, 10.0), "the first may be of any time"
    guest.keep_stats(first)
    assert not guest.answered_stats(first, 508, 11.0)
    assert (guest.stats_at, guest.stats_came_at, guest.actual_with_stats_bytes) == (-math.inf, 10.0, 512)
    assert guest.answered_stats(second, 500, 12.0)
    assert (guest.stats_at, guest.stats_came_at, guest.actual_with_stats_bytes) == (12.0, 12.0, 500)


def test_what_a_kernel_keeps_is_the_least_that_was_seen() -> None:
    guest = Guest()
    for size, kept in ((100, 100), (120, 100), (80, 80)):
        guest.keeps_for_its_kernel(size * MIB)
        assert guest.kernel_bytes == kept * MIB


def test_only_an_agents_word_is_an_agents_report() -> None:
    guest = Guest()
    guest.heard(build.facts(at=5.0), 300 * MIB)
    guest.heard(build.facts(at=9.0, from_agent=False), 310 * MIB)
    assert (guest.reported_at, guest.actual_when_heard_bytes) == (5.0, 310 * MIB)


def test_after_a_reset_nothing_that_the_old_kernel_said_is_left() -> None:
    vm = build.vm(300, dimms_mib=(128,))
    vm.guest.heard(build.facts(300, 200, at=5.0), 300 * MIB)
    vm.guest.heard(build.facts(300, 250, at=6.0), 300 * MIB)
    vm.guest.work_out(build.LIMITS, 6.0)
    vm.guest.keep_stats(BalloonStats(1, 1, 1))
    vm.guest.booted("0123abcd")
    vm.guest.confirm_zone("movable")
    phases.reset(vm, 10.0)
    guest = vm.guest
    assert (guest.facts, guest.boot_id, guest.zone, guest.stats, guest.estimate) == (None,) * 5
    assert guest.demand.slope == 0
    assert (vm.phase, vm.since, vm.booted_at, vm.reset_at) == (Phase.STARTING, 10.0, 10.0, 10.0)
    assert vm.dimms.survivors == {"dimm0"}


@pytest.mark.parametrize(("growth", "target_mib"), [(Growth.HOTADD, 768), (Growth.BALLOON, 512)])
def test_a_reset_raises_the_target_to_what_the_new_kernel_boots_with(growth: Growth, target_mib: int) -> None:
    vm = build.vm(300, dimms_mib=(256,), moved=True, config={"growth": growth})
    phases.reset(vm, 10.0)
    assert vm.balloon.target_bytes == target_mib * MIB
    assert vm.balloon.resend
    assert vm.balloon.claim_bytes == 768 * MIB
    assert not vm.balloon.moved


def test_a_kernel_may_speak_if_it_is_known_greeted_or_anybody_may_be_next() -> None:
    guest = Guest()
    assert guest.may_be_of("aaaa"), "the first"
    assert not guest.booted("aaaa")
    assert not guest.may_be_of("bbbb")
    guest.greeted(wire.Hello("bbbb", "1", "6.1", 128 * MIB, True, "offline", "kernel"), 0.0)
    assert guest.may_be_of("bbbb")
    assert guest.booted("bbbb")
    assert not guest.booted("bbbb")
    guest.agent_left()
    assert guest.may_be_of("cccc")
    guest.booted("cccc")
    assert not guest.may_be_of("dddd"), "the port is in use again"


def test_noise_is_counted_by_kind_and_goes_on_when_the_vm_is_seen_again() -> None:
    before, after = build.vm(300), build.vm(300)
    before.guest.count("boot-id")
    before.guest.count("boot-id", 3)
    before.guest.count("json")
    before.evidence.count(0, 90 * MIB, 0, 1.0)
    before.pauses.by_operator(True)
    after.remember(before)
    assert after.guest.noise == {"boot-id": 4, "json": 1}
    assert after.evidence.overhead_bytes == 90 * MIB
    assert after.pauses.paused


def test_nothing_is_estimated_before_the_first_word() -> None:
    guest = Guest()
    guest.work_out(build.LIMITS, 1.0)
    assert guest.estimate is None
    guest.heard(build.facts(at=2.0), 300 * MIB)
    guest.work_out(build.LIMITS, 2.0)
    assert guest.estimate is not None
    assert guest.estimate.at == 2.0


# --- what follows ---


def test_an_agent_and_its_facts_are_fresh_for_as_long_as_a_report_is() -> None:
    vm = build.vm(300, facts=build.facts(at=10.0), reported_at=10.0)
    assert vm.has_agent(25.0, 15.0)
    assert vm.fresh(25.0, 15.0)
    assert not vm.has_agent(25.1, 15.0)
    assert not vm.fresh(25.1, 15.0)
    assert not build.vm(300).fresh(0.0, 15.0)


@pytest.mark.parametrize(
    ("growth", "ceiling_mib"), [(Growth.BALLOON, 768), (Growth.VIRTIO_MEM, 896), (Growth.HOTADD, 1024)]
)
def test_the_most_without_a_restart_depends_on_how_it_grows(growth: Growth, ceiling_mib: int) -> None:
    changes = {"growth": growth, "virtio_mem_bytes": 128 * MIB}
    assert build.vm(300, dimms_mib=(256,), config=changes).growth_ceiling_bytes == ceiling_mib * MIB
    small = changes | {"limits": Limits(512 * MIB, 192 * MIB, 600 * MIB)}
    assert build.vm(300, dimms_mib=(256,), config=small).growth_ceiling_bytes == 600 * MIB


def test_what_is_offline_is_no_more_than_what_was_plugged_and_is_not_assigned() -> None:
    vm = build.vm(600, dimms_mib=(256,), virtio_mem=VirtioMem(64 * MIB, 96 * MIB))
    assert vm.offline_bytes == 0
    assert vm.assigned_bytes == (600 + 96) * MIB
    vm.guest.heard(build.facts(offline_bytes=100 * MIB), 600 * MIB)
    assert vm.offline_bytes == 100 * MIB
    assert vm.assigned_bytes == (600 - 100 + 96) * MIB
    vm.guest.heard(build.facts(offline_bytes=GIB), 600 * MIB)
    assert vm.offline_bytes == (256 + 64) * MIB


def test_before_the_first_target_it_is_entitled_to_what_it_has_or_boots_with() -> None:
    assert build.vm(300, target_bytes=280 * MIB).entitled_bytes == 280 * MIB
    assert build.vm(300, target_bytes=None).entitled_bytes == 300 * MIB
    assert build.vm(300, target_bytes=None, phase=Phase.STARTING).entitled_bytes == 512 * MIB


def test_while_it_boots_its_kernel_says_better_than_a_stale_balloon_where_it_is() -> None:
    facts = build.facts(usable_mib=400, offline_bytes=0)
    assert build.vm(176, phase=Phase.STARTING, moved=False, facts=facts).present_bytes == 400 * MIB
    assert build.vm(176, phase=Phase.STARTING, moved=True, facts=facts).present_bytes == 176 * MIB
    assert build.vm(176, phase=Phase.STARTING, moved=False).present_bytes == 176 * MIB
    assert build.vm(176, moved=False, facts=facts).present_bytes == 176 * MIB
    above = build.facts(usable_mib=900)
    assert build.vm(176, phase=Phase.STARTING, moved=False, facts=above).present_bytes == 512 * MIB
    plugged = build.facts(usable_mib=400, offline_bytes=30 * MIB)
    device = VirtioMem(64 * MIB, 64 * MIB)
    vm = build.vm(176, phase=Phase.STARTING, moved=False, facts=plugged, virtio_mem=device)
    assert vm.present_bytes == (400 + 30 - 64) * MIB


def test_a_larger_target_starts_the_clock_of_an_excess_and_a_smaller_one_does_not() -> None:
    vm = build.vm(300)
    command = vm.send_target(5, 280 * MIB, 10.0)
    assert (command.vm, command.ticket, command.target_bytes) == (vm.config.uuid, 5, 280 * MIB)
    assert (vm.sent_at, vm.grown_at) == (10.0, -math.inf)
    vm.send_target(6, 280 * MIB, 15.0)
    assert vm.grown_at == -math.inf
    vm.send_target(7, 400 * MIB, 20.0)
    assert (vm.sent_at, vm.grown_at) == (20.0, 20.0)
    assert vm.followed_bytes(20.0) == (280 * MIB, 400 * MIB)


def test_a_failed_command_is_told_once_in_a_while_and_kind() -> None:
    vm = build.vm(300)
    assert vm.is_news("no slot", 60.0, 0.0)
    assert not vm.is_news("no slot", 60.0, 59.9)
    assert vm.is_news("no slot", 60.0, 60.0)
    assert vm.is_news("timed out", 60.0, 61.0)


def test_the_tolerance_for_resident_memory_is_a_share_of_a_large_vm() -> None:
    assert build.vm(300).resident_tolerance_bytes() == 64 * MIB
    big = build.vm(300, config={"boot_ram_bytes": 4000 * MIB})
    assert big.resident_tolerance_bytes() == 200 * MIB


def test_a_vm_that_is_configured_anew_has_the_new_ram() -> None:
    vm = build.vm(300, dimms_mib=(128,))
    vm.configure(build.config(boot_ram_bytes=256 * MIB))
    assert vm.ram_bytes == 384 * MIB


def test_a_guest_that_did_not_give_a_dimm_is_asked_anew_when_it_may_have_another_size() -> None:
    vm = build.vm(300, dimms_mib=(128,))
    vm.unplug_rest.failed(30.0, 10.0)
    vm.configure(build.config(boot_ram_bytes=256 * MIB))
    assert vm.unplug_rest.until == 40.0, "nothing was said of its size"
    vm.configure(build.config(limits=Limits(256 * MIB, 256 * MIB, 256 * MIB)))
    assert vm.unplug_rest.until < 10.0


def test_a_dry_run_leaves_a_vm_as_it_was() -> None:
    vm = build.vm(300, virtio_mem=VirtioMem(0, 0))
    before = vm.as_it_was()
    vm.send_target(1, 400 * MIB, 50.0)
    vm.unsend(1, before)
    assert (vm.balloon.target_bytes, vm.balloon.sent, vm.sent_at) == (300 * MIB, {}, -math.inf)
    vm.plug.pay(128 * MIB)
    vm.virtio_mem.ask("web", 2, 256 * MIB, 51.0)
    vm.unask(before)
    assert vm.plug.pending_bytes == 0
    assert (vm.virtio_mem.requested_bytes, vm.virtio_mem.unanswered) == (0, False)
