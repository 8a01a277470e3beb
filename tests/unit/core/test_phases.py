"""When a balloon's claims may be relied upon."""

from copy import deepcopy

import pytest

from host_controller.core.model import Growth, RunState
from host_controller.core.vm import phases
from host_controller.core.vm.record import Phase, Vm
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB
from tests.support import build

SETTINGS = build.settings()


def advance(vm: Vm, now: float) -> Phase:
    phases.advance(vm, SETTINGS, now)
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
    phases.reset(vm, 10.0)
    build.answers(vm, 20.0)
    assert advance(vm, 20.0) is Phase.STARTING
    phases.balloon_moved(vm, 300 * MIB, 21.0)
    assert advance(vm, 21.0) is Phase.LIVE
    assert vm.since == 21.0


def test_a_vm_that_was_reset_before_it_was_taken_over_is_taken_over_after_it() -> None:
    """What a controller before us told it may be carried out yet, as long as nothing of ours was."""
    vm = build.vm(300, ours=False)
    phases.reset(vm, 10.0)
    build.answers(vm, 20.0)
    phases.balloon_moved(vm, 310 * MIB, 20.0)
    assert advance(vm, 20.0) is Phase.TAKEOVER
    assert vm.balloon.target_bytes is None
    phases.reset(vm, 30.0)
    vm.balloon.send(1, 310 * MIB, 310 * MIB, 30.0)
    vm.balloon.answered(1, None, 30.1)
    build.answers(vm, 40.0)
    phases.balloon_moved(vm, 311 * MIB, 40.0)
    assert advance(vm, 40.0) is Phase.LIVE


def test_a_new_kernels_driver_is_asked_though_the_last_one_did_not_follow() -> None:
    vm = build.vm(300)
    vm.progress.give_up(300 * MIB, 8.0, growing=True)
    phases.reset(vm, 10.0)
    assert not vm.progress.stuck(10.0)


def test_a_balloon_event_of_before_the_reset_is_not_taken_for_a_new_driver() -> None:
    vm = build.vm(176)
    phases.reset(vm, 10.0)
    phases.balloon_moved(vm, 176 * MIB, 10.5)
    build.answers(vm, 11.0)
    assert advance(vm, 11.0) is Phase.STARTING


def test_a_release_may_be_spent_only_when_resident_memory_was_looked_at_later() -> None:
    vm = build.vm(512)
    phases.balloon_moved(vm, 300 * MIB, 5.0)
    assert vm.balloon.claim_bytes == 512 * MIB
    phases.confirm(vm, 290 * MIB, 0, 5.1)
    assert vm.balloon.claim_bytes == 300 * MIB


def test_a_rise_counts_at_once() -> None:
    vm = build.vm(300)
    phases.balloon_moved(vm, 400 * MIB, 5.0)
    assert vm.balloon.claim_bytes == 400 * MIB


def test_a_guest_taken_over_is_live_only_when_driver_target_and_host_agree() -> None:
    vm = build.vm(300)
    phases.take_over(vm, 10.0)
    build.answers(vm, 11.0)
    assert advance(vm, 11.0) is Phase.TAKEOVER  # no target of ours yet
    command = vm.send_target(1, 300 * MIB, 11.0)
    assert advance(vm, 11.1) is Phase.TAKEOVER  # nor confirmed
    vm.balloon.answered(command.ticket, None, 11.15)
    vm.balloon.read(300 * MIB, 11.2)
    assert advance(vm, 11.2) is Phase.TAKEOVER  # nor seen by the host
    phases.confirm(vm, 250 * MIB, 0, 11.3)
    assert advance(vm, 11.3) is Phase.LIVE
    assert vm.since == 11.3


def test_a_guest_that_says_nothing_for_long_is_hung_and_is_taken_over_when_it_speaks() -> None:
    vm = build.vm(300, stats_at=1.0)
    assert advance(vm, 1.0 + SETTINGS.hang_seconds) is Phase.LIVE
    assert advance(vm, 1.1 + SETTINGS.hang_seconds) is Phase.HUNG
    phases.heard(vm, build.facts(at=30.0))
    assert advance(vm, 30.0) is Phase.TAKEOVER


