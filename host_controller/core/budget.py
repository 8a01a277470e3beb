"""The host's memory laid out: what each VM that can be moved is to have, and what is not free for it yet."""

from host_controller.core.accounts import Accounts
from host_controller.core.books.ledger import Ledger
from host_controller.core.policy.balance import balance
from host_controller.core.policy.givers import Candidate, DimmsWanted
from host_controller.core.policy.lack import Lack
from host_controller.core.policy.ready import Ready, budget_bytes
from host_controller.core.policy.spare import PAGE_BYTES
from host_controller.core.state import State


class Budget:
    """What all VMs of the host may have together, and what each is to have of it. Sizes are bytes."""

    def __init__(self, capacity_bytes: int) -> None:
        self.accounts = Accounts()
        self.goals: dict[str, int] = {}
        """By UUID."""
        self.budget_bytes = 0
        self.headroom_bytes = capacity_bytes
        """What may still be granted; negative in an overdraft."""
        self.ready_bytes = 0
        """Kept free for bursts, out of the budget."""
        self.waiting_bytes = 0
        """Growth that the balance grants and that is not free yet."""
        self.lack = Lack()
        self.too_far: set[str] = set()
        """VMs whose goal has moved away from what they have."""
        self.dimms_wanted = DimmsWanted()
        self.givers: frozenset[str] = frozenset()
        """Who gives what is within its dead band for that."""
        self._ready = Ready()
        self._balanced = (-1, -1)
        """The budget that was last laid out, and the number of changes of claims until then."""

    @property
    def scarce(self) -> bool:
        """Somebody waits for memory that is not free yet."""
        return self.waiting_bytes > 0 or self.headroom_bytes < 0

    def allot(self, state: State, now: float) -> None:
        """Lay out the budget: goals for every VM that can be moved, and how much is not free yet."""
        settings, ledger, accounts = state.settings, state.ledger, self.accounts
        capacity = ledger.capacity()
        self._ready.observe(accounts.growth_bytes, now)
        promised = ledger.reserved() + ledger.wanted() + accounts.owed_bytes
        all_there_is = max(0, capacity - promised - accounts.fixed_bytes)
        needed = accounts.needed_bytes
        noisy = needed + accounts.peaks_bytes
        self.ready_bytes = self._ready.keep_bytes(capacity, settings.keep_ready_bytes)
        if settings.keep_ready_bytes is None:
            # Bursts and buffers share what the needs and their noise leave.
            self.ready_bytes = min(self.ready_bytes, max(0, all_there_is - noisy) // 2)
        kept = accounts.next_dimm_bytes + self.ready_bytes
        self.budget_bytes = budget_bytes(all_there_is, kept, noisy)
        if state.emergency.cause is not None:
            self.budget_bytes = min(self.budget_bytes, needed)
        if ledger.overdraft_lasts(now):
            # Each may be left with a part of a page that no balloon takes, and together that is an overdraft.
            self.budget_bytes = max(0, self.budget_bytes - PAGE_BYTES * len(accounts.claims))
        if self._balanced != (self.budget_bytes, accounts.changes):
            shares = balance(accounts.claims.values(), self.budget_bytes)
            self.goals = dict(zip(accounts.claims, shares, strict=True))
            self._balanced = (self.budget_bytes, accounts.changes)
        self.look_again(ledger)
        away, free = accounts.away_from(self.goals, ledger.overdraft_lasts(now)), max(0, self.headroom_bytes)
        self.waiting_bytes = max(0, ledger.wanted() + away.missing - free)
        self.lack.look(away.lacking > free, now)
        self.givers = self._givers(state, now) if self.dimms_wanted else frozenset()
        near = (*away.near, *away.little) if self.lack.lasts else away.near
        self.too_far = {*away.far, *(near if self.scarce else ()), *self.givers}

    def _givers(self, state: State, now: float) -> frozenset[str]:
        accounts = self.accounts.of
        movable = [
            Candidate(state.vms[uuid], accounts[uuid].guest_charge, accounts[uuid].granted_bytes, goal)
            for uuid, goal in self.goals.items()
            if uuid not in state.operations
        ]
        return self.dimms_wanted.givers(movable, self.headroom_bytes, now)

    def look_again(self, ledger: Ledger) -> None:
        """What is left beside the charges, and what is held for VMs that boot.

        What is held is no charge: as far as it is not there, that is no overdraft.
        """
        accounts = self.accounts
        left = ledger.headroom(accounts.charged_bytes)
        self.headroom_bytes = left - min(max(0, left), accounts.owed_bytes)

    def forget(self, uuid: str) -> None:
        """The VM is gone, if it ever was there."""
        self.accounts.close(uuid)
        self.goals.pop(uuid, None)
