"""Waiting for conditions, with a limit, and saying what was seen, or what was missing, when it passes."""

import time
from collections.abc import Callable


def until(
    condition: Callable[[], object], saw: Callable[[], object] | str, limit_seconds: float = 60.0
) -> None:
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline, (
            f"not within {limit_seconds:g} s: {saw if isinstance(saw, str) else saw()}"
        )
        time.sleep(0.002)
