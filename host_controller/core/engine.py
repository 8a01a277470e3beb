"""One host's controller as a pure step over events: what came in, what time it is, what is to be done.

    engine.handle(event, now)      for everything that happens
    commands = engine.decide(now)  when events have come, and every second

It reads no clock, file, log or hypervisor, so the same events give the same commands: on real hosts, in
the simulator, and when a recorded history is played again.
"""

from collections.abc import Mapping
from typing import Final

from host_controller.core.accounts import Account, Accounts
from host_controller.core.books import charge as books
from host_controller.core.books.ledger import Ledger
from host_controller.core.grants import Pass
from host_controller.core.intake import Intake
from host_controller.core.interface import Command, HypervisorEvent, SetPace, Tick
from host_controller.core.model import Settings
from host_controller.core.operations import Operation, Plug
from host_controller.core.operations.resize import Resize
from host_controller.core.operations.stages import Outcome
from host_controller.core.operations.standstill import Stage, advance_all, still_bytes
from host_controller.core.operator_events import OperatorEvent
from host_controller.core.policy import plan
from host_controller.core.policy.balance import Claims, balance
from host_controller.core.policy.plan import HOLD, Decision
from host_controller.core.policy.ready import Ready, budget_bytes
from host_controller.core.state import Notice, State
from host_controller.core.vm import lifecycle
from host_controller.core.vm.progress import follow
from host_controller.core.vm.record import CONTRADICTED, LIVE, Vm
from host_controller.units import MIB, format_size

Event = HypervisorEvent | OperatorEvent | Tick

MOVING_PACE: Final = 0.1
UNSURE_PACE: Final = 0.5
AGENTLESS_PACE: Final = 1.0
CALM_PACE: Final = 5.0
"""Seconds between two readings of a VM's balloon and resident memory."""
LOOK_SECONDS: Final = 4.0
"""At the latest after so long a VM of which nothing is heard is looked at again."""

LONGEST_REST: Final = 3600.0
"""The rest after an operation that failed doubles each time, up to this."""


