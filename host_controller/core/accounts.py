"""What every VM costs and asks for, and the sums of it, kept up to date one VM at a time.

A step of the engine deals with the few VMs that something happened to, while the budget depends on all. So
each VM has an account, and a changed account corrects the sums by its difference: exact, since all of it is
whole bytes.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from host_controller.core.policy.balance import Claims
from host_controller.core.policy.dead_band import SMALLEST_DEAD_BAND, grow_dead_band, shrink_dead_band


class Account(NamedTuple):
    """What one VM costs and asks for. All figures are bytes."""

    guest_charge: int
    """The part of its charge that a balloon target can raise."""
    fixed: int
    """What it takes of the budget beside its goal; all that it costs while it cannot be moved."""
    growth: int
    """How much its demand grows in a second."""
    next_dimm: int
    """What its next DIMM would cost, while it is near the end of its RAM."""
    granted_bytes: int
    """Usable memory that it has been given."""
    claims: Claims | None
    """What it asks of the balance; None while it cannot be moved."""
    owed: int = 0
    """What is held for it, and is not charged yet."""
    peaks: int = 0
    """How far above its need its noise goes, as far as it claims that."""
    stalls: bool = False
    """It has been waiting for memory."""


_NOTHING: Final = Account(0, 0, 0, 0, 0, None)
_NO_CLAIMS: Final = Claims(0, 0, 0, 0, 0, 0, 0)


class Away(NamedTuple):
    """How far VMs are from their goals."""

    missing: int
    """From all goals, bytes."""
    lacking: int
    """Of that: from what VMs need, where that is worth a command and nobody has too much by far."""
    far: list[str]
    """Who has too much or too little."""
    near: list[str]
    """Who has a little too much: within the dead band of a shrinking that nobody needs."""
    little: list[str]
    """And within that of one that somebody needs."""


class Accounts:
    """Every VM's account, by UUID."""

    def __init__(self) -> None:
        self.of: dict[str, Account] = {}
        self.charges: dict[str, int] = {}
        """The most that each VM may cost the host."""
        self.claims: dict[str, Claims] = {}
        """Of the VMs that can be moved."""
        self.charged_bytes = 0
        self.fixed_bytes = 0
        self.owed_bytes = 0
        self.growth_bytes = 0
        self.needed_bytes = 0
        self.peaks_bytes = 0
        self.weights = 0
        """The sum of what can be moved."""
        self.changes = 0
        """Counts changes of claims: as long as it stands still, so does the balance of one budget."""
        self._next_dimms: dict[str, int] = {}

    @property
    def next_dimm_bytes(self) -> int:
        """The largest DIMM that somebody may want next: it is paid at full size."""
        return max(self._next_dimms.values(), default=0)

    def charge(self, vm: str, charge_bytes: int) -> None:
        """What a VM costs now."""
        self.charged_bytes += charge_bytes - self.charges.get(vm, 0)
        self.charges[vm] = charge_bytes

    def enter(self, vm: str, new: Account) -> None:
        """Replace a VM's account, or open one."""
        old = self.of.get(vm, _NOTHING)
        self.of[vm] = new
        self.fixed_bytes += new.fixed - old.fixed
        self.owed_bytes += new.owed - old.owed
        self.peaks_bytes += new.peaks - old.peaks
        self.growth_bytes += new.growth - old.growth
        if new.next_dimm:
            self._next_dimms[vm] = new.next_dimm
        elif old.next_dimm:
            del self._next_dimms[vm]
        if new.claims != old.claims:
            self._claim(vm, old.claims, new.claims)

    def close(self, vm: str) -> None:
        """The VM is gone, if it ever was there."""
        self.charge(vm, 0)
        self.enter(vm, _NOTHING)
        del self.of[vm], self.charges[vm]

    def away_from(self, goals: Mapping[str, int], every_byte: bool = False) -> Away:
        """How far what VMs were given is from these goals. every_byte: whoever has too much has it by far."""
        missing = lacking = 0
        gives = False
        far: list[str] = []
        near: list[str] = []
        little: list[str] = []
        accounts = self.of
        least = 0 if every_byte else -SMALLEST_DEAD_BAND
        for vm, goal in goals.items():
            account = accounts[vm]
            more = goal - account.granted_bytes
            if more > 0:
                missing += more
            if least <= more <= SMALLEST_DEAD_BAND:
                continue  # most of them
            granted, claims = goal - more, account.claims
            bearable = 0 if every_byte else shrink_dead_band(granted)
            if more > grow_dead_band(granted):
                far.append(vm)
                if claims is not None and claims.need > granted:
                    lacking += min(more, claims.need - granted)
            elif more > 0:
                continue
            elif -more > grow_dead_band(granted):
                (far if -more > bearable else near).append(vm)
                gives = gives or claims is None or granted - claims.irreducible > grow_dead_band(granted)
            else:
                (far if -more > bearable else little).append(vm)
        return Away(missing, 0 if gives else lacking, far, near, little)

    def _claim(self, vm: str, old: Claims | None, new: Claims | None) -> None:
        had, has = old or _NO_CLAIMS, new or _NO_CLAIMS
        self.changes += 1
        self.needed_bytes += has.need - had.need
        self.weights += has.weight - had.weight
        if new is None:
            del self.claims[vm]
        else:
            self.claims[vm] = new
