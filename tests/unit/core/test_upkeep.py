"""One VM brought up to date: how closely it is looked at, what it costs, and how its operations end."""

import itertools
from typing import Any

import pytest

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.accounts import Account, Accounts
from host_controller.core.books.ledger import Ledger
from host_controller.core.model import Growth, Limits, RunState
from host_controller.core.operations import Operation, Plug, Resize, Unplug
from host_controller.core.operations.operation import ONLINE_LIMIT
from host_controller.core.operations.stages import Outcome, Stage
from host_controller.core.pacing import (
    AGENTLESS_PACE,
    CALM_PACE,
    LOOK_SECONDS,
    MOVING_PACE,
    UNSURE_PACE,
    pace,
)
from host_controller.core.state import State
from host_controller.core.upkeep import charge_whole, conclude, refresh, weigh
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.growth import Rest
from host_controller.core.vm.level import PEAKS, Level
from host_controller.core.vm.record import Phase, Vm
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB
from tests.support import build

SETTINGS = build.settings()


def state_of(*vms: Vm, **settings: Any) -> State:
    made = build.settings(**settings)
    return State(made, Ledger(made), {vm.config.uuid: vm for vm in vms})


def calm(**changes: Any) -> Vm:
    vm = build.vm(300, **changes)
    vm.guest.heard(build.facts(300, 150, at=100.0), 300 * MIB)
    return vm


# --- how closely it is looked at ---


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, CALM_PACE),
        ({"sent": {1: 300 * MIB}}, MOVING_PACE),
        ({"claim_bytes": 301 * MIB}, MOVING_PACE),
        ({"claim_bytes": 299 * MIB}, CALM_PACE),
        ({"contradiction": "it lies"}, MOVING_PACE),
        ({"contradiction": "it lies", "phase": Phase.CONTRADICTED}, UNSURE_PACE),
        ({"target_bytes": 302 * MIB}, MOVING_PACE),
        ({"target_bytes": 298 * MIB}, MOVING_PACE),
        ({"target_bytes": 301 * MIB}, CALM_PACE),
        ({"target_bytes": None}, CALM_PACE),
        ({"phase": Phase.STARTING}, UNSURE_PACE),
        ({"phase": Phase.HUNG}, UNSURE_PACE),
        ({"job": "migration"}, UNSURE_PACE),
    ],
)
def test_a_vm_is_looked_at_closely_while_something_moves(changes: dict[str, Any], seconds: float) -> None:
    vm = calm(moved=True, **changes)
    command = pace(vm, state_of(vm), 100.0)
    assert command == hv.SetPace(vm.config.uuid, seconds)
    assert pace(vm, state_of(vm), 100.0) is None, "it is told once"
    assert vm.pace.seconds == seconds


def test_a_vm_with_an_operation_is_looked_at_closely() -> None:
    vm = calm()
    state = state_of(vm)
    state.operations[vm.config.uuid] = Plug(state.ticket, size_bytes=128 * MIB)
    assert pace(vm, state, 100.0) == hv.SetPace(vm.config.uuid, MOVING_PACE)


def test_a_vm_without_an_agent_is_looked_at_every_second() -> None:
    vm = build.vm(300)
    assert pace(vm, state_of(vm), 100.0) == hv.SetPace(vm.config.uuid, AGENTLESS_PACE)
    assert AGENTLESS_PACE == 1.0


@pytest.mark.parametrize(
    ("heard_at", "look_at"),
    [
        (100.0, 100.0 + LOOK_SECONDS),
        (86.0, 101.0),  # its facts go stale then
        (85.0, 100.0),
        (89.0, 100.0 + LOOK_SECONDS),
    ],
)
def test_a_calm_vm_is_looked_at_after_a_while_and_when_its_facts_go_stale(
    heard_at: float, look_at: float
) -> None:
    vm = build.vm(300)
    vm.guest.heard(build.facts(300, 150, at=heard_at), 300 * MIB)
    pace(vm, state_of(vm), 100.0)
    assert vm.pace.look_at == look_at


