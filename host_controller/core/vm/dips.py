"""Dips of a guest that has used up all it has: noise of which nobody can see the rest.

Demand shows only as far as memory goes. Where a guest has less than its work needs, noise looks like no noise
at all, with a dip now and then that is over in a second. Whoever gives a dip away moves memory there and
back for nothing, with every other VM in between.
"""

import math
from dataclasses import dataclass
from typing import Final

HELD_SECONDS: Final = 1.5
"""Noise that is down in one second is up in the next, and is told a little later."""
OVER_SECONDS: Final = 3.0
"""A guest that was not at its end for so long has enough: how far it goes up and down shows again."""
DEEPEST_SHARE: Final = 8
"""What falls by more than an eighth is no noise, but work that has ended."""
WAVES_SECONDS: Final = 240.0
"""For so long after it the guest is taken to work in waves: what falls is given away at once."""


@dataclass(slots=True)
class Dips:
    """Of one guest's demand, bytes."""

    _from_bytes: int = 0
    """Demand when it was last at its end; 0: not lately."""
    _at_end_at: float = -math.inf
    """When that was."""
    _fell_at: float = math.inf
    """When it fell below that."""
    _deep_at: float = -math.inf
    """When it last fell by more than noise does."""

    def follow(self, demand_bytes: int, now: float, *, at_end: bool) -> int:
        """Take in demand as it is now; how much of it has just gone and is awaited back.

        at_end: the guest has next to nothing available, so that it may need more than it shows.
        """
        falls = demand_bytes < self._from_bytes
        if at_end and not (falls and self._fell_at <= now):
            self._from_bytes, self._at_end_at, self._fell_at = demand_bytes, now, math.inf
            return 0
        if not falls:
            self._fell_at = math.inf
            if now - self._at_end_at >= OVER_SECONDS:
                self._from_bytes = 0
            return 0
        self._fell_at = min(self._fell_at, now)
        down_seconds, short = now - self._fell_at, self._from_bytes - demand_bytes
        if short > self._from_bytes // DEEPEST_SHARE:
            self._deep_at = now
        if down_seconds >= OVER_SECONDS:
            self._from_bytes, self._fell_at = 0, math.inf
        waves = now - self._deep_at < WAVES_SECONDS
        return 0 if waves or down_seconds > HELD_SECONDS else short
