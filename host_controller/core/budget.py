"""The host's memory laid out: what each VM that can be moved is to have, and what is not free for it yet."""

from collections.abc import Mapping

from host_controller.core.accounts import Accounts
from host_controller.core.books.ledger import Ledger
from host_controller.core.policy import plan
from host_controller.core.policy.balance import balance
from host_controller.core.policy.givers import BEYOND_BYTES, LEAST_PARTS, Candidate, DimmsWanted
from host_controller.core.policy.lack import Lack
from host_controller.core.policy.ready import Ready, budget_bytes
from host_controller.core.state import State
from host_controller.core.vm.balloon import PAGE_BYTES


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
        self.starved = False
        """Somebody stalls that is to have more."""
        self.too_far: set[str] = set()
        """VMs whose goal has moved away from what they have."""
        self.dimms_wanted = DimmsWanted()
        self.givers: frozenset[str] = frozenset()
        """Who gives what is within its dead band for that."""
        self._ready = Ready()
        self._balanced: tuple[int, int, dict[str, int]] = (-1, -1, {})
        """The budget that was last laid out, the number of changes of claims until then, and whole DIMMs."""

    @property
    def scarce(self) -> bool:
        """Somebody waits for memory that is not free yet."""
        return self.waiting_bytes > 0 or self.headroom_bytes < 0

    def allot(self, state: State, now: float) -> None:
        """Lay out the budget: goals for every VM that can be moved, and how much is not free yet."""
        dimms = self._dimms(now) if self.dimms_wanted and state.emergency.cause is None else {}
        self._measure(state, dimms, now)
        self._share_out(dimms)
        self.look_again(state.ledger)
        self._compare(state, now)

    def _measure(self, state: State, dimms: Mapping[str, int], now: float) -> None:
        """How much there is to be shared out, and how much of it is kept ready."""
        settings, ledger, accounts = state.settings, state.ledger, self.accounts
        capacity = ledger.capacity()
        self._ready.observe(accounts.growth_bytes, now)
        promised = ledger.reserved() + ledger.wanted() + accounts.owed_bytes
        all_there_is = max(0, capacity - promised - accounts.fixed_bytes)
        asked = accounts.needed_bytes + accounts.peaks_bytes
        if dimms:
            asked += sum(size - accounts.claims[uuid].need for uuid, size in dimms.items())
            all_there_is = max(0, all_there_is - BEYOND_BYTES)
        self.ready_bytes = self._ready.keep_bytes(capacity, settings.keep_ready_bytes)
        if settings.keep_ready_bytes is None:
            # Bursts and buffers share what the needs and their noise leave.
            self.ready_bytes = min(self.ready_bytes, max(0, all_there_is - asked) // 2)
        self.budget_bytes = budget_bytes(all_there_is, accounts.next_dimm_bytes + self.ready_bytes, asked)
        if state.emergency.cause is not None:
            self.budget_bytes = min(self.budget_bytes, accounts.needed_bytes)
        if ledger.overdraft_lasts(now):
            # Each may be left with a part of a page that no balloon takes, and together that is an overdraft.
            self.budget_bytes = max(0, self.budget_bytes - PAGE_BYTES * len(accounts.claims))

    def _share_out(self, dimms: dict[str, int]) -> None:
        """The goals, where anything that they depend on has changed."""
        claims = self.accounts.claims
        laid_out = self.budget_bytes, self.accounts.changes, dimms
        if self._balanced == laid_out:
            return
        if dimms:
            claims = {uuid: plan.needs_at_least(one, dimms.get(uuid, 0)) for uuid, one in claims.items()}
        shares = balance(claims.values(), self.budget_bytes)
        self.goals = dict(zip(claims, shares, strict=True))
        self._balanced = laid_out

    def _compare(self, state: State, now: float) -> None:
        """The goals with what everybody has: who waits, who lacks, and who is to give."""
        accounts, ledger = self.accounts, state.ledger
        away, free = accounts.away_from(self.goals, ledger.overdraft_lasts(now)), max(0, self.headroom_bytes)
        self.waiting_bytes = max(0, ledger.wanted() + away.missing - free)
        self.lack.look(away.lacking > free, now)
        self.starved = any(
            accounts.of[uuid].stalls and self.goals[uuid] > accounts.of[uuid].granted_bytes
            for uuid in away.far
        )
        self.givers = self._givers(state, now) if self.dimms_wanted else frozenset()
        near = (*away.near, *away.little) if self.lack.lasts else away.near
        self.too_far = {*away.far, *(near if self.scarce else ()), *self.givers}

    def _dimms(self, now: float) -> dict[str, int]:
        """Who has lacked for long what only a whole DIMM gives it, and what it needs with that, by UUID."""
        accounts = self.accounts
        found = {}
        for uuid, size in self.dimms_wanted.lasting(now).items():
            claims = accounts.claims.get(uuid)
            if claims is None:
                continue
            granted = accounts.of[uuid].granted_bytes
            if granted < claims.need < granted + size and size <= granted // LEAST_PARTS:
                found[uuid] = granted + size
        return found

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