def test_a_vm_that_moves_is_looked_at_again_by_its_pace() -> None:
    vm = calm(sent={1: 1})
    pace(vm, state_of(vm), 100.0)
    assert vm.pace.look_at == 100.0 + MOVING_PACE


# --- what it costs ---


def entered(vm: Vm, now: float = 100.0) -> tuple[Accounts, Account]:
    accounts = Accounts()
    state = state_of(vm)
    vm.guest.work_out(vm.config.limits, now)
    charge = weigh(vm, state, accounts, now)
    assert accounts.charges == {vm.config.uuid: charge}
    return accounts, accounts.of[vm.config.uuid]


def test_a_movable_vm_takes_of_the_budget_what_it_costs_beside_its_goal() -> None:
    vm = calm(dimms_mib=(256,), pending_bytes=128 * MIB, virtio_mem=VirtioMem(32 * MIB, 32 * MIB))
    accounts, account = entered(vm)
    assert account.claims is not None
    assert account.guest_charge == 300 * MIB
    assert accounts.charged_bytes == (300 + 128 + 32 + 64) * MIB
    assert account.fixed == (128 + 64) * MIB
    assert account.granted_bytes == (300 + 32) * MIB


def restless(demand_mib: int, **changes: Any) -> Vm:
    """Of up to 1024 MiB, with peaks of 50 above the middle of its demand."""
    facts = build.facts(1024, demand_mib, at=100.0)
    level = Level(demand_mib * MIB, lasting_noise=50.0 / PEAKS * MIB, farthest=100.0 / PEAKS * MIB)
    return build.vm(1024, facts=facts, demand=Demand(last=facts, level=level), **changes)


@pytest.mark.parametrize(("demand_mib", "peaks_mib"), [(700, 50), (988, 20), (1020, 0)])
def test_peaks_count_as_far_as_a_vm_claims_them_within_its_maximum(demand_mib: int, peaks_mib: int) -> None:
    """It needs a margin of 16 MiB, and then its peaks."""
    _, account = entered(restless(demand_mib))
    assert account.peaks == peaks_mib * MIB


def test_the_peaks_of_a_vm_that_cannot_be_moved_do_not_count() -> None:
    _, account = entered(restless(700, paused=True))
    assert account.peaks == 0


@pytest.mark.parametrize("changes", [{"paused": True}, {"phase": Phase.HUNG}, {"job": "save"}])
def test_a_vm_that_cannot_be_moved_takes_all_that_it_costs(changes: dict[str, Any]) -> None:
    accounts, account = entered(calm(**changes))
    assert account.claims is None
    assert account.next_dimm == 0
    assert account.fixed == accounts.charged_bytes > 300 * MIB


def test_a_vm_that_boots_with_less_than_its_startup_is_owed_the_rest_and_not_charged_with_it() -> None:
    told = {"growth": Growth.VIRTIO_MEM, "boot_ram_bytes": 300 * MIB, "virtio_mem_bytes": 512 * MIB}
    vm = calm(config=told | {"limits": Limits(512 * MIB, 128 * MIB, 768 * MIB)}, booted_at=90.0)
    _, reported = entered(vm)
    vm.starts(90.0)
    accounts, account = entered(vm)
    assert (reported.owed, account.owed) == (0, 212 * MIB)
    assert accounts.owed_bytes == 212 * MIB
    assert accounts.charged_bytes == (300 + 64) * MIB


def test_a_vm_whose_balloon_did_not_follow_keeps_what_it_has_until_its_rest_is_over() -> None:
    resting, asked = entered(calm(stuck_until=100.1))[1].claims, entered(calm(stuck_until=100.0))[1].claims
    assert resting is not None
    assert asked is not None
    assert asked.irreducible < resting.irreducible == resting.need == 300 * MIB


