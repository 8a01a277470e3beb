"""What a VM's records keep in mind, each verb on its own: what was left out once went unnoticed."""

import math

import pytest

from agent import wire
from host_controller.core.accounts import Accounts
from host_controller.core.books.ledger import Ledger, Reservation
from host_controller.core.budget import Budget
from host_controller.core.model import BalloonStats, Dimm
from host_controller.core.operations import Operation, Plug, Resize, Unplug
from host_controller.core.operations.stages import Outcome
from host_controller.core.policy import spare
from host_controller.core.policy.spare import ANSWER_SECONDS, HEARD_SECONDS
from host_controller.core.state import State
from host_controller.core.upkeep import conclude, weigh
from host_controller.core.vm import lifecycle
from host_controller.core.vm.growth import LONGEST_REST, Rest
from host_controller.core.vm.record import Phase, Vm
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB
from tests.support import build

SETTINGS = build.settings(rest_seconds=30.0)


def state_of(*vms: Vm) -> State:
    return State(SETTINGS, Ledger(SETTINGS), {vm.config.uuid: vm for vm in vms})


# --- after a reset ---


def test_after_a_reset_nothing_that_the_last_kernel_said_holds() -> None:
    vm = build.vm(300, facts=build.facts(), stats=BalloonStats(1, 1, 1), zone="movable", boot_id="0123abcd")
    vm.guest.work_out(vm.config.limits, 1.0)
    lifecycle.reset(vm, 10.0)
    guest = vm.guest
    assert (guest.facts, guest.stats, guest.zone, guest.boot_id, guest.estimate) == (None,) * 5
    assert guest.demand.last is None
    assert (vm.phase, vm.since, vm.booted_at, vm.reset_at) == (Phase.STARTING, 10.0, 10.0, 10.0)


def test_after_a_reset_the_target_is_all_of_its_ram_and_is_sent() -> None:
    vm = build.vm(300, dimms_mib=(128,))
    lifecycle.reset(vm, 10.0)
    assert vm.balloon.target_bytes == 640 * MIB
    assert vm.balloon.resend
    assert vm.balloon.claim_bytes == 640 * MIB
    assert not vm.balloon.moved
    assert vm.dimms.survivors == {"dimm0"}


# --- takeover ---


def taken_over() -> Vm:
    vm = build.vm(300, phase=Phase.TAKEOVER, since=1.0, actual_at=2.0, resident_at=3.0)
    build.answers(vm, 2.0)
    return vm


def test_a_takeover_is_over_once_driver_target_and_host_agree() -> None:
    vm = taken_over()
    lifecycle.advance(vm, SETTINGS, 4.0)
    assert vm.phase is Phase.LIVE


def test_a_takeover_goes_on_while_its_target_must_be_said_again_or_is_on_its_way() -> None:
    again, under_way = taken_over(), taken_over()
    again.balloon.say_again()
    under_way.balloon.send(1, 300 * MIB, 300 * MIB, 2.0)
    for vm in (again, under_way):
        lifecycle.advance(vm, SETTINGS, 4.0)
        assert vm.phase is Phase.TAKEOVER


# --- DIMMs ---


def test_a_dimm_that_came_raises_all_that_the_balloon_counts_from() -> None:
    vm = build.vm(300, ceiling_bytes=400 * MIB, claim_bytes=350 * MIB, followed=((1.0, 300 * MIB),))
    assert vm.replug((Dimm("dimm0", 128 * MIB, None),), 5.0) == (128 * MIB, 0)
    balloon = vm.balloon
    assert (balloon.actual_bytes, balloon.target_bytes) == (428 * MIB, 428 * MIB)
    assert (balloon.ceiling_bytes, balloon.claim_bytes) == (528 * MIB, 478 * MIB)
    assert balloon.followed == ((1.0, 428 * MIB),)
    assert balloon.resend
    assert (vm.ram_bytes, vm.grown_at, vm.dimms.changed_at) == (640 * MIB, 5.0, 5.0)
    assert (vm.progress.present_bytes, vm.progress.at) == (428 * MIB, 5.0)


def test_a_dimm_that_left_lowers_all_but_the_claim_which_the_host_must_confirm() -> None:
    vm = build.vm(600, dimms_mib=(256,), grown_at=1.0)
    assert vm.replug((), 5.0) == (0, 256 * MIB)
    balloon = vm.balloon
    assert (balloon.actual_bytes, balloon.target_bytes, balloon.ceiling_bytes) == (344 * MIB,) * 3
    assert balloon.claim_bytes == 600 * MIB
    assert (vm.ram_bytes, vm.grown_at) == (512 * MIB, 1.0)


def test_nothing_counts_from_less_than_nothing() -> None:
    vm = build.vm(100, dimms_mib=(256,))
    vm.replug((), 5.0)
    balloon = vm.balloon
    assert (balloon.actual_bytes, balloon.target_bytes, balloon.ceiling_bytes) == (0, 0, 0)


# --- rests ---


def test_a_rest_doubles_with_each_failure_up_to_an_hour_and_ends_with_a_success() -> None:
    rest = Rest()
    for failure, seconds in enumerate((30, 60, 120, 240)):
        rest.failed(30.0, 100.0)
        assert (rest.failures, rest.until) == (failure + 1, 100.0 + seconds)
    for _ in range(20):
        rest.failed(30.0, 100.0)
    assert rest.until == 100.0 + LONGEST_REST
    rest.succeeded()
    rest.failed(30.0, 200.0)
    assert rest.until == 230.0