def test_resident_memory_above_the_claim_for_long_is_a_contradiction() -> None:
    vm = build.vm(112, stats_at=10.0)
    phases.confirm(vm, 312 * MIB, 0, 10.0)
    assert advance(vm, 10.0) is Phase.LIVE
    assert advance(vm, 10.0 + phases.CONTRADICTION_SECONDS) is Phase.CONTRADICTED


@pytest.mark.parametrize("seconds", [1, 10, 60])
def test_what_the_host_fills_its_huge_pages_up_with_is_no_lie_of_the_guest(seconds: int) -> None:
    vm = build.vm(200)
    for turn in range(0, 200, seconds):  # khugepaged: 16 MiB at once, then nothing for 10 s
        now = 10.0 + turn
        build.answers(vm, now)
        refilled = 16 * MIB * (1 + turn // 10)
        phases.confirm(vm, 200 * MIB + refilled, 0, now, 150 * MIB + refilled)
        assert advance(vm, now) is Phase.LIVE
        assert vm.evidence.contradiction is None, f"after {turn} s"


def test_what_the_host_filled_in_for_long_covers_no_leap_of_the_guest() -> None:
    vm = build.vm(200)
    for turn in range(60):
        now = 10.0 + turn
        build.answers(vm, now)
        phases.confirm(vm, (200 + turn) * MIB, 0, now, (150 + turn) * MIB)
        assert advance(vm, now) is Phase.LIVE
    phases.confirm(vm, 400 * MIB, 0, 70.0, 350 * MIB)
    advance(vm, 70.0)
    assert vm.evidence.contradiction is not None


def look(vm: Vm, now: float, claim: int, resident: int) -> None:
    """At its balloon and its memory, all of it in huge pages; MiB."""
    build.answers(vm, now)
    vm.balloon.read(claim * MIB, now)
    phases.confirm(vm, resident * MIB, 0, now, resident * MIB)
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
    phases.confirm(vm, 200 * MIB, 0, 10.0, 150 * MIB)
    assert advance(vm, 10.0) is Phase.LIVE
    phases.confirm(vm, 350 * MIB, 0, 15.0, 300 * MIB)
    advance(vm, 15.0)
    assert vm.evidence.contradiction is not None


def test_a_kernel_with_more_memory_than_its_balloon_claims_to_leave_is_a_contradiction() -> None:
    vm = build.vm(112, stats_at=10.0)
    phases.heard(vm, build.facts(usable_mib=512, at=10.0))
    advance(vm, 10.0)
    assert advance(vm, 10.0 + phases.CONTRADICTION_SECONDS) is Phase.CONTRADICTED


def test_a_claim_that_is_looked_at_again_since_the_kernel_spoke_is_no_truer_for_it() -> None:
    vm = build.vm(112, stats_at=10.0)
    phases.heard(vm, build.facts(usable_mib=512, at=10.0))
    for turn in range(40):
        vm.balloon.read(112 * MIB, 10.05 + turn / 10)
        advance(vm, 10.1 + turn / 10)
    assert vm.phase is Phase.CONTRADICTED


def test_a_balloon_that_has_inflated_since_the_kernel_spoke_contradicts_nobody() -> None:
    vm = build.vm(512, stats_at=10.0)
    phases.heard(vm, build.facts(usable_mib=512, at=10.0))
    for turn in range(40):
        vm.balloon.read(112 * MIB, 10.05 + turn / 10)
        phases.confirm(vm, 112 * MIB, 0, 10.05 + turn / 10)
        advance(vm, 10.1 + turn / 10)
    assert vm.phase is Phase.LIVE


def test_a_guest_that_tells_the_truth_again_is_taken_over_after_a_while() -> None:
    vm = build.vm(112, stats_at=10.0)
    phases.confirm(vm, 312 * MIB, 0, 10.0)
    advance(vm, 10.0)
    advance(vm, 13.0)
    phases.confirm(vm, 100 * MIB, 0, 14.0)
    assert advance(vm, 14.0) is Phase.CONTRADICTED
    assert advance(vm, 14.0 + phases.RECONCILED_SECONDS) is Phase.TAKEOVER


def test_a_vm_whose_vcpus_stand_still_is_silent_and_not_hung() -> None:
    vm = build.vm(300, state=RunState.PAUSED)
    assert advance(vm, 1000.0) is Phase.LIVE
    vm.pauses.run_state(RunState.RUNNING, 1000.0)
    assert advance(vm, 1001.0) is Phase.LIVE
    assert advance(vm, 1001.0 + SETTINGS.hang_seconds) is Phase.HUNG


def taken_over(**changes: object) -> Vm:
    """It has answered all questions of a takeover at 20 s, but for the changes."""
    facts: dict[str, object] = {"stats_at": 15.0, "actual_at": 15.0, "resident_at": 15.0, "since": 10.0}
    return build.vm(300, phase=Phase.TAKEOVER, **(facts | changes))


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({}, Phase.LIVE),
        ({"target_bytes": None}, Phase.TAKEOVER),
        ({"sent": {1: 300 * MIB}}, Phase.TAKEOVER),
        ({"resend": True}, Phase.TAKEOVER),  # a confirmation that failed is none
        ({"stats_at": 10.0}, Phase.TAKEOVER),
        ({"stats_at": 0.0, "reported_at": 15.0}, Phase.LIVE),
        ({"actual_at": 10.0, "resident_at": 15.0}, Phase.TAKEOVER),
        ({"resident_at": 14.9}, Phase.TAKEOVER),
        ({"target_bytes": 299 * MIB}, Phase.LIVE),
        ({"target_bytes": 299 * MIB - 1}, Phase.TAKEOVER),
        ({"resident_bytes": 400 * MIB}, Phase.TAKEOVER),
    ],
)
def test_a_takeover_is_over_only_when_everybody_agrees(changes: dict[str, object], phase: Phase) -> None:
    assert advance(taken_over(**changes), 20.0) is phase