def test_a_vm_whose_cost_nobody_can_work_out_is_charged_with_all_that_it_could_ever_be_given() -> None:
    vm, accounts = build.vm(300), Accounts()
    charge_whole(vm, state_of(vm), accounts)
    assert accounts.charges == {vm.config.uuid: (1024 + 64) * MIB}
    assert accounts.of[vm.config.uuid] == Account(1088 * MIB, 1088 * MIB, 0, 0, 1024 * MIB, None)
    accounts.charge(vm.config.uuid, 2000 * MIB)
    charge_whole(vm, state_of(vm), accounts)
    assert accounts.charged_bytes == 2000 * MIB, "no less than it was charged before"
    small = build.vm(300, config={"limits": Limits(256 * MIB, 192 * MIB, 256 * MIB)})
    charge_whole(small, state_of(small), accounts)
    assert accounts.of[small.config.uuid].granted_bytes == 512 * MIB


# --- how its operations end ---


def ended(operation: Operation, outcome: Outcome, note: str = "", **changes: Any) -> tuple[Vm, State]:
    vm = calm(zone="movable", pending_bytes=128 * MIB, **changes)
    state = state_of(vm)
    operation.outcome, operation.note = outcome, note
    state.operations[vm.config.uuid] = operation
    conclude(vm, operation, state, 100.0)
    assert state.operations == {}
    return vm, state


def tickets() -> Any:
    return itertools.count(1).__next__


GROWTH = {
    "plug": lambda: Plug(tickets(), size_bytes=128 * MIB),
    "resize": lambda: Resize(tickets(), size_bytes=128 * MIB, zone="movable"),
}
LEAVING = {
    "unplug": lambda: Unplug(tickets(), alias="dimm0"),
    "resize": lambda: Resize(tickets(), size_bytes=0),
}


@pytest.mark.parametrize("kind", GROWTH)
def test_growth_that_failed_rests_is_paid_no_more_and_its_zone_is_named_anew(kind: str) -> None:
    vm, state = ended(GROWTH[kind](), Outcome.FAILED, "it was refused")
    assert vm.plug_rest.until == 130.0
    assert vm.unplug_rest.failures == 0
    assert vm.plug.pending_bytes == 0
    assert vm.guest.zone is None
    assert [(one.kind, one.vm, one.text) for one in state.notices] == [
        ("operation", vm.config.uuid, "web: it was refused")
    ]


@pytest.mark.parametrize("kind", LEAVING)
def test_memory_that_did_not_leave_rests_apart_from_growth(kind: str) -> None:
    vm, _ = ended(LEAVING[kind](), Outcome.FAILED)
    assert vm.unplug_rest.until == 130.0
    assert vm.plug_rest.failures == 0
    assert vm.plug.pending_bytes == 128 * MIB, "which is another's"


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.DROPPED])
def test_what_nobody_is_to_blame_for_rests_nobody_and_keeps_the_zone(outcome: Outcome) -> None:
    vm, state = ended(GROWTH["plug"](), outcome)
    assert (vm.plug_rest.failures, vm.guest.zone) == (0, "movable")
    assert not state.notices, "there is nothing to say"


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.DROPPED])
def test_only_success_makes_the_next_failure_the_first_again(outcome: Outcome) -> None:
    """A guest that starts anew in every hot add, and refuses each one between, rests longer each time."""
    vm = calm(zone="movable", pending_bytes=128 * MIB)
    vm.plug_rest.failed(30.0, 0.0)
    state = state_of(vm)
    operation = GROWTH["plug"]()
    operation.outcome = outcome
    state.operations[vm.config.uuid] = operation
    conclude(vm, operation, state, 100.0)
    assert vm.plug_rest.failures == (0 if outcome is Outcome.DONE else 1)
    assert vm.plug_rest.until == 30.0, "and this rest goes on"


