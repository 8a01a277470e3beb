"""One VM's worker: at most one libvirt call of a VM is in flight, and a VM that hangs waits alone.

After a call has passed its limit the VM counts as timed out: nothing more is sent to it until that call has
come back, and then, unless it came back well, one probe at a time goes out over the quarantine lane, with
back-off. Commands for a VM that is timed out are refused at once.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Final

import structlog

from host_controller.core.interface import Inbox
from host_controller.core.model import RunState
from host_controller.domain_xml.before import STATISTICS_SECONDS
from host_controller.errors import CallFailed, DynmemError
from host_controller.host.qemu_process import Resident, ResidentMeter
from host_controller.hypervisor import libvirt_calls
from host_controller.hypervisor.agent_port import AgentPort
from host_controller.hypervisor.commands import CONTROL_LIMIT_SECONDS, Commands
from host_controller.hypervisor.connections import Connection, Late
from host_controller.hypervisor.eventloop import Mailbox
from host_controller.hypervisor.guest_agent_reader import GuestAgentReader
from host_controller.hypervisor.known_vm import KnownVm
from host_controller.hypervisor.lanes import Lane, Lanes
from host_controller.hypervisor.timers import Timers
from host_controller.hypervisor.trouble import Trouble
from host_controller.rules.taking import NO_RULES, Rulebook

STATISTICS_LIMIT_SECONDS: Final = 1.0
DEFAULT_PERIOD_SECONDS: Final = 5.0
SHORTEST_PERIOD_SECONDS: Final = 0.05
FIRST_PROBE_SECONDS: Final = 1.0
LAST_PROBE_SECONDS: Final = 30.0
EVENT_SECONDS: Final = 0.2
"""From a domain's being found stopped to the event that says why, at most; it comes within milliseconds."""
LOOK_SECONDS: Final = 60.0
"""A domain is described anew so often, for what libvirt has no event for: statistics that somebody switched
off, a device that left while libvirtd was away."""
SETTLE_SECONDS: Final = 10.0
REFUSALS_TO_TELL: Final = 3
"""Samples in a row that libvirt refuses. One is nothing: the VM may be about to stop."""

log = structlog.get_logger(__name__)


