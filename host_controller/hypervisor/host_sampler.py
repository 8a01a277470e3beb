"""Tells what the host's memory is, again and again, with what VMs of our libvirt take of it."""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from host_controller.beside import Beside
from host_controller.core.interface import HostSampled, Inbox
from host_controller.core.model import HostFacts, Unmanaged
from host_controller.domain_xml.view import DomainView
from host_controller.host import memory
from host_controller.host.qemu_process import ResidentMeter
from host_controller.host.watch import HostWatch, VmMemory
from host_controller.hypervisor.worker import VmWorker

PERIOD_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class HostSampler:
    """For a libvirt on this machine: another host's processes and memory cannot be looked at from here."""

    def __init__(
        self,
        uri: str,
        emit: Inbox,
        *,
        period_seconds: float = PERIOD_SECONDS,
        meminfo: Path = memory.MEMINFO,
    ) -> None:
        self._watch = HostWatch(uri, meminfo=meminfo)
        self.meter = ResidentMeter(self._watch.identity)
        """Reads what a VM's QEMU holds."""
        self._beside = Beside("host memory")
        self._emit = emit
        self._period = period_seconds
        self._vms: dict[str, VmMemory] = {}
        """Of our libvirt, as they were when all of them were last known."""
        self._unmanaged: tuple[Unmanaged, ...] = ()
        """Those that nobody manages, as they were then."""
        self._others_bytes = (0, 0)
        """Of unmanaged VMs and of other QEMUs, as it was then."""
        self._told: HostFacts | None = None
        self._changes = 0
        """How often a VM has changed hands."""
        self.counted: frozenset[str] | None = None
        """UUIDs of the VMs that what was told last is about; None: all were never known yet."""

    async def run(
        self, workers: Callable[[], Collection[VmWorker]], all_are_there: Callable[[], bool]
    ) -> None:
        """Look at the host until cancelled. `all_are_there`: each domain that runs has its worker."""
        told = ""
        while True:
            settled = all_are_there() and all(one.settled for one in workers())
            try:
                facts = await self._look(workers(), settled=settled)
            except (OSError, KeyError, ValueError) as error:
                # No descriptors left, or a rehearsal's file half written: what was known last stands.
                if told != str(error):
                    log.warning("the host's memory cannot be read", error=str(error))
                told = str(error)
            else:
                told = ""
                self._tell(facts)
                if settled:
                    self.counted = frozenset(self._vms)
            await asyncio.sleep(self._period)

    def changes_hands(self, uuid: str, name: str, vm: VmMemory) -> None:
        """A VM that runs is managed from now on, or no longer: that is told at once, of the last look.

        Its own event comes in the same turn of the loop. Until the next look it would else be counted twice,
        and others would be shrunk for that, or not at all, and others would be given its memory.
        """
        before = next((one for one in self._unmanaged if one.uuid == uuid), None)
        if self._told is None or vm.managed is (before is None):
            return
        self._changes += 1
        self._vms = {**self._vms, uuid: vm}  # a look that is under way has the old one
        unmanaged, foreign = self._others_bytes
        if before is None:
            self._unmanaged += (Unmanaged(uuid, name, vm.ordinary_bytes),)
            unmanaged += vm.ordinary_bytes
        else:
            self._unmanaged = tuple(one for one in self._unmanaged if one is not before)
            unmanaged = max(0, unmanaged - before.ordinary_bytes)
        self._others_bytes = unmanaged, foreign
        self._tell(replace(self._told, unmanaged_bytes=unmanaged, unmanaged=self._unmanaged))

    def _tell(self, facts: HostFacts) -> None:
        self._told = facts
        self._emit(HostSampled(facts))

    async def running(self) -> dict[str, str | None] | None:
        """As `Identity.running`."""
        return await self._beside.call(self._watch.identity.running)

    def close(self) -> None:
        """Look no more: `run` was cancelled."""
        self._beside.close()

    async def _look(self, workers: Collection[VmWorker], *, settled: bool) -> HostFacts:
        if settled:
            self._learn(workers)
        resident = [one.known.resident for one in workers]
        untold = {one.uuid: one.untold for one in workers if one.untold is not None}
        unread = self.meter.unread() | untold
        look = partial(
            self._watch.read,
            time.monotonic(),
            self._vms,
            vm_swap_bytes=sum(one.swap_bytes for one in resident if one is not None),
            unread={uuid: why for uuid, why in unread.items() if uuid in self._vms},
        )
        changes = self._changes
        # Not in the loop: with a thousand VMs it takes tens of milliseconds. In a thread of its own: whether
        # the host is short must not wait for what others want to know.
        facts = await self._beside.call(look)
        # Before libvirt has said which VMs are its own, each QEMU looks like somebody else's.
        if settled and changes == self._changes:
            self._others_bytes = (facts.unmanaged_bytes, facts.foreign_bytes)
        unmanaged, foreign = self._others_bytes
        return replace(facts, unmanaged_bytes=unmanaged, foreign_bytes=foreign, unmanaged=self._unmanaged)

    def _learn(self, workers: Collection[VmWorker]) -> None:
        self._vms = {one.uuid: memory_of(one.known.view) for one in workers}
        self._unmanaged = tuple(
            Unmanaged(one.uuid, one.known.name, self._vms[one.uuid].ordinary_bytes)
            for one in workers
            if not self._vms[one.uuid].managed
        )


def memory_of(view: DomainView | None) -> VmMemory:
    """What a VM may take of the host; None: it cannot be looked into, so only its process counts."""
    if view is None:
        return VmMemory(managed=False, ordinary_bytes=0)
    return VmMemory(view.config is not None, view.ordinary_bytes, unmapped=view.unmapped)
