"""What a guest's stalls (PSI) are evidence of: that more memory may help. Never that it is needed.

A raise asks for a little more than demand, before anybody's buffer and after everybody's need. It ends when
the stall ends, and at once when memory that was given did not relieve it. As part of the need, raises
outlived the stalls that they answered, and kept the memory that others were stalling for.
"""

import math
from dataclasses import dataclass
from typing import Final

from host_controller.core.model import GuestFacts
from host_controller.core.vm.motion import blend

STALL_THRESHOLD: Final = 0.10
"""Share of time in which some task waits for memory."""
STALL_STEP: Final = 0.05
"""One raise, as a share of demand; at most one a second."""
STALL_LIMIT: Final = 0.25
STALL_HALF_LIFE: Final = 5.0
STALL_PATIENCE: Final = 3
"""Raises without relief after which there are no more for a while."""
STALL_REST: Final = 60.0


@dataclass(slots=True)
class Stalls:
    """What one guest's PSI tells, and how much it is raised for that."""

    share: float | None = None
    """Of the time of the last second or so in which some task waited for memory; None without PSI."""
    raise_bytes: float = 0.0
    _raised_at: float = -math.inf
    _in_vain: int = 0
    _share_when_raised: float = 0.0
    _usable_when_raised: int = 0

    @property
    def now(self) -> bool:
        """It has been waiting for memory."""
        return self.share is not None and self.share >= STALL_THRESHOLD

    def follow(self, last: GuestFacts, facts: GuestFacts, seconds: float, *, relievable: bool) -> None:
        """Take in a reading, `seconds` (> 0) after the last one.

        relievable: something else than PSI says that the guest itself is short of memory.
        """
        if facts.stall_us is None:
            self.share, self.raise_bytes = None, 0.0  # nobody can tell any more
            return
        if last.stall_us is None:
            return
        share = min(1.0, max(0, facts.stall_us - last.stall_us) / (seconds * 1e6))
        self.share = blend(self.share or 0.0, share, seconds, 1.0)
        self.raise_bytes *= 0.5 ** (seconds / STALL_HALF_LIFE)
        if not self.now:
            self._in_vain = self._usable_when_raised = 0
        elif relievable and facts.at - self._raised_at >= self._pause:
            self._raise(facts)

    @property
    def _pause(self) -> float:
        return STALL_REST if self._in_vain >= STALL_PATIENCE else 1.0

    def _raise(self, facts: GuestFacts) -> None:
        assert self.share is not None
        granted = 0 < self._usable_when_raised < facts.usable_bytes
        relieved = self.share < 0.8 * self._share_when_raised
        rested = self._in_vain >= STALL_PATIENCE
        self._in_vain = self._in_vain + 1 if granted and not (relieved or rested) else 0
        self._raised_at = facts.at
        self._share_when_raised, self._usable_when_raised = self.share, facts.usable_bytes
        if self._in_vain >= STALL_PATIENCE:
            self.raise_bytes = 0.0
            return
        step = facts.demand_bytes * STALL_STEP
        self.raise_bytes = min(self.raise_bytes + step, facts.demand_bytes * STALL_LIMIT)
