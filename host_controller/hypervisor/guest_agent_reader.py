"""Reads a guest's /proc through its QEMU guest agent, slowly, where no agent of ours speaks.

The guest agent serves one request at a time, and backups need it: a reading is a few milliseconds every ten
seconds, none while a job runs, and after a failure the next comes ever later. It runs beside the VM's worker,
on connections of its own: a guest agent that hangs says nothing about its VM.
"""

import asyncio
import math
import time
from typing import Final

import structlog

from host_controller.core.interface import GuestRead, GuestReading, Inbox
from host_controller.core.model import RunState
from host_controller.errors import DynmemError
from host_controller.guest_agent import proc_files
from host_controller.guest_agent.conversation import GuestAgent
from host_controller.guest_agent.errors import GuestAgentRefused
from host_controller.hypervisor.connections import Connection, Late
from host_controller.hypervisor.guest_agent_line import ask
from host_controller.hypervisor.jobs import running_job
from host_controller.hypervisor.known_vm import KnownVm
from host_controller.hypervisor.lanes import Lane, Lanes

PACE_SECONDS: Final = 10.0
LAST_PACE_SECONDS: Final = 640.0
AGENT_SILENT_SECONDS: Final = 30.0
"""So long our own agent must have been silent, and the VM known."""
ANSWER_SECONDS: Final = 1
LIMIT_SECONDS: Final = 20.0
"""For fifteen requests and libvirt's own handshake."""

log = structlog.get_logger(__name__)


class GuestAgentReader:
    """One VM's. Told about every sample; starts a reading when one is due."""

    def __init__(self, vm: KnownVm, emit: Inbox, *, allowed: bool) -> None:
        self._vm = vm
        self._emit = emit
        self._allowed = allowed
        self._known_since = time.monotonic()
        self._next_at = self._known_since + AGENT_SILENT_SECONDS
        self._asked_at = -math.inf
        self._pace = PACE_SECONDS
        self._task: asyncio.Task[None] | None = None

    def sampled(self, lanes: Lanes, heard_at: float, now: float) -> None:
        """A sample was taken. heard_at: when our agent last spoke; both monotonic seconds."""
        if self._due(heard_at, now):
            self._asked_at = now
            self._next_at = now + self._pace
            self._task = asyncio.get_running_loop().create_task(self._read(lanes), name="guest agent")

    def stop(self) -> None:
        """Read no more: the VM is let go."""
        if self._task is not None:
            self._task.cancel()

    def _due(self, heard_at: float, now: float) -> bool:
        vm = self._vm
        if not self._allowed or now < self._next_at or now - heard_at < AGENT_SILENT_SECONDS:
            return False
        if vm.view is None or not vm.view.guest_agent:
            return False
        if vm.job is not None or vm.state is not RunState.RUNNING:
            return False
        return self._task is None or self._task.done()

    async def _read(self, lanes: Lanes) -> None:
        async with lanes.guest_agent_turns:
            await self._read_now(lanes.guest_agents)

    async def _read_now(self, lane: Lane) -> None:
        try:
            found = await lane.call(self._call, LIMIT_SECONDS)
        except Late as late:
            self._failed("no answer in time")
            await asyncio.wait({late.outcome})
        except DynmemError as error:
            self._failed(str(error))
        else:
            if found is None:
                return  # a job has begun
            if self._pace != PACE_SECONDS:
                log.info("QEMU guest agent can be read again", vm=self._vm.name)
            self._pace = PACE_SECONDS
            self._next_at = self._asked_at + self._pace
            if self._vm.managed:
                self._emit(GuestRead(self._vm.uuid, found))

    def _call(self, connection: Connection) -> GuestReading | None:
        """Blocks; in the connection's thread."""
        domain = connection.domain(self._vm.uuid)
        if running_job(domain) is not None:
            return None
        talk = GuestAgent(lambda request: ask(domain, request, ANSWER_SECONDS), time.monotonic, time.sleep)
        meminfo = talk.read(proc_files.MEMINFO, proc_files.MOST_BYTES)
        vmstat = talk.read(proc_files.VMSTAT, proc_files.MOST_BYTES)
        # A kernel without PSI, without swap or without ZFS has no such file.
        more = (proc_files.PRESSURE, proc_files.SWAPS, proc_files.ARCSTATS)
        return proc_files.reading(meminfo, vmstat, *(_read_if_there(talk, one) for one in more))

    def _failed(self, why: str) -> None:
        if self._pace == PACE_SECONDS:
            log.info("QEMU guest agent cannot be read: statistics serve", vm=self._vm.name, reason=why)
        self._pace = min(2 * self._pace, LAST_PACE_SECONDS)
        self._next_at = self._asked_at + self._pace


def _read_if_there(talk: GuestAgent, path: str) -> bytes:
    try:
        return talk.read(path, proc_files.MOST_BYTES)
    except GuestAgentRefused:
        return b""
