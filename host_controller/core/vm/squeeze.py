"""How a guest is brought below what it uses, into swap of its own: late, slowly, and slower where it hurts.

It happens only where memory is short and another VM's weight says so. What is gone to swap comes back at the
price of reading it, so a shortage that passes by itself squeezes nobody.
"""

import math
from dataclasses import dataclass
from typing import Final

from host_controller.core.vm.stalls import STALL_THRESHOLD

PATIENCE_SECONDS: Final = 3.0
"""A shortage must last so long."""
FORGOTTEN_SECONDS: Final = 2.5
"""Nobody has asked for it for so long: the shortage is over."""
STEP_SECONDS: Final = 1.0
"""From one step to the next: the guest says in between how it bears it."""
STEP_SHARE: Final = 32
"""Of what it has: the largest step."""
HARD_SHARE: Final = 0.40
"""Of the time in which some task waits for memory: from here on steps are the smallest."""
LEAST_PACE: Final = 0.25


@dataclass(slots=True)
class Squeeze:
    """When one VM may be sent below what it works with: for how long others have asked, and its last step."""

    _since: float = math.inf
    _asked_at: float = -math.inf
    _stepped_at: float = -math.inf

    def ask(self, now: float) -> bool:
        """Others need what it uses; whether a step may be taken now."""
        if now - self._asked_at > FORGOTTEN_SECONDS:
            self._since = now
        self._asked_at = now
        return now - self._since >= PATIENCE_SECONDS and now - self._stepped_at >= STEP_SECONDS

    def step(self, now: float) -> None:
        """Take note that a step is taken now."""
        self._stepped_at = now


def step_bytes(usable_bytes: int, stall_share: float | None) -> int:
    """The next step of a guest that waits for memory in such a share of its time; None: nobody can tell.

    A guest that cannot put away what it was told to is not asked for more: its balloon has not followed then.
    """
    return int(usable_bytes // STEP_SHARE * _pace(stall_share))


def _pace(stall_share: float | None) -> float:
    if stall_share is None:
        return LEAST_PACE
    hurt = (stall_share - STALL_THRESHOLD) / (HARD_SHARE - STALL_THRESHOLD)
    return max(LEAST_PACE, min(1.0, 1.0 - hurt * (1.0 - LEAST_PACE)))
