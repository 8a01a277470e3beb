"""Takes memory blocks offline in a short-lived forked child, and ends it once nothing goes any more.

The kernel migrates pages for as long as it takes, holds a global lock, and only a signal ends it
[mm/memory_hotplug.c, offline_pages()]. A thread could not be interrupted; a child can, and an alarm ends it
even if we die. A fork costs a few hundred KiB while it lasts. While pages move it is left alone: a guest that
gets little processor time is slow, not stuck.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from agent.blocks import MemoryBlocks
from agent.lean import NoReturn

# So many looks in a row at which no page and no block had gone since the one before: the rest is pinned.
MOST_IDLE_LOOKS = 10
# Nobody looks if we have died. A host waits for 30 s, and then asks for the range back.
ALARM_SECONDS_PER_BLOCK = 60
# The end of the child is an event, but for a kernel without pidfd.
LOOK_SECONDS = 1.0


class Offlining:
    """A child at work. Raises OSError where there is no memory for one."""

    def __init__(
        self, blocks: MemoryBlocks, numbers: list[int], moved_pages: Callable[[], int], now: float
    ) -> None:
        """moved_pages: how many pages the kernel has moved to another place since it booted."""
        self.numbers = numbers
        self._blocks = blocks
        self._moved_pages = moved_pages
        self._ended_for = ""  # why we ended it
        self._idle_looks = 0
        self._look_at, self._seen = now + LOOK_SECONDS, self._progress()
        self._pid = os.fork()
        if self._pid == 0:
            _offline_and_exit(blocks, numbers)
        self.fd = _pidfd(self._pid)  # readable when the child has ended, for poll()

    def look(self, now: float) -> None:
        """End it once nothing goes any more. Looks are counted, not seconds: a busy machine delays both."""
        if now < self._look_at or self._ended_for:
            return
        seen = self._progress()
        self._idle_looks = 0 if seen != self._seen else self._idle_looks + 1
        self._look_at, self._seen = now + LOOK_SECONDS, seen
        if self._idle_looks >= MOST_IDLE_LOOKS:
            self.end(f"no page of a memory block moved at {MOST_IDLE_LOOKS} looks")

    def end(self, why: str) -> None:
        """Kill it, once. The kernel rolls back the block that it was at."""
        if not self._ended_for:
            os.kill(self._pid, signal.SIGKILL)
            self._ended_for = why

    def reap(self) -> tuple[list[int], str | None] | None:
        """The blocks that went, and why others did not; None while the child is at work."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid == 0:
            return None
        self._let_go()
        gone = []
        for number in self.numbers:
            block = self._blocks.refresh(number)
            if block is None or not block.online:
                gone.append(number)
        return gone, self._why_not_all(status, len(gone))

    def close(self) -> None:
        """End it, and wait until it has gone."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._let_go()

    def _why_not_all(self, status: int, gone: int) -> str | None:
        if self._ended_for:
            return self._ended_for
        if os.WIFSIGNALED(status):
            return f"a memory block did not go within {ALARM_SECONDS_PER_BLOCK} s"
        if gone == len(self.numbers):
            return None
        code = os.WEXITSTATUS(status)
        return os.strerror(code) if code else "the rest is still online"

    def _progress(self) -> tuple[int, int]:
        """Differs from what it was as soon as a page or a block has gone."""
        return self._moved_pages(), self._blocks.totals().online_bytes

    def _let_go(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):  # before Linux 5.3, or a Python that was built for such kernels
        return None


def _offline_and_exit(blocks: MemoryBlocks, numbers: list[int]) -> NoReturn:
    """The child: stops at the first refusal, since half a DIMM cannot be unplugged. Exits with errno."""
    code = 0
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in numbers:
            signal.alarm(ALARM_SECONDS_PER_BLOCK)
            blocks.write_state(number, "offline")
    except OSError as error:
        code = error.errno or 1
    finally:  # whatever happened, the child must not return into the daemon's loop
        os._exit(code)