@pytest.mark.parametrize(
    ("seconds", "moved"), [(phases.MOVE_GRACE_SECONDS, True), (phases.MOVE_GRACE_SECONDS - 0.1, False)]
)
def test_a_balloon_that_moves_late_enough_after_a_reset_is_the_new_kernels(
    seconds: float, moved: bool
) -> None:
    vm = build.vm(176)
    phases.reset(vm, 10.0)
    phases.balloon_moved(vm, 300 * MIB, 10.0 + seconds)
    assert vm.balloon.moved is moved
    assert (vm.balloon.actual_bytes, vm.balloon.actual_at) == (300 * MIB, 10.0 + seconds)


def test_a_balloon_that_moves_while_it_does_not_boot_is_its_drivers_doing() -> None:
    vm = build.vm(300, moved=False, reset_at=10.0)
    phases.balloon_moved(vm, 280 * MIB, 10.1)
    assert vm.balloon.moved


def test_news_of_a_balloon_may_be_late_by_a_second_and_no_longer() -> None:
    assert phases.unseen_seconds(build.vm(300, actual_at=10.0), 10.4) == pytest.approx(0.4)
    assert phases.unseen_seconds(build.vm(300, actual_at=10.0), 90.0) == phases.LATE_NEWS_SECONDS


def test_a_guest_that_boots_with_some_of_its_balloon_left_is_live_when_that_moved() -> None:
    assert advance(build.vm(511, phase=Phase.STARTING, moved=False, stats_at=5.0), 6.0) is Phase.STARTING
    assert advance(build.vm(511, phase=Phase.STARTING, moved=True, stats_at=5.0), 6.0) is Phase.LIVE
    assert advance(build.vm(512, phase=Phase.STARTING, moved=False, reported_at=5.0), 6.0) is Phase.LIVE
    late = build.vm(512, phase=Phase.STARTING, moved=True, stats_at=5.0, since=5.0)
    assert advance(late, 6.0) is Phase.STARTING, "that answer was the old kernel's"


