"""Tells what the host's memory is, again and again; and who is awaited when the controller has just started.

Whoever runs is named by libvirt's own pid files, also while libvirt answers nobody.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from enum import IntEnum
from functools import partial
from typing import Final

import structlog

from host_controller.beside import Beside
from host_controller.core.interface import HostSampled, Inbox, VmsAwaited
from host_controller.core.model import HostFacts, Unmanaged
from host_controller.domain_xml.read import DomainView
from host_controller.host.qemu_process import ResidentMeter
from host_controller.host.watch import HostWatch, VmMemory
from host_controller.hypervisor.worker import VmWorker

PERIOD_SECONDS: Final = 1.0
SOON_SECONDS: Final = 0.05
"""From libvirt's having told of everybody to the look that counts them, at most."""

log = structlog.get_logger(__name__)


class Asked(IntEnum):
    """About whom libvirt was asked: each of them that runs has its worker."""

    NOBODY = 0
    NAMED = 1
    """Those whose processes its pid files name."""
    ALL = 2


class HostSampler:
    """The host of one libvirt; without a `watch` it is another machine, of which nothing is seen."""

    def __init__(
        self,
        watch: HostWatch | None,
        workers: Mapping[str, VmWorker],
        emit: Inbox,
        period_seconds: float = PERIOD_SECONDS,
    ) -> None:
        self.asked = Asked.NOBODY
        self.meter = None if watch is None else ResidentMeter(watch.identity)
        """Reads what a VM's QEMU holds."""
        self._watch = watch
        self._workers = workers
        self._emit = emit
        self._period = period_seconds
        self._complete = False
        """Libvirt has told of every VM that runs, once. Since then its events do."""
        self._awaited: tuple[str, ...] | None = None
        """As it was said last."""
        self._denied: set[str] = set()
        """UUIDs of VMs that do not run, by libvirt's word, though its pid files name their processes."""
        self._known_vms: dict[str, VmMemory] = {}
        """Of our libvirt, as they were when all of them were last known."""
        self._others_bytes = (0, 0)
        """Of unmanaged VMs and of other QEMUs, as it was then."""
        self._unmanaged: tuple[Unmanaged, ...] = ()
        """VMs of our libvirt that nobody manages, as they were then."""
        self._trouble = ""
        self._beside = Beside("host memory")

    def close(self) -> None:
        """Look no more: `run` was cancelled."""
        self._beside.close()

    async def run(self) -> None:
        """Look, and tell, for ever."""
        while True:
            asked, settled = self.asked, self._settled()
            seen = await self._look(settled)
            if not self._complete:
                await self._tell_awaited(everybody=seen and settled and asked is Asked.ALL)
            await self._rest(asked, settled)

    @property
    def awaits(self) -> bool:
        """Libvirt has not told of everybody yet."""
        return not self._complete

    async def named(self) -> dict[str, str | None] | None:
        """Who runs by libvirt's pid files, as `Identity.running` has it. None: they could not be read."""
        return None if self._watch is None else await self._beside.call(self._watch.identity.running)

    def denied(self, uuid: str) -> None:
        """Libvirt was asked, and says that this VM does not run."""
        if not self._complete:
            self._denied.add(uuid)

    def runs(self, uuid: str) -> None:
        """It does, as far as is known."""
        self._denied.discard(uuid)

    def _settled(self) -> bool:
        """Everybody is known. At first those are enough whom pid files name: a start hook that waits holds
        libvirt's list up, and may wait for us.
        """
        enough = Asked.ALL if self._complete else Asked.NAMED
        return self.asked >= enough and all(one.settled for one in self._workers.values())

    async def _rest(self, asked: Asked, settled: bool) -> None:
        """A period; less where something has changed for whoever is awaited."""
        end = time.monotonic() + self._period
        while not self._complete and time.monotonic() + SOON_SECONDS < end:
            if (self.asked, self._settled()) != (asked, settled):
                return
            await asyncio.sleep(SOON_SECONDS)
        await asyncio.sleep(max(0.0, end - time.monotonic()))

    async def _tell_awaited(self, *, everybody: bool) -> None:
        """`everybody`: they are all told of, and what they hold as well."""
        self._complete = everybody
        found = {} if everybody else await self.named()
        if found is None:
            return  # then libvirt's list alone says it
        names = tuple(sorted(name for name, uuid in found.items() if uuid not in self._denied))
        if names != self._awaited:
            self._awaited = names
            self._emit(VmsAwaited(names))

    async def _look(self, settled: bool) -> bool:
        """Whether there is something to see."""
        if self._watch is None or self.meter is None:
            return True
        known = [one.known for one in self._workers.values()]
        if settled:
            self._known_vms = {one.uuid: memory_of(one.view) for one in known}
            names = {one.uuid: one.name for one in known}
            self._unmanaged = tuple(
                Unmanaged(uuid, names[uuid], memory.ordinary_bytes)
                for uuid, memory in self._known_vms.items()
                if not memory.managed
            )
        look = partial(
            self._watch.read,
            time.monotonic(),
            self._known_vms,
            vm_swap_bytes=sum(one.resident.swap_bytes for one in known if one.resident is not None),
            unread={uuid: why for uuid, why in self._unread().items() if uuid in self._known_vms},
            denied=frozenset(self._denied),
        )
        try:
            # Not in the loop: with a thousand VMs it takes tens of milliseconds. In a thread of its own:
            # whether the host is short must not wait for what others want to know.
            facts = await self._beside.call(look)
        except (OSError, KeyError, ValueError) as error:
            # No descriptors left, or a rehearsal's file half written: what was known last stands.
            if self._trouble != str(error):
                log.warning("the host's memory cannot be read", error=str(error))
            self._trouble = str(error)
            return False
        self._trouble = ""
        if settled:
            self._others_bytes = (facts.unmanaged_bytes, facts.foreign_bytes)
        self._emit(HostSampled(self._as_last_known(facts)))
        return True

    def _as_last_known(self, facts: HostFacts) -> HostFacts:
        """Before libvirt has said which VMs are its own, each QEMU looks like somebody else's."""
        unmanaged, foreign = self._others_bytes
        return replace(facts, unmanaged_bytes=unmanaged, foreign_bytes=foreign, unmanaged=self._unmanaged)

    def _unread(self) -> dict[str, str]:
        """VMs of whose memory the host's kernel says nothing, or libvirt, with the reason, by UUID."""
        assert self.meter is not None
        untold = {uuid: one.untold for uuid, one in self._workers.items() if one.untold is not None}
        return self.meter.unread() | untold


def memory_of(view: DomainView | None) -> VmMemory:
    """Of a VM that cannot be looked into only its process counts."""
    if view is None:
        return VmMemory(managed=False, ordinary_bytes=0)
    return VmMemory(view.config is not None, view.ordinary_bytes, unmapped=view.unmapped)
