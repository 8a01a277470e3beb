"""What blocks, beside the loop: one thread that does one thing after another. And what may never end, for
those who have no loop.

`asyncio.to_thread` has few threads, which are everybody's: whoever asks for much there holds up all others.
And the process's end waits for what they do.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


_Work = queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class Beside:
    """One thread, called `name`. It begins with the first call, and keeps no process from ending."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: _Work | None = None
        """Of the thread, as long as there is one."""

    async def call(self, function: Callable[[], T]) -> T:
        """What the function returns or raises, after all that was called before. Whoever is cancelled before
        its turn is left out.
        """
        if self._work is None:
            work: _Work = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(work,), name=self._name, daemon=True).start()
            self._work = work
        outcome: Future[T] = Future()
        self._work.put((outcome, function))
        return await asyncio.wrap_future(outcome)

    def close(self) -> None:
        """End the thread, after what was called before."""
        if self._work is not None:
            self._work.put(None)
            self._work = None


def within(seconds: float, function: Callable[[], T], name: str) -> T:
    """What the function returns or raises, in a thread of that name: not even Ctrl-C gets through to whoever
    waits in a library that waits without end.

    Raises:
        TimeoutError: it goes on, and nobody waits for it any more.
    """
    return begun(function, name).result(seconds)


def begun(function: Callable[[], T], name: str) -> Future[T]:
    """What the function will have returned or raised, in a thread of that name. It keeps no process from
    ending.
    """
    outcome: Future[T] = Future()
    threading.Thread(target=_do, args=(outcome, function), name=name, daemon=True).start()
    return outcome


def _serve(work: _Work) -> None:
    while (one := work.get()) is not None:
        _do(*one)
        del one  # what it holds is large, and the next one may be hours away


def _do(outcome: Future[T], function: Callable[[], T]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        outcome.set_result(function())
    except BaseException as error:  # noqa: BLE001 # it is the caller's
        outcome.set_exception(error)
