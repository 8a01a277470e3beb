"""Long answers in short turns: whoever works in the control loop gives way after a moment.

By processor time and not by count: on a busy host every turn given up costs the answer a whole step of the
controller, so there should be few of them, and each should be short on a slow host too.
"""

import time
from typing import Final

TURN_SECONDS: Final = 0.004


class Turn:
    """Somebody's turn in the loop; begins when it is made."""

    __slots__ = ("_begun", "_look_at")

    def __init__(self) -> None:
        self._begun = self._look_at = 0.0
        self._begin(time.thread_time())

    def over(self) -> bool:
        """Whether it is time to give way; the next turn begins then."""
        # The processor's clock costs a system call, so it is looked at only when it may have run that far.
        if time.perf_counter() < self._look_at:
            return False
        now = time.thread_time()
        left = self._begun + TURN_SECONDS - now
        if left > 0:
            self._look_at = time.perf_counter() + left
            return False
        self._begin(now)
        return True

    def _begin(self, now: float) -> None:
        self._begun = now
        self._look_at = time.perf_counter() + TURN_SECONDS
