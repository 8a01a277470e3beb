"""What goes wrong with one VM again and again: told once, and tried ever more rarely."""

from typing import Final

FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 60.0


class Trouble:
    """The failures of one VM's steps. A step is named by the caller; its failures have nothing to do with
    those of another.
    """

    def __init__(self) -> None:
        self._failures: dict[str, tuple[str, float]] = {}

    def failed(self, step: str, error: Exception) -> tuple[bool, float]:
        """Whether this is news, and how many seconds to wait before the step is tried again.

        The wait begins at FIRST_RETRY_SECONDS and doubles up to LAST_RETRY_SECONDS. Another error in the same
        step is news and does not shorten the wait: a VM whose every attempt fails differently is no better.
        """
        kind = f"{type(error).__name__}: {error}"
        told, last = self._failures.get(step, ("", FIRST_RETRY_SECONDS / 2))
        delay = min(2 * last, LAST_RETRY_SECONDS)
        self._failures[step] = (kind, delay)
        return kind != told, delay

    def over(self, step: str) -> bool:
        """The step went well. Returns whether it had failed before."""
        return self._failures.pop(step, None) is not None
