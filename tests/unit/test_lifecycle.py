"""When a balloon's claims may be relied upon."""

import pytest

from host_controller.core.model import RunState
from host_controller.core.vm import lifecycle
from host_controller.core.vm.record import Phase, Vm
from host_controller.units import MIB
from tests.support import build

SETTINGS = build.settings()


def advance(vm: Vm, now: float) -> Phase:
    lifecycle.advance(vm, SETTINGS, now)
    return vm.phase


def started(actual_mib: int = 512) -> Vm:
    return build.vm(actual_mib, phase=Phase.STARTING, moved=False)


def test_a_guest_that_boots_with_an_empty_balloon_is_live_once_its_driver_answers() -> None:
    vm = started()
    assert advance(vm, 1.0) is Phase.STARTING
    build.answers(vm, 2.0)
    assert advance(vm, 2.0) is Phase.LIVE


def test_a_stale_actual_is_not_believed_after_a_reset_though_the_driver_answers() -> None:
    vm = build.vm(176)
    lifecycle.reset(vm, 10.0)
    build.answers(vm, 20.0)
    assert advance(vm, 20.0) is Phase.STARTING
    lifecycle.balloon_moved(vm, 300 * MIB, 21.0)
    assert advance(vm, 21.0) is Phase.LIVE


def test_a_balloon_event_of_before_the_reset_is_not_taken_for_a_new_driver() -> None:
    vm = build.vm(176)
    lifecycle.reset(vm, 10.0)
    lifecycle.balloon_moved(vm, 176 * MIB, 10.5)
    build.answers(vm, 11.0)
    assert advance(vm, 11.0) is Phase.STARTING


def test_a_release_may_be_spent_only_when_resident_memory_was_looked_at_later() -> None:
    vm = build.vm(512)
    lifecycle.balloon_moved(vm, 300 * MIB, 5.0)
    assert vm.balloon.claim_bytes == 512 * MIB
    lifecycle.confirm(vm, 290 * MIB, 0, 5.1)
    assert vm.balloon.claim_bytes == 300 * MIB


def test_a_rise_counts_at_once() -> None:
    vm = build.vm(300)
    lifecycle.balloon_moved(vm, 400 * MIB, 5.0)
    assert vm.balloon.claim_bytes == 400 * MIB


def test_a_guest_taken_over_is_live_only_when_driver_target_and_host_agree() -> None:
    vm = build.vm(300)
    lifecycle.take_over(vm, 10.0)
    build.answers(vm, 11.0)
    assert advance(vm, 11.0) is Phase.TAKEOVER  # no target of ours yet
    command = vm.send_target(1, 300 * MIB, 11.0)
    assert advance(vm, 11.1) is Phase.TAKEOVER  # nor confirmed
    vm.balloon.answered(command.ticket, None, 11.15)
    vm.balloon.read(300 * MIB, 11.2)
    assert advance(vm, 11.2) is Phase.TAKEOVER  # nor seen by the host
    lifecycle.confirm(vm, 250 * MIB, 0, 11.3)
    assert advance(vm, 11.3) is Phase.LIVE


def test_a_guest_that_says_nothing_for_long_is_hung_and_is_taken_over_when_it_speaks() -> None:
    vm = build.vm(300, stats_at=1.0)
    assert advance(vm, 1.0 + SETTINGS.hang_seconds) is Phase.LIVE
    assert advance(vm, 1.1 + SETTINGS.hang_seconds) is Phase.HUNG
    lifecycle.heard(vm, build.facts(at=30.0))
    assert advance(vm, 30.0) is Phase.TAKEOVER


def test_resident_memory_above_the_claim_for_long_is_a_contradiction() -> None:
    vm = build.vm(112, stats_at=10.0)
    lifecycle.confirm(vm, 312 * MIB, 0, 10.0)
    assert advance(vm, 10.0) is Phase.LIVE
    assert advance(vm, 10.0 + lifecycle.CONTRADICTION_SECONDS) is Phase.CONTRADICTED


