"""The hypervisor interface over libvirt: connects, follows every domain, and never lets one hold up another.

Connections are divided by purpose (lanes.Lanes): events, control, statistics, streams and quarantine. Each
domain that runs has a worker, managed or not; an unmanaged one is only known by its RAM.
"""

import asyncio
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from host_controller.core.interface import (
    Command,
    CommandDone,
    ConnectionChanged,
    HypervisorEvent,
    Inbox,
    SendToGuest,
    SetPace,
    VmAppeared,
    VmGone,
)
from host_controller.errors import DynmemError
from host_controller.host import memory
from host_controller.host.libvirt_run import is_local
from host_controller.hypervisor import libvirt_calls
from host_controller.hypervisor.abilities import abilities_of
from host_controller.hypervisor.awaiting import Awaiting
from host_controller.hypervisor.connections import Late
from host_controller.hypervisor.eventloop import EVENT_THREAD, Mailbox
from host_controller.hypervisor.events import Events
from host_controller.hypervisor.host_sampler import PERIOD_SECONDS, HostSampler, memory_of
from host_controller.hypervisor.lanes import Lanes
from host_controller.hypervisor.worker import VmWorker
from host_controller.rules.taking import NO_RULES, Rulebook

CONNECT_LIMIT_SECONDS: Final = 60.0
"""For listing and registering: a start hook may hold up a list for its whole time
(fact: lists-wait-for-hooks)."""
FIRST_RETRY_SECONDS: Final = 0.2
LAST_RETRY_SECONDS: Final = 2.0
JOIN_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


