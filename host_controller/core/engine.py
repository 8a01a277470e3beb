"""One host's controller as a pure step over events: what came in, what time it is, what is to be done.

    engine.handle(event, now)      for everything that happens
    commands = engine.decide(now)  when events have come, and every second

It reads no clock, file, log or hypervisor, so the same events give the same commands: on real hosts, in
the simulator, and when a recorded history is played again.
"""

from collections.abc import Mapping

from host_controller.core import intake
from host_controller.core.books.ledger import Ledger
from host_controller.core.budget import Budget
from host_controller.core.commands import Command
from host_controller.core.grants import GrantRound, Purse
from host_controller.core.intake import Event as Event
from host_controller.core.model import Settings
from host_controller.core.operations.resize import Resize
from host_controller.core.operations.stages import Outcome
from host_controller.core.pacing import pace
from host_controller.core.policy.balance import Claims
from host_controller.core.policy.plan import HOLD, Decision
from host_controller.core.standing import stand_still, still_bytes
from host_controller.core.state import Notice, State
from host_controller.core.upkeep import charge_whole, conclude, refresh, weigh
from host_controller.core.vm.record import Vm
from host_controller.units import format_size


class Engine:
    """The controller of one host."""

    def __init__(self, settings: Settings) -> None:
        self.state = State(settings, Ledger(settings))
        self.decisions: dict[str, Decision] = {}
        self.uncovered_bytes = 0
        """What VMs may take now beyond the capacity: an overdraft."""
        self._budget = Budget(settings.capacity_bytes)
        self._unsettled: set[str] = set()
        """VMs that do not have what they should have."""

    # --- what others may look at ---

    @property
    def vms(self) -> dict[str, Vm]:
        """Every managed VM that runs, by UUID."""
        return self.state.vms

    @property
    def ledger(self) -> Ledger:
        """The books: capacity, charges, reservations, overdraft."""
        return self.state.ledger

    @property
    def charges(self) -> Mapping[str, int]:
        """What each VM was last found to cost, bytes, by UUID."""
        return self._budget.accounts.charges

    @property
    def claims(self) -> Mapping[str, Claims]:
        """What each VM that can be moved asks for, by UUID."""
        return self._budget.accounts.claims

    @property
    def goals(self) -> Mapping[str, int]:
        """What the balance gives each of them, bytes of usable memory, by UUID."""
        return self._budget.goals

    @property
    def budget_bytes(self) -> int:
        """What the balance lays out."""
        return self._budget.budget_bytes

    @property
    def headroom_bytes(self) -> int:
        """What may still be granted; negative in an overdraft."""
        return self._budget.headroom_bytes

    @property
    def owed_bytes(self) -> int:
        """Held for VMs that boot with less than their startup, until their agents report."""
        return self._budget.accounts.owed_bytes

    @property
    def ready_bytes(self) -> int:
        """Kept free for bursts, out of the budget."""
        return self._budget.ready_bytes

    @property
    def waiting_bytes(self) -> int:
        """Growth that the balance grants and that is not free yet."""
        return self._budget.waiting_bytes

    def notices(self) -> list[Notice]:
        """What operators should be told since the last call."""
        notices = list(self.state.notices)
        self.state.notices.clear()
        return notices

    def awaits_report(self, uuid: str) -> bool:
        """Whether the VM's next report may end a step of taking, and so begin the next one."""
        operation = self.state.operations.get(uuid)
        return isinstance(operation, Resize) and operation.awaits_report

    # --- the step ---

    def handle(self, event: Event, now: float) -> None:
        """Take in one event."""
        intake.apply(self.state, event, now)

    def decide(self, now: float) -> list[Command]:
        """The commands that follow from everything that was taken in."""
        state, budget = self.state, self._budget
        touched, state.dirty = state.dirty, set()
        dirty = [vm for uuid, vm in state.vms.items() if uuid in touched]
        for uuid in touched - state.vms.keys():
            self._forget(uuid)
        commands = self._refresh(dirty, now)
        budget.allot(state, now)
        if not state.connected:
            return []
        commands += stand_still(state, budget.headroom_bytes, now)
        commands += self._go_on_growing(dirty, now)
        commands += self._grant(dirty, now)
        self._keep_books(now)
        return commands + self._keep_pace(dirty, now)

    def _forget(self, uuid: str) -> None:
        self._budget.forget(uuid)
        self.decisions.pop(uuid, None)
        self._unsettled.discard(uuid)

    def _refresh(self, dirty: list[Vm], now: float) -> list[Command]:
        """Bring everything about these VMs up to date."""
        state, accounts = self.state, self._budget.accounts
        scarce = self._budget.scarce
        commands: list[Command] = []

        def bring_up_to_date(vm: Vm) -> None:
            commands.extend(refresh(vm, state, accounts, scarce, now))

        failed = state.each_apart(dirty, now, bring_up_to_date)
        for vm in state.each_apart(failed, now, lambda vm: weigh(vm, state, accounts, now)):
            charge_whole(vm, state, accounts)
        return commands

    def _go_on_growing(self, vms: list[Vm], now: float) -> list[Command]:
        """Growth that was paid for a while ago goes on, unless an overdraft has come since."""
        overdrawn = self.headroom_bytes < 0 or self.state.emergency.cause is not None
        commands: list[Command] = []
        for vm in vms:
            if vm.config.uuid in self.state.operations:
                commands += self.state.apart(vm, now, self._let_grow, overdrawn, now) or ()
        return commands

    def _let_grow(self, vm: Vm, overdrawn: bool, now: float) -> list[Command]:
        operation = self.state.operations[vm.config.uuid]
        if not operation.about_to_grow or vm.pauses.hands_off:
            return []
        commands: list[Command] = []
        if overdrawn:
            operation.give_up("it was given up: the host has no memory for it any more")
        else:
            commands = operation.advance(vm, now, vm.has_agent(now, self.state.settings.stale_seconds))
        if operation.outcome is not Outcome.UNDER_WAY:
            conclude(vm, operation, self.state, now)
        self.state.dirty.add(vm.config.uuid)
        return commands

    def _grant(self, dirty: list[Vm], now: float) -> list[Command]:
        """One round over those that something happened to, or that do not have what they should have."""
        state, budget = self.state, self._budget
        calm = state.emergency.cause is None and not state.in_no_book()
        grantable = budget.headroom_bytes if calm else min(0, budget.headroom_bytes)
        per_weight = budget.budget_bytes / max(1, budget.accounts.weights)
        purse = Purse(
            state,
            budget.accounts.of,
            grantable,
            budget.scarce,
            now,
            per_weight,
            budget.givers,
            budget.lack.lasts,
            budget.starved,
            budget.goals,
        )
        concerned = budget.too_far | self._unsettled | {vm.config.uuid for vm in dirty}
        GrantRound(purse).run([vm for uuid, vm in state.vms.items() if uuid in concerned])
        budget.dimms_wanted.note(purse.dimms_wanted, now)
        decisions = purse.decisions
        self.decisions.update(decisions)
        self._unsettled -= decisions.keys()
        self._unsettled.update(uuid for uuid, made in decisions.items() if made.action is not HOLD)
        for uuid, cost in purse.costs.items():
            budget.accounts.charge(uuid, self.charges[uuid] + cost)
        # What they ask for follows in the next step.
        state.dirty.update(command.vm for command in purse.commands)
        return purse.commands

    def _keep_pace(self, dirty: list[Vm], now: float) -> list[Command]:
        """How often these VMs are looked at from now on, where that changes."""
        commands: list[Command] = []

        def look_as_often_as_due(vm: Vm) -> None:
            if (another := pace(vm, self.state, now)) is not None:
                commands.append(another)

        self.state.each_apart(dirty, now, look_as_often_as_due)
        return commands

    def _keep_books(self, now: float) -> None:
        self._budget.look_again(self.ledger)
        covered = self.headroom_bytes + still_bytes(self.state, now)
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
