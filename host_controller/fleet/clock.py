"""Time, as whoever waits for the engine needs it. Tests give another, in which waiting takes none."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks of this machine, and a way to wait. All in seconds."""

    now: Callable[[], float] = time.monotonic
    """For how long something takes. It says nothing to another process."""
    wall: Callable[[], float] = time.time
    """Since 1970: what is written down for others."""
    sleep: Callable[[float], None] = time.sleep


REAL: Final = Clock()
