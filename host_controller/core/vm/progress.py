"""How a balloon comes along: where it was last seen to move, and what was done about one that does not."""

import math
from dataclasses import dataclass
from typing import Final

CORRECTION: Final = 5.0
"""Seconds between two corrections of a balloon that somebody else moved: who forges `actual` again and again
is found out within them, since each correction is followed by a moment of truth."""
REST: Final = 60.0
"""Seconds before an uncooperative VM is asked again, unless it moves by itself."""
FIRST_REST: Final = 5.0
"""Of one that did not take what it was to have, which its guest may lack: it doubles up to `REST`."""


@dataclass(slots=True)
class Progress:
    """Of one balloon; sizes are bytes in QEMU's terms."""

    at: float = -math.inf
    """When it last was where it should be, or moved there."""
    present_bytes: int = 0
    """Where it was then."""
    stuck_until: float = -math.inf
    """Did not follow its target; not asked again before this, unless for the other way."""
    stuck_growing: bool = False
    """Which way it did not go: it was to have more, or less."""
    growing_rest: float = FIRST_REST
    """Seconds before it is asked again when it next does not take what it was to have."""
    corrected_at: float = -math.inf
    """When, after somebody else had moved it, it was last told its target again."""

    def stands(self, present_bytes: int, now: float) -> None:
        """It is seen there, and all is well."""
        self.at, self.present_bytes = now, present_bytes

    def goes_on(self, present_bytes: int, now: float) -> None:
        """It is seen moving towards its target: an uncooperative one is forgiven."""
        self.forgive(now)
        self.at, self.present_bytes = now, present_bytes

    def forgive(self, now: float) -> None:
        """It moves, or another kernel has come with a driver that is new."""
        if now < self.stuck_until:
            self.stuck_until = now
        self.growing_rest = FIRST_REST

    def give_up(self, present_bytes: int, now: float, *, growing: bool) -> None:
        """It does not move: it is left there for a while. growing: it was to have more."""
        self.at, self.present_bytes = now, present_bytes
        rest = self.growing_rest if growing else REST
        if growing:
            self.growing_rest = min(REST, 2 * rest)
        self.stuck_until, self.stuck_growing = now + rest, growing

    def stuck(self, now: float) -> bool:
        """It did not follow its target a while ago, and is left in peace."""
        return now < self.stuck_until

    def cannot_deflate(self, now: float) -> bool:
        """It was to have more a while ago, and did not take it: more can only come beside it."""
        return self.stuck_growing and self.stuck(now)

    def correct(self, now: float) -> None:
        """It is told its target again."""
        self.corrected_at = now

    def may_correct(self, now: float) -> bool:
        """The last correction is long enough ago."""
        return now - self.corrected_at > CORRECTION