@pytest.mark.parametrize("sign", ["stats_at", "reported_at", "since", "ran_at"])
def test_any_sign_of_life_keeps_a_guest_from_being_hung(sign: str) -> None:
    vm = build.vm(300, **{sign: 10.0})
    assert advance(vm, 10.0 + SETTINGS.hang_seconds) is Phase.LIVE
    assert advance(vm, 10.1 + SETTINGS.hang_seconds) is Phase.HUNG
    assert vm.since == 10.1 + SETTINGS.hang_seconds


def test_a_hung_guest_is_taken_over_by_a_sign_after_it_hung_and_its_target_is_unknown() -> None:
    vm = build.vm(300, phase=Phase.HUNG, since=30.0, stats_at=30.0)
    assert advance(vm, 31.0) is Phase.HUNG
    build.answers(vm, 32.0)
    assert advance(vm, 32.0) is Phase.TAKEOVER
    assert (vm.balloon.target_bytes, vm.since) == (None, 32.0)


def test_a_contradiction_must_last_and_a_short_one_is_forgotten() -> None:
    vm = build.vm(112, stats_at=10.0)
    phases.confirm(vm, 312 * MIB, 0, 10.0)
    advance(vm, 10.0)
    assert advance(vm, 9.9 + phases.CONTRADICTION_SECONDS) is Phase.LIVE
    phases.confirm(vm, 112 * MIB, 0, 12.95)
    assert advance(vm, 13.0) is Phase.LIVE
    assert vm.evidence.contradiction is None


def test_a_guest_that_agrees_again_is_believed_only_after_it_has_agreed_for_a_while() -> None:
    vm = build.vm(300, phase=Phase.CONTRADICTED, agreed_at=20.0, since=15.0)
    assert advance(vm, 19.9 + phases.RECONCILED_SECONDS) is Phase.CONTRADICTED
    assert advance(vm, 20.0 + phases.RECONCILED_SECONDS) is Phase.TAKEOVER
    assert vm.since == 20.0 + phases.RECONCILED_SECONDS
    late = build.vm(300, phase=Phase.CONTRADICTED, since=25.0)
    assert advance(late, 24.9 + phases.RECONCILED_SECONDS) is Phase.CONTRADICTED


@pytest.mark.parametrize(
    ("resident_mib", "changes", "found"),
    [
        (380, {}, False),  # the tolerance and one pass of huge pages
        (381, {}, True),
        (381, {"actual_at": 9.0}, True),
        (381, {"actual_at": 10.1}, False),  # the balloon was read later: they are of two moments
        (381, {"virtio_mem": VirtioMem(64 * MIB, 64 * MIB)}, False),
        (445, {"virtio_mem": VirtioMem(64 * MIB, 64 * MIB)}, True),
        (381, {"claim_bytes": 301 * MIB}, False),
        (200, {}, False),
    ],
)
def test_resident_memory_may_be_above_the_claim_by_what_explains_it(
    resident_mib: int, changes: dict[str, object], found: bool
) -> None:
    vm = build.vm(300, stats_at=10.0, **deepcopy(changes))
    vm.evidence.count(resident_mib * MIB, 0, 16 * MIB, 10.0)
    advance(vm, 10.0)
    assert (vm.evidence.contradiction is not None) is found


@pytest.mark.parametrize(
    ("usable_mib", "changes", "found"),
    [
        (364, {}, False),
        (365, {}, True),
        (365, {"from_agent": False}, False),
        (365, {"virtio_mem": VirtioMem(32 * MIB, 32 * MIB)}, False),
        (365, {"phase": Phase.STARTING}, False),
        (365, {"actual_when_heard_bytes": 301 * MIB}, False),
    ],
)
def test_a_kernel_may_have_more_than_its_balloon_leaves_by_what_explains_it(
    usable_mib: int, changes: dict[str, object], found: bool
) -> None:
    changes = deepcopy(changes)
    said = build.facts(usable_mib, at=10.0, from_agent=changes.pop("from_agent", True))
    vm = build.vm(300, stats_at=10.0, facts=said, **changes)
    advance(vm, 10.0)
    assert (vm.evidence.contradiction is not None) is found


