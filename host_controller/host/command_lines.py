"""The command lines of processes, which may keep whoever reads them waiting for ever
(fact: command-lines-may-hang).

So they are read in a thread of their own. One that does not come back is left behind, and its process has no
command line for as long: it is one process's trouble, and not that of the whole host.
"""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from host_controller.host import proc
from host_controller.host.proc import PROC

STUCK_SECONDS: Final = 1.0
"""A command line takes 20 µs. On a busy machine a thread may have to wait for its turn."""
CALL_SECONDS: Final = 3.0
"""For all of a call: what is not read by then is read the next time."""


class CommandLines:
    """Reads them. For one thread at a time."""

    def __init__(self, root: Path = PROC) -> None:
        self._proc = root
        self._left_behind: dict[int, _Reading] = {}

    def read(self, pids: Iterable[int]) -> dict[int, list[bytes]]:
        """Those that can be read now; an empty one of a kernel thread and of a process that is gone."""
        self._left_behind = {pid: one for pid, one in self._left_behind.items() if one.thread.is_alive()}
        left = [pid for pid in pids if pid not in self._left_behind]
        found: dict[int, list[bytes]] = {}
        end = time.monotonic() + CALL_SECONDS
        while left and time.monotonic() < end:
            reading = _Reading(left, self._proc)
            reading.wait()
            read = reading.found.copy()
            found.update(read)
            if len(read) < len(left):
                self._left_behind[left[len(read)]] = reading
            left = left[len(read) + 1 :]
        return found


class _Reading:
    """One thread's work: these processes, in this order."""

    def __init__(self, pids: list[int], root: Path) -> None:
        self._pids = pids
        self._proc = root
        self._given_up = False
        self.found: dict[int, list[bytes]] = {}
        # A daemon: it must not keep us from ending.
        self.thread = threading.Thread(target=self._work, name="command lines", daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Until it comes to its end, or stands still for STUCK_SECONDS: then it adds nothing any more."""
        before = -1
        while self.thread.is_alive() and len(self.found) > before:
            before = len(self.found)
            self.thread.join(STUCK_SECONDS)
        self._given_up = True

    def _work(self) -> None:
        for pid in self._pids:
            words = proc.arguments(pid, self._proc)
            if self._given_up:
                return
            self.found[pid] = words
