"""How many calls libvirtd may have of ours at once, over all connections."""

import asyncio
from contextlib import suppress
from typing import Final

WORKERS: Final = 4
"""Calls at once that are safe from the beginning: libvirtd begins with five workers."""


class Gate:
    """Keeps libvirtd's worker threads from running out behind our calls; all lanes share it.

    Libvirtd (9.0 and its neighbours) begins with five workers for all its clients and adds one when a job
    comes while all are busy, up to 20, but no more once two jobs have come so close together that the first
    was not picked up yet: it compares `freeWorkers - jobQueueDepth <= 0` in unsigned arithmetic. With five
    hung VMs that freezes the daemon for everybody. So: up to `workers` calls at once, that is four, or as
    many as were seen to be served at the same time; beyond that calls begin SPACING_SECONDS apart. And never
    more than MOST, so that others can still reach the daemon.
    """

    SPACING_SECONDS: Final = 0.025
    MOST: Final = 15

    def __init__(self) -> None:
        self.in_flight = 0
        self.late = 0
        self._workers = WORKERS
        self._last_start = 0.0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def enter(self) -> None:
        """Wait until one more call may begin, in order of arrival."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            while self.in_flight >= self._workers:
                wait = self._last_start + self.SPACING_SECONDS - loop.time()
                if wait <= 0 and self.in_flight < self.MOST:
                    break
                self._freed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait if wait > 0 else None):
                        await self._freed.wait()
            self.in_flight += 1
            self._last_start = loop.time()

    def leave(self, *, served: bool) -> None:
        """A call has come back; `served`: well, and within its limit."""
        self.in_flight -= 1
        if served:
            # The late ones had a worker each, and this one had another.
            self._workers = max(self._workers, self.late + 1)
        self._freed.set()
