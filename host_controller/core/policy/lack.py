"""Whether somebody has less than it needs for long, while others have a little more than they should.

A large VM's dead band can be all that a smaller one lacks. What this one is given it uses at once, and then
lacks as much again: so a moment in which nobody lacks anything ends nothing.
"""

import math
from dataclasses import dataclass
from typing import Final

PATIENCE_SECONDS: Final = 3.0
"""What is on its way already comes within that, and noise is over."""
FORGOTTEN_SECONDS: Final = 2.5


@dataclass(slots=True)
class Lack:
    """How long somebody on this host has lacked what the balance gives him."""

    lasts: bool = False
    """Somebody lacks what it needs, and has for long: no difference is too small to be given."""
    _since: float = math.inf
    _seen_at: float = -math.inf

    def look(self, lacks: bool, now: float) -> None:
        """lacks: the balance gives somebody what it needs, and that is not free."""
        if lacks:
            if now - self._seen_at > FORGOTTEN_SECONDS:
                self._since = now
            self._seen_at = now
        self.lasts = lacks and now - self._since >= PATIENCE_SECONDS