@pytest.mark.parametrize(("requested_mib", "failures"), [(256, 1), (128, 1), (127, 0)])
def test_what_has_come_since_and_leaves_says_nothing_of_what_did_not(
    requested_mib: int, failures: int
) -> None:
    size = requested_mib * MIB
    rest = Rest(99.0, 1, kept_bytes=128 * MIB)
    vm, _ = ended(LEAVING["resize"](), Outcome.DONE, unplug_rest=rest, virtio_mem=VirtioMem(size, size, size))
    assert vm.unplug_rest.failures == failures


def test_what_did_not_leave_is_what_rests() -> None:
    operation = LEAVING["resize"]()
    operation.kept_bytes = 128 * MIB
    assert ended(operation, Outcome.FAILED)[0].unplug_rest.kept_bytes == 128 * MIB


def test_after_dimms_moved_the_target_is_said_again_and_after_virtio_mem_its_promise_is_released() -> None:
    assert ended(GROWTH["plug"](), Outcome.DONE)[0].balloon.resend
    assert ended(LEAVING["unplug"](), Outcome.DONE)[0].balloon.resend
    device = VirtioMem(0, 0, ceiling_bytes=128 * MIB)
    vm, _ = ended(GROWTH["resize"](), Outcome.DROPPED, virtio_mem=device)
    assert not vm.balloon.resend
    assert device.may_hold_bytes == 0


# --- all of it ---


def refreshed(vm: Vm, operation: Operation | None = None, now: float = 101.0) -> tuple[State, list[Any]]:
    state = state_of(vm)
    if operation is not None:
        state.operations[vm.config.uuid] = operation
    return state, refresh(vm, state, Accounts(), False, now)


def test_a_phase_is_told_with_its_reason_and_only_when_it_changes() -> None:
    vm = calm()
    state, commands = refreshed(vm)
    assert (list(state.notices), commands) == ([], [])
    assert vm.guest.estimate is not None
    assert vm.guest.estimate.at == 101.0
    vm.evidence.count(500 * MIB, 0, 0, 101.0)
    refreshed(vm, now=101.0)
    state, _ = refreshed(vm, now=104.0)
    [told] = state.notices
    assert (told.kind, told.vm, told.at) == ("phase", vm.config.uuid, 104.0)
    assert told.text == "web is contradicted: resident memory is above what the balloon claims to leave"
    assert state.last_cause == "web is contradicted", "it raises the charge"
    hung = build.vm(300)
    state, _ = refreshed(hung, now=1000.0)
    assert [one.text for one in state.notices] == ["web is hung"]


def test_a_vm_that_becomes_live_is_no_cause_of_an_overdraft() -> None:
    vm = build.vm(512, phase=Phase.STARTING, reported_at=100.0)
    state, _ = refreshed(vm)
    assert [one.text for one in state.notices] == ["web is live"]
    assert state.last_cause == "start"


def test_an_operation_goes_on_unless_it_is_about_to_grow_which_the_ledger_decides() -> None:
    plug = GROWTH["plug"]()
    vm = calm(reported_at=100.0)
    state, commands = refreshed(vm, plug)
    assert [type(one) for one in commands] == [hv.SendToGuest]
    named = GROWTH["plug"]()
    named.stage = Stage.NAMED
    state, commands = refreshed(calm(reported_at=100.0), named)
    assert (commands, named.stage) == ([], Stage.NAMED)
    assert state.operations


def test_an_agent_that_is_silent_is_not_asked() -> None:
    vm = calm()
    vm.guest.agent_left()
    _, commands = refreshed(vm, GROWTH["plug"]())
    assert [type(one) for one in commands] == [hv.AttachDimm]


@pytest.mark.parametrize("why", [{"job": "migration"}, {"state": RunState.PAUSED}, {"stopped": True}])
def test_an_operation_of_a_vm_that_must_not_be_touched_is_held_and_a_harmless_one_given_up(
    why: dict[str, Any],
) -> None:
    state, commands = refreshed(calm(**why), GROWTH["plug"]())
    assert commands == []
    assert state.operations == {}
    assert [one.kind for one in state.notices] == ["operation"]


