"""Who runs, told of or not: of a controller that has just started, until libvirt has told of everybody."""

import asyncio
from collections.abc import Callable
from typing import Final

from host_controller.core.interface import Inbox, VmsAwaited
from host_controller.hypervisor.host_sampler import HostSampler

LOOK_SECONDS: Final = 0.5
FILES_SECONDS: Final = 5.0
"""For reading them. A process that hangs holds that up for three."""


class Awaiting:
    """Asks libvirt's own pid files, which are there also while libvirt answers nobody.

    host: None for another machine's libvirt, whose files cannot be looked at from here.
    """

    def __init__(self, host: HostSampler | None, emit: Inbox) -> None:
        self._host = host
        self._emit = emit
        self._said: tuple[str, ...] | None = None
        self.over = False
        """Libvirt has told of everybody, once. Since then its events do."""

    async def run(self, told: Callable[[], bool]) -> None:
        """Tell who runs until libvirt has `told` of everybody."""
        while not told():
            running = await self.running()
            if running is not None:
                self._say(tuple(sorted(running)))
            await asyncio.sleep(LOOK_SECONDS)
        self.over = True
        self._say(())

    async def running(self) -> dict[str, str | None] | None:
        """As `Identity.running`. None also where nobody here can know, or does not in time."""
        if self._host is None:
            return None
        try:
            async with asyncio.timeout(FILES_SECONDS):
                return await self._host.running()
        except TimeoutError:
            return None

    def _say(self, names: tuple[str, ...]) -> None:
        if names != self._said:
            self._said = names
            self._emit(VmsAwaited(names))