class LibvirtHypervisor:
    """Carries out the `Hypervisor` contract on one libvirt host."""

    def __init__(
        self,
        uri: str = "qemu:///system",
        *,
        host_period_seconds: float = PERIOD_SECONDS,
        meminfo: Path = memory.MEMINFO,
        rules: Rulebook = NO_RULES,
        guest_agents: bool = False,
    ) -> None:
        self._uri = uri
        self._local = is_local(uri)
        self._rules = rules
        self._versions = (0, 0)
        """Of libvirt and QEMU, as they were when it was connected."""
        self._guest_agents = guest_agents
        self._host: HostSampler | None = None
        if self._local:
            self._host = HostSampler(uri, self._emit, period_seconds=host_period_seconds, meminfo=meminfo)
        self._awaiting = Awaiting(self._host, self._emit)
        self._listed = False
        """Every domain that runs on our libvirt has its worker."""
        self._named = False
        """Every one has whose process libvirt's pid files name."""
        self._inbox: Inbox = lambda event: None
        self._mailbox: Mailbox | None = None
        self._lanes: Lanes | None = None
        self._workers: dict[str, VmWorker] = {}
        self._announced: set[str] = set()
        self._lost = asyncio.Event()
        self._lost_detail = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._events: Events | None = None

    # --- the contract ---

    def submit(self, command: Command) -> None:
        """Hand the command to the VM's worker."""
        worker = self._workers.get(command.vm)
        match command:
            case SendToGuest():
                if worker is not None:
                    worker.port.send(command.message)
            case SetPace():
                if worker is not None:
                    worker.set_period(command.period_seconds)
            case _ if worker is not None:
                worker.submit(command)
            case _:
                reason = "the VM is not running" if self._lanes is not None else "libvirt is not connected"
                asyncio.get_running_loop().call_soon(
                    self._emit, CommandDone(command.vm, command.ticket, reason)
                )

    async def start(self, inbox: Inbox) -> None:
        """Try to connect; return when that has succeeded or failed. Retries go on in the background."""
        self._inbox = inbox
        self._mailbox = Mailbox(asyncio.get_running_loop())
        await asyncio.to_thread(EVENT_THREAD.acquire)
        tried = asyncio.Event()
        self._tasks = [asyncio.create_task(self._supervise(tried), name="libvirt supervisor")]
        if self._host is not None:
            look = self._host.run(self._workers.values, self._all_are_there)
            self._tasks.append(asyncio.create_task(look, name="host memory"))
        # After that: who is admitted because nobody runs is admitted by what the host has.
        self._tasks.append(asyncio.create_task(self._awaiting.run(self._told), name="who runs"))
        await tried.wait()

    async def stop(self) -> None:
        """Let go of everything. Calls that hang are cut off by breaking their connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._host is not None:
            self._host.close()
        await self._disconnect("the controller is stopping")
        if self._mailbox is not None:
            self._mailbox.close()
            self._mailbox = None
            await asyncio.to_thread(EVENT_THREAD.release)

    def follow_rules(self, rules: Rulebook) -> None:
        """From now on these count for domains without limits of their own; each is looked at again.

        So does what `dynmem verify` has found on this host since.
        """
        rules = self._on_this_host(rules)
        if rules == self._rules:
            return
        self._rules = rules
        for worker in self._workers.values():
            worker.look_again()

    def came_held(self, uuid: str) -> bool:
        """Its XML tells that it was paused before it came here, or before this controller."""
        worker = self._workers.get(uuid)
        return worker is not None and worker.known.came_held

    def mark_held(self, uuid: str, on: bool) -> None:
        """From now on the XML of a VM that runs says that it is paused, or not."""
        worker = self._workers.get(uuid)
        if worker is not None:
            worker.mark_held(on)

    def _on_this_host(self, rules: Rulebook) -> Rulebook:
        return replace(rules, host=abilities_of(self._versions, local=self._local))

    # --- the connection ---

    async def _supervise(self, tried: asyncio.Event) -> None:
        delay = FIRST_RETRY_SECONDS
        told = ""
        while True:
            try:
                await self._connect()
            except (DynmemError, Late) as error:
                await self._disconnect(f"the connection to libvirt was lost: {error}")
                if told != str(error):
                    told = str(error)
                    self._emit(ConnectionChanged(up=False, detail=told))
                tried.set()
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY_SECONDS)
                continue
            tried.set()
            delay = FIRST_RETRY_SECONDS
            await self._lost.wait()
            told = self._lost_detail
            self._emit(ConnectionChanged(up=False, detail=told))
            await self._disconnect(f"the connection to libvirt was lost: {told}")

    async def _connect(self) -> None:
        assert self._mailbox is not None
        self._lost.clear()
        lanes = self._lanes = Lanes(self._uri, self._mailbox)
        self._events = Events(self, self._mailbox, self._emit)
        await lanes.events.call(self._events.register, CONNECT_LIMIT_SECONDS)
        self._versions = await lanes.events.call(libvirt_calls.versions_of, CONNECT_LIMIT_SECONDS)
        self._rules = self._on_this_host(self._rules)
        self._emit(ConnectionChanged(up=True, detail=self._uri))
        if not self._awaiting.over:
            # A start hook that waits holds the list up, and may wait for us: these are asked for one by one.
            named = await self._awaiting.running()
            self._add_all(uuid for uuid in (named or {}).values() if uuid is not None)
            self._named = named is not None
        # Events of domains that start meanwhile are already coming in.
        running = await lanes.events.call(libvirt_calls.active_uuids, CONNECT_LIMIT_SECONDS)
        for uuid in self._announced - set(running) - set(self._workers):
            self._emit(VmGone(uuid, "stopped while libvirt was away"))
        self._add_all(running)
        self._listed = True

    def _all_are_there(self) -> bool:
        """Every domain that runs has its worker, as far as is known before libvirt has told of all once."""
        return self._listed or (self._named and not self._awaiting.over)

    def _told(self) -> bool:
        """Libvirt has told of everybody who runs, and what they hold is counted."""
        if self._host is None:
            return self._listed and all(worker.settled for worker in self._workers.values())
        counted = self._host.counted
        return self._listed and counted is not None and counted >= self._workers.keys()

    async def _disconnect(self, why: str) -> None:
        """End all workers and connections. The VMs are still there: VmGone is not said."""
        self._listed = self._named = False
        for worker in list(self._workers.values()):
            worker.stop(why, gone=False)
        tasks = [worker.task for worker in self._workers.values()]
        self._workers.clear()
        await asyncio.gather(*tasks, return_exceptions=True)
        lanes, self._lanes = self._lanes, None
        if lanes is None:
            return
        if self._events is not None:
            await self._events.end()
            self._events = None
        threads = lanes.close()
        await asyncio.to_thread(_join, threads, JOIN_SECONDS)

    # --- what its events tell ---

    @property
    def workers(self) -> Mapping[str, VmWorker]:
        """Of every domain that runs, by UUID."""
        return self._workers

    def started(self, uuid: str, *, booted: bool) -> None:
        """A domain runs that has no worker yet."""
        if self._lanes is not None:
            self._add(uuid, booted=booted)

    def stopped(self, uuid: str, reason: str) -> None:
        """A domain does not run any more: its worker ends, and what was known of it is forgotten."""
        worker = self._workers.pop(uuid, None)
        if worker is None:
            return
        worker.stop(reason, gone=True)
        if self._host is not None:
            self._host.meter.forget(uuid)
        if self._lanes is not None:
            for lane in self._lanes.all():
                lane.forget(uuid)

    def lost(self, detail: str) -> None:
        """The connection broke; all of them are opened anew."""
        self._lost_detail = f"{self._uri}: {detail}"
        self._lost.set()

    # --- domains ---

    def _add_all(self, found: Iterable[str]) -> None:
        for uuid in found:
            if uuid not in self._workers:
                self._add(uuid, booted=False)

    def _add(self, uuid: str, *, booted: bool) -> None:
        assert self._lanes is not None
        assert self._mailbox is not None
        self._workers[uuid] = VmWorker(
            uuid,
            self._lanes,
            self._mailbox,
            self._emit,
            self._not_running,
            None if self._host is None else self._host.meter,
            booted=booted,
            announced=uuid in self._announced,
            rules=lambda: self._rules,
            guest_agents=self._guest_agents,
        )

    def _not_running(self, worker: VmWorker) -> None:
        """The worker found its domain stopped, before or without the event."""
        self.stopped(worker.uuid, "stopped")

    def _emit(self, event: HypervisorEvent) -> None:
        match event:
            case VmAppeared():
                self._announced.add(event.vm)
                self._changes_hands(event.vm)
            case VmGone():
                self._announced.discard(event.vm)
                self._changes_hands(event.vm)
        self._inbox(event)

    def _changes_hands(self, uuid: str) -> None:
        """It is managed from now on, or runs on unmanaged: its RAM is counted in one place at any time."""
        worker = self._workers.get(uuid)  # none: it does not run any more
        if self._host is not None and worker is not None:
            self._host.changes_hands(uuid, worker.known.name, memory_of(worker.known.view))


def _join(threads: list[threading.Thread], limit_seconds: float) -> None:
    until = time.monotonic() + limit_seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            log.warning("a libvirt call does not come back", thread=thread.name)