class Engine:
    """The controller of one host."""

    def __init__(self, settings: Settings) -> None:
        self.state = State(settings, Ledger(settings))
        self.decisions: dict[str, Decision] = {}
        self.goals: dict[str, int] = {}
        self.budget_bytes = 0
        self.headroom_bytes = settings.capacity_bytes
        self.ready_bytes = 0
        """Kept free for bursts, out of the budget."""
        self.waiting_bytes = 0
        """Growth that the balance grants and that is not free yet."""
        self.uncovered_bytes = 0
        """What VMs may take now beyond the capacity: an overdraft."""
        self._intake = Intake(self.state)
        self._ready = Ready()
        self._accounts = Accounts()
        self._unsettled: set[str] = set()
        """VMs that do not have what they should have."""
        self._too_far: set[str] = set()
        """VMs whose goal has moved away from what they have."""
        self._balanced = (-1, -1)
        """The budget that was last laid out, and the number of changes of claims until then."""

    @property
    def vms(self) -> dict[str, Vm]:
        """Every managed VM that runs, by UUID."""
        return self.state.vms

    @property
    def ledger(self) -> Ledger:
        """The books."""
        return self.state.ledger

    @property
    def charges(self) -> Mapping[str, int]:
        """What each VM was last found to cost, bytes, by UUID."""
        return self._accounts.charges

    @property
    def claims(self) -> Mapping[str, Claims]:
        """What each VM that can be moved asks for, by UUID."""
        return self._accounts.claims

    def notices(self) -> list[Notice]:
        """What operators should be told since the last call."""
        told = list(self.state.notices)
        self.state.notices.clear()
        return told

    def handle(self, event: Event, now: float) -> None:
        """Take in one event."""
        self._intake.apply(event, now)

    def decide(self, now: float) -> list[Command]:
        """The commands that follow from everything that was taken in."""
        state = self.state
        dirty = [vm for uuid, vm in state.vms.items() if uuid in state.dirty]
        for uuid in state.dirty - state.vms.keys():
            self._forget(uuid)
        state.dirty.clear()
        commands: list[Command] = []
        scarce = self._scarce
        for vm in dirty:
            try:
                commands += self._refresh(vm, scarce, now)
            except Exception as error:  # noqa: BLE001 # it harms no other VM
                state.isolate(vm, error, now)
                self._weigh(vm, now)
        self._allot(now)
        if not state.connected:
            return []
        commands += self._stand_still(now)
        commands += self._go_on_growing(dirty, now)
        grantable = self.headroom_bytes if state.emergency.cause is None else min(0, self.headroom_bytes)
        one = Pass(state, self.goals, self._accounts.of, grantable, self._scarce, now)
        concerned = self._too_far | self._unsettled | {vm.config.uuid for vm in dirty}
        one.run([vm for uuid, vm in state.vms.items() if uuid in concerned])
        commands += one.commands
        self.decisions.update(one.decisions)
        self._unsettled -= one.decisions.keys()
        self._unsettled.update(uuid for uuid, told in one.decisions.items() if told.action is not HOLD)
        for uuid, cost in one.costs.items():
            self._accounts.charge(uuid, self.charges[uuid] + cost)
        # What they ask for follows in the next step.
        state.dirty.update(command.vm for command in one.commands)
        self._keep_books(now)
        for vm in dirty:
            commands += self._pace(vm, now)
        return commands

    def _forget(self, uuid: str) -> None:
        self._accounts.close(uuid)
        self.goals.pop(uuid, None)
        self.decisions.pop(uuid, None)
        self._unsettled.discard(uuid)

    def _refresh(self, vm: Vm, scarce: bool, now: float) -> list[Command]:
        """Bring everything about one VM up to date: phase, operation, progress, estimate, charge."""
        before = vm.phase
        vm.virtio_mem.catch_up(now)
        lifecycle.advance(vm, self.state.settings, now)
        if vm.phase is not before:
            self.state.notice(now, "phase", vm, f"{vm.name} is {vm.phase}{_because(vm)}")
            if vm.phase is not LIVE:
                self.state.last_cause = f"{vm.name} is {vm.phase}"
        operations = self.state.operations
        commands = self._advance_operation(vm, now) if vm.config.uuid in operations else []
        if vm.config.uuid not in operations:
            told = follow(vm, needed=scarce, now=now)
            if told is not None:
                self.state.notice(now, "balloon", vm, told)
        vm.estimate = vm.demand.estimate(vm.config.limits, now) if vm.facts is not None else None
        self._weigh(vm, now)
        return commands

    def _weigh(self, vm: Vm, now: float) -> None:
        """Work out what the VM costs and what it asks for."""
        settings = self.state.settings
        guest_charge = books.guest_charge(vm)
        overhead = books.overhead(vm, settings)
        charge = fixed = guest_charge + books.beside(vm) + overhead
        held = vm.assigned_bytes
        claims, next_dimm = None, 0
        if plan.immovable(vm, settings, now) is None and now >= vm.stuck_until:
            claims = plan.claims(vm, held, settings, now)
            fixed = books.fixed(vm) + overhead
            next_dimm = plan.next_dimm_slack(vm, claims.desired)
        uuid = vm.config.uuid
        self._accounts.charge(uuid, charge)
        self._accounts.enter(
            uuid, Account(guest_charge, fixed, plan.growth_bytes(vm), next_dimm, held, claims)
        )

    def _advance_operation(self, vm: Vm, now: float) -> list[Command]:
        uuid = vm.config.uuid
        operation = self.state.operations[uuid]
        commands: list[Command] = []
        if operation.outcome is Outcome.UNDER_WAY:
            if vm.hands_off:
                operation.hold(now)
            elif not operation.about_to_grow:
                agent = vm.has_agent(now, self.state.settings.stale_seconds)
                commands = operation.advance(vm, now, agent)
        if operation.outcome is not Outcome.UNDER_WAY:
            self._conclude(vm, operation, now)
        return commands

    def _go_on_growing(self, vms: list[Vm], now: float) -> list[Command]:
        """Growth that was paid for a while ago goes on, unless an overdraft has come since."""
        overdrawn = self.headroom_bytes < 0 or self.state.emergency.cause is not None
        commands: list[Command] = []
        for vm in vms:
            operation = self.state.operations.get(vm.config.uuid)
            if operation is None or not operation.about_to_grow or vm.hands_off:
                continue
            if overdrawn:
                operation.give_up("it was given up: the host has no memory for it any more")
            else:
                agent = vm.has_agent(now, self.state.settings.stale_seconds)
                commands += operation.advance(vm, now, agent)
            if operation.outcome is not Outcome.UNDER_WAY:
                self._conclude(vm, operation, now)
            self.state.dirty.add(vm.config.uuid)
        return commands

    def _conclude(self, vm: Vm, operation: Operation, now: float) -> None:
        """Remember how an operation ended: success makes the VM trusted with the next one at once."""
        del self.state.operations[vm.config.uuid]
        failed = operation.outcome is Outcome.FAILED
        if failed:
            vm.zone = None  # whoever was to bring new memory online may have lost it
        if operation.note:
            self.state.notice(now, "operation", vm, f"{vm.name}: {operation.note}")
        if isinstance(operation, Resize):
            vm.virtio_mem.release()
        else:
            vm.resend = True
        if isinstance(operation, Plug) or (isinstance(operation, Resize) and operation.grows):
            vm.pending_plug_bytes = 0
            vm.plug_failures = vm.plug_failures + 1 if failed else 0
            if failed:
                vm.plug_refused_until = now + self._rest(vm.plug_failures)
        else:
            vm.unplug_failures = vm.unplug_failures + 1 if failed else 0
            if failed:
                vm.unplug_refused_until = now + self._rest(vm.unplug_failures)

    def _rest(self, failures: int) -> float:
        return min(LONGEST_REST, self.state.settings.rest_seconds * 2.0 ** (failures - 1))

    def _allot(self, now: float) -> None:
        """Lay out the budget: goals for every VM that can be moved, and how much is not free yet."""
        settings = self.state.settings
        capacity = self.ledger.capacity()
        accounts = self._accounts
        self._ready.observe(accounts.growth_bytes, now)
        self.ready_bytes = self._ready.keep_bytes(capacity, settings.keep_ready_bytes)
        promised = self.ledger.reserved() + self.ledger.wanted()
        all_there_is = max(0, capacity - promised - accounts.fixed_bytes)
        needed = accounts.needed_bytes
        kept = accounts.next_dimm_bytes + self.ready_bytes
        self.budget_bytes = budget_bytes(all_there_is, kept, needed)
        if self.state.emergency.cause is not None:
            self.budget_bytes = min(self.budget_bytes, needed)
        if self._balanced != (self.budget_bytes, accounts.changes):
            shares = balance(accounts.claims.values(), self.budget_bytes)
            self.goals = dict(zip(accounts.claims, shares, strict=True))
            self._balanced = (self.budget_bytes, accounts.changes)
        self.headroom_bytes = self.ledger.headroom(accounts.charged_bytes)
        missing, far, near = accounts.away_from(self.goals)
        self.waiting_bytes = max(0, self.ledger.wanted() + missing - max(0, self.headroom_bytes))
        self._too_far = set(far + near if self._scarce else far)

    @property
    def _scarce(self) -> bool:
        """Somebody waits for memory that is not free yet."""
        return self.waiting_bytes > 0 or self.headroom_bytes < 0

    def _stand_still(self, now: float) -> list[Command]:
        """Stop what was reset without room for all of its RAM, and let it run once there is."""
        state = self.state
        if not state.standstills:
            return []
        sent: list[Command] = []
        for vm, one, commands in advance_all(
            state.standstills, state.vms, self.headroom_bytes, state.ticket, now
        ):
            sent += commands
            for text in one.told:
                state.notice(now, "reset", vm, text)
            if one.stage is Stage.STARTING and one.missing_bytes and one.told:
                state.last_cause = one.told[-1]
            one.told.clear()
        for uuid in [uuid for uuid, one in state.standstills.items() if one.stage is Stage.OVER]:
            del state.standstills[uuid]
        return sent

    def _keep_books(self, now: float) -> None:
        self.headroom_bytes = self.ledger.headroom(self._accounts.charged_bytes)
        covered = self.headroom_bytes + still_bytes(self.state.standstills, self.state.vms)
        self.uncovered_bytes = max(0, -covered)
        overdraft = self.ledger.record(covered, self.state.last_cause, now)
        unseen_seconds, self.state.unseen_seconds = self.state.unseen_seconds, 0.0
        if overdraft is None:
            return
        if overdraft.ended is None:
            text = f"overdraft of {format_size(overdraft.peak_bytes)}: {overdraft.cause}"
            if unseen_seconds:
                text += f" within the last {unseen_seconds:.1f} s"
        else:
            took = overdraft.ended - overdraft.started
            text = f"overdraft ended after {took:.1f} s; it was {format_size(overdraft.peak_bytes)} at most"
        self.state.notice(now, "overdraft", None, text)

    def _pace(self, vm: Vm, now: float) -> list[Command]:
        """Look closely at what moves, and seldom at what does not."""
        uuid = vm.config.uuid
        if (
            vm.sent
            or vm.claim_bytes > vm.actual_bytes
            or (vm.contradiction is not None and vm.phase is LIVE)  # QEMU may tell of it later
            or uuid in self.state.operations
            or (vm.target_bytes is not None and abs(vm.present_bytes - vm.target_bytes) > MIB)
        ):
            pace = MOVING_PACE
        elif vm.phase is not LIVE or vm.job is not None:
            pace = UNSURE_PACE
        elif not vm.has_agent(now, self.state.settings.stale_seconds):
            pace = AGENTLESS_PACE
        else:
            pace = CALM_PACE
        vm.look_at = now + (pace if pace < LOOK_SECONDS else LOOK_SECONDS)
        facts, stale_seconds = vm.facts, self.state.settings.stale_seconds
        if facts is not None and now <= facts.at + stale_seconds < vm.look_at:
            vm.look_at = facts.at + stale_seconds
        if pace == vm.pace_seconds:
            return []
        vm.pace_seconds = pace
        return [SetPace(uuid, pace)]


def _because(vm: Vm) -> str:
    return f": {vm.contradiction}" if vm.phase is CONTRADICTED and vm.contradiction else ""
