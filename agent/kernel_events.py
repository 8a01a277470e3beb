"""What the guest's kernel tells by itself: that memory stalls, and what befalls its memory blocks.

The former by a PSI trigger, the latter by uevents; both are for poll(). A kernel without them is sampled:
its figures twice a second, its blocks at each heartbeat.
"""

from __future__ import annotations

import os
import select

from agent.system import Log, open_psi_trigger
from agent.uevents import UeventSocket, memory_block_number


class KernelEvents:
    """The two sources, as far as this kernel has them; neither, where `opened` is false."""

    def __init__(self, root: str, log: Log, *, has_psi: bool, opened: bool = True) -> None:
        self._log = log
        self.psi_fd: int | None = None
        self.uevents: UeventSocket | None = None
        self.tells_of_blocks = False
        """Uevents of blocks have come: in some namespaces the socket opens and stays silent."""
        if not opened:
            return
        try:
            self.psi_fd = open_psi_trigger(root)
        except OSError as error:
            how = "sampling twice a second" if has_psi else "no PSI figures; boot with psi=1"
            log(5, "psi", f"no PSI events ({error.strerror}): {how}")
        try:
            self.uevents = UeventSocket()
        except OSError as error:
            log(4, "uevents", f"none ({error.strerror}): memory blocks are read again at each heartbeat")

    @property
    def uevents_fd(self) -> int | None:
        """Readable when uevents wait."""
        return None if self.uevents is None else self.uevents.fileno()

    def stalls(self, events: int) -> bool:
        """Whether memory stalls, by what poll() says of the trigger. One that is gone is closed."""
        # Of a trigger that is gone the kernel says POLLPRI as well [kernel/sched/psi.c, psi_trigger_poll()].
        if not events & (select.POLLERR | select.POLLNVAL):
            return True
        self._close_trigger()
        self._log(4, "psi", "the kernel took the PSI trigger away: sampling twice a second")
        return False

    def of_blocks(self) -> tuple[dict[int, str], bool]:
        """The last action of each memory block of which uevents wait, and whether some of these were lost."""
        if self.uevents is None:
            return {}, False
        found, lost = self.uevents.read()
        numbers = map(memory_block_number, found)
        actions = {number: one.action for number, one in zip(numbers, found) if number is not None}
        if actions or lost:
            self.tells_of_blocks = True
        return actions, lost

    def close(self) -> None:
        """Close both."""
        self._close_trigger()
        if self.uevents is not None:
            self.uevents.close()

    def _close_trigger(self) -> None:
        if self.psi_fd is not None:
            os.close(self.psi_fd)
            self.psi_fd = None
