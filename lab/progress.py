"""Progress of something slow: a live line on a terminal, one plain line per step elsewhere."""

import sys
import time
from typing import Self

from rich.console import Console
from rich.status import Status


class Progress:
    """Shows the current step and the seconds since the start. Use as a context manager."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._started = time.monotonic()
        self._status: Status | None = None
        if sys.stderr.isatty():
            self._status = Console(stderr=True).status(title)

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, what: str) -> None:
        """Say what is being done now."""
        seconds = time.monotonic() - self._started
        line = f"{self._title} [{seconds:4.0f} s] {what}"
        if self._status is not None:
            self._status.update(line)
        else:
            print(line, file=sys.stderr, flush=True)