class VmWorker:
    """The queue of what is to be done with one running domain, and the task that does it."""

    def __init__(
        self,
        uuid: str,
        lanes: Lanes,
        mailbox: Mailbox,
        emit: Inbox,
        gone: Callable[["VmWorker"], None],
        meter: ResidentMeter | None,
        *,
        booted: bool,
        announced: bool = False,
        rules: Callable[[], Rulebook] = lambda: NO_RULES,
        guest_agents: bool = False,
    ) -> None:
        self.uuid = uuid
        self._rules = rules
        self.known = KnownVm(uuid, emit, booted=booted, announced=announced)
        self.port = AgentPort(self.known, mailbox, emit, self._turn)
        self._reader = GuestAgentReader(self.known, emit, allowed=guest_agents)
        self._lanes = lanes
        self._gone = gone
        self._meter = meter
        self._held: bool | None = None
        """Its management is paused; None before anybody has said so or not."""
        self._timed_out_at: float | None = None
        self._began = time.monotonic()
        self._absent_since: float | None = None
        self._period = DEFAULT_PERIOD_SECONDS
        self._commands = Commands(self.known, emit)
        self._look_due = True
        self._sample_due = False
        self._refusals = 0
        self.untold: str | None = None
        """Why libvirt says nothing of its balloon, sample after sample."""
        self._timers = Timers()
        self._trouble = Trouble()
        self._wake = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"vm {uuid}")

    @property
    def settled(self) -> bool:
        """It was looked into, or could not be for so long that this is how it stays."""
        return self.known.view is not None or time.monotonic() - self._began >= SETTLE_SECONDS

    # --- told from outside, in the loop ---

    def submit(self, command: libvirt_calls.VmCommand) -> None:
        """Queue a command, or refuse it while the VM does not answer."""
        if self._timed_out_at is not None:
            silent = time.monotonic() - self._timed_out_at
            self._commands.refuse(command, f"not sent: the VM has not answered for {silent:.0f} s")
            return
        self._commands.add(command)
        self._turn()

    def set_period(self, seconds: float) -> None:
        """Sample this often, beginning one period from now; at least SHORTEST_PERIOD_SECONDS apart."""
        self._period = max(SHORTEST_PERIOD_SECONDS, seconds)
        self._timers.set("sample", self._period, self._want_sample)

    def appeared(self, *, booted: bool) -> None:
        """It has started again, perhaps unseen: announce it anew."""
        self.known.appeared(booted=booted)
        self.look_again()

    def look_again(self) -> None:
        """Have libvirt describe it again, and tell what has changed."""
        self._look_due = True
        self._turn()

    def set_state(self, state: RunState) -> None:
        """The vCPUs were stopped or continued, or the guest died."""
        self.known.state_told(state)
        self._want_sample()  # with that a migration or a restore may have ended
        if self.known.marked:
            self.look_again()  # whoever lets it run may stop it again in a moment

    def mark_held(self, on: bool) -> None:
        """Its XML is to say whether it is paused. What cannot be written is tried at each look."""
        self._held = on
        if self.known.view is None or self.known.view.held is not on:
            self.look_again()

    def set_job(self, job: str | None) -> None:
        """A job was seen to run, or to be over."""
        if self.known.job_seen(job):
            self.look_again()  # what could not be done or seen meanwhile

    def migrates(self) -> None:
        """QEMU sends the VM somewhere, perhaps into a file: libvirt knows what that is called."""
        if self.known.job is None:
            self.set_job("migration")
            self._want_sample()

    def virtio_mem_changed(self, current_bytes: int) -> None:
        """Tell it at once; then look, since only the XML says what was asked for."""
        self.known.virtio_mem_moved(current_bytes)
        self.look_again()

    def dimm_removed(self, alias: str) -> None:
        """Tell it at once; then look, since the XML may have been read while the DIMM was leaving."""
        self.known.dimm_left(alias)
        self.look_again()

    def stop(self, why: str, *, gone: bool) -> None:
        """End the worker. `gone`: the VM does not run any more, and that is told.

        The command under way is told as one of which nobody knows whether it was carried out, those in the
        queue as not sent: each with `why`.
        """
        self.task.cancel()
        self._timers.cancel()
        self._commands.lose(why)
        if gone:
            self.known.gone(why)
        self.known.managed = False
        self._reader.stop()
        self.port.close()

    # --- the worker ---

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                while await self._step():
                    pass
            except Late as late:
                await self._recover(late)
                continue
            except DynmemError as error:
                log.debug("call failed", vm=self.known.name, error=str(error))
                continue
            await self._wake.wait()

    async def _step(self) -> bool:
        """Do the most urgent thing; False when there is nothing to do."""
        if self._look_due:
            await self._guarded("inspect", self._look(), self.look_again)
        elif self._commands:
            work = self._commands.carry_out_next(self._lanes.control)
            await self._guarded("command", work, self.look_again)
        elif self._sample_due and self.known.managed:
            self._sample_due = False
            await self._guarded("sample", self._sample(self._lanes.statistics), self._want_sample)
        elif self.port.due:
            await self._guarded("channel", self.port.open(self._lanes.streams), self.port.want)
        else:
            return False
        return True

    async def _guarded(self, step: str, work: Coroutine[None, None, None], again: Callable[[], None]) -> None:
        """Do a step. A mistake of ours, or a host in trouble, ends nobody's service: it is told once, and the
        step is tried again, each time later. The core charges a VM of which it hears nothing all of its RAM.
        """
        try:
            await work
        except (Late, DynmemError):
            raise
        except Exception as error:
            news, delay = self._trouble.failed(step, error)
            if news:
                log.exception(
                    "VM cannot be looked at; tried again, ever later", vm=self.known.name, step=step
                )
            self._timers.set(step, max(delay, self._period), again)
        else:
            if self._trouble.over(step):
                log.info("VM can be looked at again", vm=self.known.name, step=step)

    async def _recover(self, late: Late) -> None:
        """Wait until it answers: first for the call that is late, then for probes."""
        since = self._timed_out_at = time.monotonic()
        log.warning("VM does not answer", vm=self.known.name)
        self._commands.refuse_all("not sent: the VM does not answer")
        delay = FIRST_PROBE_SECONDS
        outcome: asyncio.Future[object] | None = late.outcome
        while True:
            if outcome is not None:
                await asyncio.wait({outcome})
                if outcome.cancelled() or outcome.exception() is None:
                    break
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_PROBE_SECONDS)
            outcome = None
            try:
                await self._guarded("sample", self._sample(self._lanes.quarantine), self._want_sample)
            except Late as again:
                outcome = again.outcome
            except DynmemError:
                continue
            else:
                break
        log.info("VM answers again", vm=self.known.name, seconds=time.monotonic() - since)
        self._timed_out_at = None
        # What the late call did, nobody has said: look, and tell.
        self.known.tell_dimms_anew()
        self._look_due = self._sample_due = True
        self.port.want()

    # --- its steps ---

    async def _look(self) -> None:
        self._look_due = False
        before = self.known.states_told
        try:
            found = await self._lanes.control.call(self._call_inspect, CONTROL_LIMIT_SECONDS)
        except DynmemError as error:
            news, delay = self._trouble.failed("inspect", error)
            if news:
                name = self.known.name
                log.warning("libvirt does not describe the VM; asked again", vm=name, error=str(error))
            self._timers.set("inspect", delay, self.look_again)
            raise
        if found is None:
            self._absent()
        else:
            self._absent_since = None
            spread = 0.75 + (hash(self.uuid) % 997) / 1994  # so that a thousand VMs do not stay in step
            self._timers.set("look", LOOK_SECONDS * spread, self.look_again)
            self._described(found, state_is_fresh=before == self.known.states_told)

    def _call_inspect(self, connection: Connection) -> libvirt_calls.Inspection | None:
        rules, started_with = self._rules(), self.known.started_with
        own_limit = libvirt_calls.not_known if self._meter is None else self._meter.own_limit
        return libvirt_calls.inspect_with_statistics(
            connection, self.uuid, STATISTICS_SECONDS, rules, started_with, own_limit, held=self._held
        )

    def _described(self, found: libvirt_calls.Inspection, *, state_is_fresh: bool) -> None:
        known_before = self.known.managed
        old = self.known.view
        self.known.described(found, state_is_fresh=state_is_fresh)
        if self.known.announced and found.view.config is None:
            self._refusals, self.untold = 0, None  # no sample is asked for any more
            self.port.close()
            self._commands.refuse_all("the VM is no longer managed")
            self.known.gone("no longer managed")
        elif self.known.managed and not known_before:
            self.port.renew(there=found.view.channel_alias is not None)
            # From here on spread over the period, so that a thousand VMs found at once do not stay in step.
            self._timers.set("sample", self._period * (hash(self.uuid) % 997) / 997, self._want_sample)
            self._want_sample()
        elif self.known.managed and old is not None and old.channel_alias != found.view.channel_alias:
            self.port.renew(there=found.view.channel_alias is not None)
            self._turn()

    def _absent(self) -> None:
        """The domain was found stopped, perhaps just before the event that is on its way and knows why."""
        now = time.monotonic()
        if self._absent_since is None:
            self._absent_since = now
        if now - self._absent_since >= EVENT_SECONDS:
            self._gone(self)
        else:
            self._timers.set("inspect", EVENT_SECONDS, self.look_again)

    async def _sample(self, lane: Lane) -> None:
        self._timers.set("sample", self._period, self._want_sample)
        try:
            sample, resident = await lane.call(self._call_sample, STATISTICS_LIMIT_SECONDS)
        except CallFailed as error:
            self._refused(error)
            raise
        if self.untold is not None:
            log.info("libvirt tells of the VM's memory again", vm=self.known.name)
        self._refusals, self.untold = 0, None
        if self.known.managed:
            self.set_job(sample.job)
            self.known.take_sample(sample, resident)
            self._reader.sampled(self._lanes, self.port.heard_at, time.monotonic())

    def _refused(self, error: CallFailed) -> None:
        self._refusals += 1
        if self._refusals < REFUSALS_TO_TELL:
            return
        if self.untold is None:
            log.warning(
                "libvirt does not tell of the VM's memory; asked again", vm=self.known.name, error=str(error)
            )
        self.untold = f"libvirt does not tell of its balloon: {error.message}"

    def _call_sample(self, connection: Connection) -> tuple[libvirt_calls.Sample, Resident | None]:
        sample = libvirt_calls.sample(connection, self.uuid)
        view = self.known.view
        # After the balloon: a resident size that agrees with a claim must be newer than the claim.
        resident = None
        if self._meter is not None and view is not None:
            resident = self._meter.read(self.uuid, view.ram_blocks, view.owner)
        return sample, resident

    def _turn(self) -> None:
        self._wake.set()

    def _want_sample(self) -> None:
        self._sample_due = True
        self._turn()