@pytest.mark.parametrize("seconds", [1, 10, 60])
def test_what_the_host_fills_its_huge_pages_up_with_is_no_lie_of_the_guest(seconds: int) -> None:
    vm = build.vm(200)
    for turn in range(0, 200, seconds):  # khugepaged: 16 MiB at once, then nothing for 10 s
        now = 10.0 + turn
        build.answers(vm, now)
        refilled = 16 * MIB * (1 + turn // 10)
        lifecycle.confirm(vm, 200 * MIB + refilled, 0, now, 150 * MIB + refilled)
        assert advance(vm, now) is Phase.LIVE
        assert vm.evidence.contradiction is None, f"after {turn} s"


def test_what_the_host_filled_in_for_long_covers_no_leap_of_the_guest() -> None:
    vm = build.vm(200)
    for turn in range(60):
        now = 10.0 + turn
        build.answers(vm, now)
        lifecycle.confirm(vm, (200 + turn) * MIB, 0, now, (150 + turn) * MIB)
        assert advance(vm, now) is Phase.LIVE
    lifecycle.confirm(vm, 400 * MIB, 0, 70.0, 350 * MIB)
    advance(vm, 70.0)
    assert vm.evidence.contradiction is not None


def look(vm: Vm, now: float, claim: int, resident: int) -> None:
    """At its balloon and its memory, all of it in huge pages; MiB."""
    build.answers(vm, now)
    vm.balloon.read(claim * MIB, now)
    lifecycle.confirm(vm, resident * MIB, 0, now, resident * MIB)
    advance(vm, now)


def refilled(resident: int) -> Vm:
    """At a claim of 200 MiB, after the host has filled its memory up to there."""
    vm = build.vm(200)
    for turn in range(resident - 200):
        look(vm, 10.0 + turn, 200, 200 + turn)
    assert vm.evidence.contradiction is None
    return vm


def test_what_the_host_filled_in_shows_again_when_a_guest_that_had_grown_shrinks() -> None:
    vm = refilled(350)
    look(vm, 200.0, 360, 355)
    look(vm, 210.0, 200, 345)
    assert vm.evidence.contradiction is None


def test_what_the_host_filled_in_is_the_guests_own_once_its_balloon_has_no_holes() -> None:
    vm = refilled(350)
    look(vm, 200.0, 512, 355)
    look(vm, 210.0, 200, 355)
    assert vm.evidence.contradiction is not None


def test_huge_pages_that_come_faster_than_the_host_fills_them_up_are_the_guests_own() -> None:
    vm = build.vm(200, stats_at=10.0)
    lifecycle.confirm(vm, 200 * MIB, 0, 10.0, 150 * MIB)
    assert advance(vm, 10.0) is Phase.LIVE
    lifecycle.confirm(vm, 350 * MIB, 0, 15.0, 300 * MIB)
    advance(vm, 15.0)
    assert vm.evidence.contradiction is not None


def test_a_kernel_with_more_memory_than_its_balloon_claims_to_leave_is_a_contradiction() -> None:
    vm = build.vm(112, stats_at=10.0)
    lifecycle.heard(vm, build.facts(usable_mib=512, at=10.0))
    advance(vm, 10.0)
    assert advance(vm, 10.0 + lifecycle.CONTRADICTION_SECONDS) is Phase.CONTRADICTED


def test_a_claim_that_is_looked_at_again_since_the_kernel_spoke_is_no_truer_for_it() -> None:
    vm = build.vm(112, stats_at=10.0)
    lifecycle.heard(vm, build.facts(usable_mib=512, at=10.0))
    for turn in range(40):
        vm.balloon.read(112 * MIB, 10.05 + turn / 10)
        advance(vm, 10.1 + turn / 10)
    assert vm.phase is Phase.CONTRADICTED


def test_a_balloon_that_has_inflated_since_the_kernel_spoke_contradicts_nobody() -> None:
    vm = build.vm(512, stats_at=10.0)
    lifecycle.heard(vm, build.facts(usable_mib=512, at=10.0))
    for turn in range(40):
        vm.balloon.read(112 * MIB, 10.05 + turn / 10)
        lifecycle.confirm(vm, 112 * MIB, 0, 10.05 + turn / 10)
        advance(vm, 10.1 + turn / 10)
    assert vm.phase is Phase.LIVE


def test_a_guest_that_tells_the_truth_again_is_taken_over_after_a_while() -> None:
    vm = build.vm(112, stats_at=10.0)
    lifecycle.confirm(vm, 312 * MIB, 0, 10.0)
    advance(vm, 10.0)
    advance(vm, 13.0)
    lifecycle.confirm(vm, 100 * MIB, 0, 14.0)
    assert advance(vm, 14.0) is Phase.CONTRADICTED
    assert advance(vm, 14.0 + lifecycle.RECONCILED_SECONDS) is Phase.TAKEOVER


def test_a_vm_whose_vcpus_stand_still_is_silent_and_not_hung() -> None:
    vm = build.vm(300, state=RunState.PAUSED)
    assert advance(vm, 1000.0) is Phase.LIVE
    vm.pauses.run_state(RunState.RUNNING, 1000.0)
    assert advance(vm, 1001.0) is Phase.LIVE
    assert advance(vm, 1001.0 + SETTINGS.hang_seconds) is Phase.HUNG