def test_offline_memory_is_the_guests_too_when_its_kernel_and_its_balloon_are_compared() -> None:
    said = build.facts(300, at=10.0, offline_bytes=65 * MIB)
    vm = build.vm(300, stats_at=10.0, dimms_mib=(128,), facts=said)
    advance(vm, 10.0)
    told = "the guest's kernel has more memory than its balloon claims to leave"
    assert vm.evidence.contradiction == told


def test_resident_memory_that_agrees_is_remembered_as_agreeing() -> None:
    vm = build.vm(300, stats_at=10.0)
    phases.confirm(vm, 280 * MIB, 5 * MIB, 10.0, 20 * MIB)
    advance(vm, 10.0)
    assert vm.evidence.borne_out_at == 10.0
    assert (vm.evidence.overhead_bytes, vm.evidence.huge_bytes) == (5 * MIB, 20 * MIB)


@pytest.mark.parametrize(
    ("current_mib", "requested_mib", "there_mib", "aside_mib"),
    [
        (256, 128, 256, 128),
        (512, 128, 512, 128),  # one block after another
        (256, 128, 128, 0),  # it has left, which QEMU has not told yet
        (512, 128, 255, 0),  # what is less than a block leaves in small parts
        (256, 156, 256, 0),
        (128, 128, 256, 0),  # nothing is to leave by the host's word
        (128, 256, 128, 0),
    ],
)
def test_no_more_than_a_block_is_set_aside_and_only_while_a_whole_one_is_still_to_leave(
    current_mib: int, requested_mib: int, there_mib: int, aside_mib: int
) -> None:
    device = VirtioMem(current_mib * MIB, requested_mib * MIB, requested_mib * MIB)
    config = {"growth": Growth.VIRTIO_MEM, "virtio_mem_bytes": 1024 * MIB}
    vm = build.vm(512, virtio_mem=device, config=config)
    phases.heard(vm, build.facts(512 + there_mib, 300, at=10.0))
    phases.heard(vm, build.facts(512 + there_mib, 500, at=10.5))
    assert vm.guest.demand.followed_bytes == (500 - aside_mib) * MIB


def test_what_has_just_come_may_be_set_aside_again_before_qemu_tells_of_it() -> None:
    device = VirtioMem(0, 0, 0)
    config = {"growth": Growth.VIRTIO_MEM, "virtio_mem_bytes": 1024 * MIB}
    vm = build.vm(512, virtio_mem=device, config=config)
    for ticket, size_mib, at in ((1, 1024, 1.0), (2, 640, 1.5)):
        device.ask("a", ticket, size_mib * MIB, at)
        device.answered(ticket, None, at)
    phases.heard(vm, build.facts(512 + 1024, 220, at=1.5))
    phases.heard(vm, build.facts(512 + 1024, 348, at=1.9))
    assert device.current_bytes == 0
    assert vm.guest.demand.followed_bytes == 220 * MIB


@pytest.mark.parametrize(
    ("current_mib", "requested_mib", "there_mib", "moved_at", "ahead_mib"),
    [
        (0, 1024, 512, 9.0, 128),  # a memory block at a time
        (0, 1024, 984, 9.0, 40),  # and no more than what is not counted yet
        (1024, 1024, 984, 9.0, 40),  # all is there by QEMU's word, and came only just now
        (1024, 1024, 984, 7.0, 0),  # some time ago
        (0, 1024, 1024, 9.0, 0),
        (1024, 128, 1024, 9.0, 0),  # it leaves
    ],
)
def test_what_comes_may_be_available_before_it_is_counted(
    current_mib: int, requested_mib: int, there_mib: int, moved_at: float, ahead_mib: int
) -> None:
    device = VirtioMem(current_mib * MIB, requested_mib * MIB, requested_mib * MIB)
    device.moved_at = moved_at
    config = {"growth": Growth.VIRTIO_MEM, "virtio_mem_bytes": 1024 * MIB}
    vm = build.vm(512, virtio_mem=device, config=config)
    phases.heard(vm, build.facts(512 + there_mib, 500, at=10.0))
    phases.heard(vm, build.facts(512 + there_mib, 300, at=10.5))
    assert vm.guest.demand.followed_bytes == (300 + ahead_mib) * MIB
