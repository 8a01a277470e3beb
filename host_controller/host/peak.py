"""A figure that rises at once and falls slowly: one sample does not become a lasting setting. Pure."""

from collections import deque
from typing import Final

FADE_SECONDS: Final = 600.0


class FadingPeak:
    """The most that was seen, each sight fading in a straight line to the present within `fade_seconds`.

    So a rise counts at once and a fall over ten minutes, and what comes and goes within that time is kept
    room for. What it says depends on nothing but the samples and `now`.
    """

    def __init__(self, fade_seconds: float = FADE_SECONDS) -> None:
        self._fade_seconds = fade_seconds
        self._seen: deque[tuple[float, int]] = deque()
        """Each smaller than the one before: what was lower and earlier decides nothing."""

    def observe(self, value: int, now: float) -> int:
        """Take in a sample; the figure that follows from all of them, never below this one."""
        seen = self._seen
        while seen and seen[-1][1] <= value:
            seen.pop()
        seen.append((now, value))
        while now - seen[0][0] >= self._fade_seconds:
            seen.popleft()
        return max(value + round((old - value) * (1 - (now - at) / self._fade_seconds)) for at, old in seen)