@pytest.mark.parametrize("why", [{"paused": True}, {"fault": "KeyError"}])
def test_with_a_vm_that_is_left_alone_nothing_new_is_begun_and_what_was_begun_comes_to_its_end(
    why: dict[str, Any],
) -> None:
    state, commands = refreshed(calm(**why), GROWTH["plug"]())
    assert (commands, state.operations) == ([], {})
    assert [one.text for one in state.notices] == ["web: it was given up: the VM is left alone"]

    vm, plug = calm(), GROWTH["plug"]()
    vm.guest.agent_left()
    refreshed(vm, plug)
    assert plug.stage is Stage.ATTACHING
    vm.pauses.by_operator(paused=True)
    plug.dimms_changed(vm, added=True)
    state, _ = refreshed(vm, plug, now=101.0)
    assert plug.stage is Stage.COMING_ONLINE
    assert vm.config.uuid in state.operations


def test_the_time_in_which_a_vm_must_not_be_touched_does_not_count() -> None:
    vm, plug = calm(), GROWTH["plug"]()
    vm.guest.agent_left()
    refreshed(vm, plug)
    plug.dimms_changed(vm, added=True)
    refreshed(vm, plug, now=101.0)
    vm.pauses.job_is("migration")
    refreshed(vm, plug, now=102.0)
    vm.pauses.job_is(None)
    refreshed(vm, plug, now=202.0)
    state, _ = refreshed(vm, plug, now=201.0 + ONLINE_LIMIT)
    assert vm.config.uuid in state.operations
    state, _ = refreshed(vm, plug, now=201.1 + ONLINE_LIMIT)
    assert state.operations == {}


def test_an_operation_that_ended_is_concluded_with_the_next_look() -> None:
    plug = GROWTH["plug"]()
    vm = calm(reported_at=100.0)
    refreshed(vm, plug)
    plug.acknowledged(vm, wire.Ack(plug.request, False, "EBUSY"))
    state, _ = refreshed(vm, plug, now=102.0)
    assert state.operations == {}
    assert vm.plug_rest.failures == 1
    plug = GROWTH["plug"]()
    plug.give_up("the guest started anew")
    assert refreshed(vm, plug)[0].operations == {}


def test_while_an_operation_moves_memory_nobody_judges_the_balloon() -> None:
    changes: dict[str, Any] = {"target_bytes": 200 * MIB, "present_bytes": 300 * MIB}
    vm = calm(**changes)
    refreshed(vm, GROWTH["plug"](), now=115.0)
    assert vm.progress.stuck_until < 0
    state, _ = refreshed(calm(**changes), now=115.0)
    told = [one for one in state.notices if one.kind == "balloon"]
    assert [one.vm for one in told] == [vm.config.uuid]
    assert told[0].text.startswith("web did not follow its balloon target of 200 MiB")
    assert told[0].at == 115.0


@pytest.mark.parametrize(("scarce", "stuck"), [(True, True), (False, False)])
def test_patience_with_a_balloon_is_short_while_memory_is_scarce(scarce: bool, stuck: bool) -> None:
    vm = calm(target_bytes=200 * MIB, present_bytes=300 * MIB, at=95.0)
    refresh(vm, state_of(vm), Accounts(), scarce, 101.0)
    assert (vm.progress.stuck_until > 0) is stuck


def test_what_qemu_has_surely_told_of_virtio_mem_is_taken_off_the_charge() -> None:
    vm = calm(virtio_mem=VirtioMem(0, 256 * MIB))
    vm.virtio_mem.ask(vm.config.uuid, 1, 0, 95.0)
    vm.virtio_mem.answered(1, None, 95.0)
    refreshed(vm)
    assert vm.virtio_mem.may_hold_bytes == 0