def ended(operation: Operation, outcome: Outcome, zone: wire.Zone | None = "movable") -> Vm:
    vm = build.vm(300, zone=zone, pending_bytes=128 * MIB)
    state = state_of(vm)
    state.operations[vm.config.uuid] = operation
    operation.outcome = outcome
    conclude(vm, operation, state, 100.0)
    assert state.operations == {}
    return vm


def test_a_failed_growth_rests_and_its_zone_is_forgotten() -> None:
    vm = ended(Plug(int), Outcome.FAILED)
    assert (vm.plug_rest.until, vm.unplug_rest.until) == (130.0, -math.inf)
    assert vm.guest.zone is None
    assert vm.plug.pending_bytes == 0
    assert vm.balloon.resend


def test_a_failed_unplug_rests_and_leaves_what_is_paid_for_growth() -> None:
    vm = ended(Unplug(int, alias="dimm0"), Outcome.FAILED)
    assert (vm.plug_rest.until, vm.unplug_rest.until) == (-math.inf, 130.0)
    assert vm.plug.pending_bytes == 128 * MIB


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.DROPPED])
def test_what_did_not_fail_does_not_rest_and_keeps_the_zone(outcome: Outcome) -> None:
    vm = ended(Plug(int), outcome)
    assert vm.plug_rest == Rest()
    assert vm.guest.zone == "movable"


def test_another_size_of_virtio_mem_rests_by_its_direction_and_touches_no_target() -> None:
    grown = ended(Resize(int, zone="movable", size_bytes=1), Outcome.FAILED)
    assert (grown.plug_rest.failures, grown.unplug_rest.failures) == (1, 0)
    shrunk = ended(Resize(int, size_bytes=1), Outcome.FAILED)
    assert (shrunk.plug_rest.failures, shrunk.unplug_rest.failures) == (0, 1)
    assert not shrunk.balloon.resend


# --- heard lately ---


@pytest.mark.parametrize(
    ("heard_at", "sent_at", "moved_at", "expected"),
    [
        (10.0 - HEARD_SECONDS, -math.inf, -math.inf, True),
        (9.9 - HEARD_SECONDS, -math.inf, -math.inf, False),
        (8.0, 8.0, -math.inf, True),
        (8.0, 10.0 - ANSWER_SECONDS, -math.inf, True),
        (8.0, 9.9 - ANSWER_SECONDS, -math.inf, False),
        (8.0, 9.0, 8.1, False),
    ],
    ids=["calm", "silent", "heard since", "about to answer", "silent since", "older than the device"],
)
def test_memory_is_taken_only_from_whom_was_heard_since(
    heard_at: float, sent_at: float, moved_at: float, expected: bool
) -> None:

    vm = build.vm(
        300, facts=build.facts(at=heard_at), sent_at=sent_at, virtio_mem=VirtioMem(moved_at=moved_at)
    )
    assert spare.heard_lately(vm, 10.0) is expected


def test_nobody_is_heard_before_its_first_word() -> None:
    assert not spare.heard_lately(build.vm(300), 10.0)


# --- the budget ---


def budget(room_wanted_mib: int = 0, reserved_mib: int = 0, capacity_mib: int = 4096) -> Budget:
    """Of one guest that has 300 MiB and wants about 260."""

    facts = build.facts(300, 200, at=1.0)
    vm = build.vm(300, facts=facts, booted_at=-1000.0)
    vm.guest.heard(facts, 300 * MIB)
    vm.guest.work_out(vm.config.limits, 1.0)
    settings = build.settings(capacity_mib, keep_ready_bytes=0)
    state = State(settings, Ledger(settings), {vm.config.uuid: vm})
    if room_wanted_mib:
        state.ledger.room_wanted["new"] = room_wanted_mib * MIB
    if reserved_mib:
        state.ledger.reservations["new"] = Reservation("new", reserved_mib * MIB, 100.0)
    made = Budget(settings.capacity_bytes)
    weigh(vm, state, made.accounts, 1.0)
    made.allot(state, 1.0)
    return made


def test_room_that_a_start_waits_for_is_taken_from_the_budget_and_is_waited_for() -> None:
    free, wanted = budget(), budget(room_wanted_mib=3800)
    assert free.budget_bytes - wanted.budget_bytes == 3800 * MIB
    assert free.headroom_bytes == wanted.headroom_bytes, "nothing is promised yet"
    assert free.waiting_bytes == 0
    assert wanted.waiting_bytes == 3800 * MIB - wanted.headroom_bytes
    assert wanted.scarce
    assert not free.scarce


def test_a_reservation_is_taken_from_the_budget_and_from_what_may_be_granted() -> None:
    free, reserved = budget(), budget(reserved_mib=1000)
    assert free.budget_bytes - reserved.budget_bytes == 1000 * MIB
    assert free.headroom_bytes - reserved.headroom_bytes == 1000 * MIB


def test_an_overdrawn_host_is_scarce() -> None:
    assert budget(capacity_mib=300).headroom_bytes < 0
    assert budget(capacity_mib=300).scarce


def test_an_account_is_one_vms_and_closing_it_takes_it_out_of_the_sums() -> None:
    made = budget()
    accounts: Accounts = made.accounts
    assert accounts.charged_bytes == 364 * MIB
    made.forget("uuid-of-web")
    assert (accounts.charged_bytes, accounts.fixed_bytes, accounts.needed_bytes) == (0, 0, 0)
    assert made.goals == {}
    assert accounts.claims == {}
