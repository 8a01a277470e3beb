"""What is to be done later, by kind: setting a timer of the same kind again moves it."""

import asyncio
from collections.abc import Callable


class Timers:
    """The timers of one owner, in the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def set(self, kind: str, seconds: float, function: Callable[[], None]) -> None:
        """Call `function` after so many seconds, and not what was set for this kind before."""
        old = self._handles.pop(kind, None)
        if old is not None:
            old.cancel()
        self._handles[kind] = self._loop.call_later(seconds, function)

    def cancel(self) -> None:
        """Forget all of them."""
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
