"""One VM's worker: at most one libvirt call of a VM is in flight, and a VM that hangs waits alone.

After a call has passed its limit the VM counts as timed out: nothing more is sent to it until that call has
come back, and then, unless it came back well, one probe at a time goes out over the quarantine lane, with
back-off. Commands for a VM that is timed out are refused at once.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Final

import libvirt
import structlog

from host_controller.core.interface import (
    BalloonChanged,
    BalloonSampled,
    ChannelChanged,
    CommandDone,
    DimmsChanged,
    Inbox,
    JobChanged,
    ResidentSampled,
    SendToGuest,
    VirtioMemChanged,
    VmAppeared,
    VmConfigChanged,
    VmGone,
    VmStateChanged,
)
from host_controller.core.model import Dimm, RunState
from host_controller.domain_xml.read import DomainView
from host_controller.errors import CallFailed, DynmemError, HypervisorUnreachable
from host_controller.host.qemu_process import Resident, ResidentMeter
from host_controller.hypervisor import calls
from host_controller.hypervisor.channel import LAST_RETRY_SECONDS, Channel, Port
from host_controller.hypervisor.connections import Connection, Gate, Lane, Late
from host_controller.hypervisor.eventloop import Mailbox
from host_controller.hypervisor.trouble import Trouble

CONTROL_LIMIT_SECONDS: Final = 2.0
STATISTICS_LIMIT_SECONDS: Final = 1.0
DEFAULT_PERIOD_SECONDS: Final = 5.0
FIRST_PROBE_SECONDS: Final = 1.0
LAST_PROBE_SECONDS: Final = 30.0
EVENT_SECONDS: Final = 0.2
"""From a domain's being found stopped to the event that says why, at most; it comes within milliseconds."""
SETTLE_SECONDS: Final = 10.0
STATS_PERIOD_SECONDS: Final = 1
FAILURES_TO_TELL: Final = 3
"""Openings of a port that fail in a row, 0.5, 1 and 2 s apart."""
FIRST_DEAF_SECONDS: Final = 20.0
LAST_DEAF_SECONDS: Final = 3600.0
"""A port from which nothing comes for so long is opened anew, each time later: QEMU 7.2 was seen to pass
nothing on from a guest that was reset, stopped and let run by another while its port was closed."""

log = structlog.get_logger(__name__)


class Lanes:
    """The connections by purpose."""

    def __init__(self, uri: str, mailbox: Mailbox) -> None:
        gate = Gate()
        self.events = Lane("events", uri, mailbox, gate, keeps=True)
        self.control = Lane("control", uri, mailbox, gate)
        self.statistics = Lane("statistics", uri, mailbox, gate)
        self.streams = Lane("streams", uri, mailbox, gate, keeps=True)
        self.quarantine = Lane("quarantine", uri, mailbox, gate)

    def close(self) -> list[threading.Thread]:
        """Close every connection. Returns the threads that are about to end."""
        return [thread for lane in self.all() for thread in lane.close()]

    def all(self) -> tuple[Lane, ...]:
        """Every lane; that of the events last, so that it is closed last."""
        return (self.control, self.statistics, self.streams, self.quarantine, self.events)


class VmWorker:
    """What is known of one running domain, and the queue of what is to be done with it."""

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
    ) -> None:
        self.uuid = uuid
        self.view: DomainView | None = None
        self.state = RunState.RUNNING
        self.job: str | None = None
        self.resident: Resident | None = None
        self.timed_out_at: float | None = None
        self._began = time.monotonic()
        self._booted = booted
        self._absent_since: float | None = None
        self._managed = False
        self._lanes = lanes
        self._mailbox = mailbox
        self._emit = emit
        self._gone = gone
        self._meter = meter
        self._channel: Channel | None = None
        self._channel_due = False
        self._channel_failures = 0
        self._deaf_seconds = FIRST_DEAF_SECONDS
        self._period = DEFAULT_PERIOD_SECONDS
        self._commands: deque[calls.VmCommand] = deque()
        self._running: tuple[calls.VmCommand, float] | None = None
        self._inspect = True
        self._was_late = False
        self._states_told = 0
        self._sample_due = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._trouble = Trouble()
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.task = self._loop.create_task(self._run(), name=f"vm {uuid}")

    # --- told from outside, in the loop ---

    @property
    def settled(self) -> bool:
        """It was looked into, or could not be for so long that this is how it stays."""
        return self.view is not None or time.monotonic() - self._began >= SETTLE_SECONDS

    @property
    def managed(self) -> bool:
        """It was announced with VmAppeared."""
        return self._managed

    def submit(self, command: calls.VmCommand) -> None:
        """Queue a command, or refuse it while the VM does not answer."""
        if self.timed_out_at is not None:
            silent = time.monotonic() - self.timed_out_at
            self._done(command, f"not sent: the VM has not answered for {silent:.0f} s")
            return
        self._commands.append(command)
        self._wake.set()

    def send(self, command: SendToGuest) -> None:
        """Hand a message to the channel; lost without one."""
        if self._channel is not None:
            self._channel.send(command.message)

    def set_period(self, seconds: float) -> None:
        """Sample this often, beginning now."""
        self._period = max(0.05, seconds)
        self._set_timer("sample", self._period, self._want_sample)

    def appeared(self, *, booted: bool) -> None:
        """It has started again, perhaps unseen: announce it anew."""
        self._managed = False
        self._booted = booted
        self.look_again()

    def look_again(self) -> None:
        """Read the XML again and tell what has changed."""
        self._inspect = True
        self._wake.set()

    def set_state(self, state: RunState) -> None:
        """The vCPUs were stopped or continued, or the guest died."""
        self._states_told += 1
        self._set_state(state)
        self._want_sample()  # with that a migration or a restore may have ended

    def _set_state(self, state: RunState) -> None:
        if state is not self.state:
            self.state = state
            if self._managed:
                self._emit(VmStateChanged(self.uuid, state))

    def set_job(self, job: str | None) -> None:
        """A job was seen to run, or to be over."""
        if job == self.job:
            return
        self.job = job
        if self._managed:
            self._emit(JobChanged(self.uuid, job))
        if job is None:
            self.look_again()  # what could not be done or seen meanwhile

    def migrates(self) -> None:
        """QEMU sends the VM somewhere, perhaps into a file: libvirt knows what that is called."""
        if self.job is None:
            self.set_job("migration")
            self._want_sample()

    def guest_opened_port(self) -> None:
        """The agent opened its end."""
        if self._channel is not None:
            self._channel.guest_opened()

    def balloon_changed(self, actual_bytes: int) -> None:
        """QEMU's event; a VM that was not announced yet tells its figure then."""
        if self._managed:
            self._emit(BalloonChanged(self.uuid, actual_bytes))

    def virtio_mem_changed(self, current_bytes: int) -> None:
        """Tell it at once; then look, since only the XML says what was asked for."""
        if self._managed:
            self._emit(VirtioMemChanged(self.uuid, current_bytes))
        self.look_again()

    def dimm_removed(self, alias: str) -> None:
        """Tell it at once; then look, since the XML may have been read while the DIMM was leaving."""
        found = [one for one in self.view.dimms if one.alias == alias] if self.view is not None else []
        if self.view is not None and found:
            blocks = list(self.view.ram_blocks)
            blocks.remove(found[0].size_bytes)
            self._take_dimms(tuple(one for one in self.view.dimms if one.alias != alias), tuple(blocks))
        self.look_again()

    def stop(self, reason: str | None) -> None:
        """End the worker; with a reason also say VmGone. Commands under way are told as unknown."""
        self.task.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        text = reason or "the controller is stopping"
        if self._running is not None:
            command, since = self._running
            self._running = None
            self._done(command, text, timed_out=True, seconds=time.monotonic() - since)
        self._refuse_all(text)
        if reason is not None and self._managed:
            self._emit(VmGone(self.uuid, reason))
        self._managed = False
        self._let_channel_go()

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
                log.debug("call failed", vm=self.name, error=str(error))
                continue
            await self._wake.wait()

    @property
    def name(self) -> str:
        """For people."""
        return self.view.name if self.view is not None else self.uuid

    async def _step(self) -> bool:
        """Do the most urgent thing; False when there is nothing to do."""
        if self._inspect:
            await self._guarded("inspect", self._look(), self.look_again)
        elif self._commands:
            await self._guarded("inspect", self._carry_out(self._commands.popleft()), self.look_again)
        elif self._sample_due and self._managed:
            self._sample_due = False
            await self._guarded("sample", self._sample(self._lanes.statistics), self._want_sample)
        elif self._channel_due and self._channel is not None and not self._channel.is_open:
            self._channel_due = False
            await self._guarded("channel", self._open_channel(self._channel), self._want_channel)
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
                log.exception("VM cannot be looked at; tried again, ever later", vm=self.name, step=step)
            self._set_timer(step, max(delay, self._period), again)
        else:
            if self._trouble.over(step):
                log.info("VM can be looked at again", vm=self.name, step=step)

    async def _look(self) -> None:
        self._inspect = False
        before = self._states_told
        try:
            found = await self._lanes.control.call(self._call_inspect, CONTROL_LIMIT_SECONDS)
        except DynmemError as error:
            news, delay = self._trouble.failed("inspect", error)
            if news:
                log.warning("libvirt does not describe the VM; asked again", vm=self.name, error=str(error))
            self._set_timer("inspect", delay, self.look_again)
            raise
        self._inspected(found, state_is_fresh=before == self._states_told)

    def _call_inspect(self, connection: Connection) -> calls.Inspection | None:
        found = calls.inspect(connection, self.uuid)
        if found is not None and found.view.config is not None and not found.view.stats_period:
            try:
                calls.set_stats_period(connection, self.uuid, STATS_PERIOD_SECONDS)
            except (libvirt.libvirtError, calls.JobRunning) as error:
                log.info("no balloon statistics", vm=found.view.name, error=str(error))
        return found

    async def _carry_out(self, command: calls.VmCommand) -> None:
        begun = time.monotonic()
        self._running = (command, begun)
        error: str | None = None
        timed_out = False
        done = calls.Done()
        try:
            done = await self._lanes.control.call(
                lambda connection: calls.carry_out(connection, command, CONTROL_LIMIT_SECONDS),
                CONTROL_LIMIT_SECONDS,
            )
            if done.view is not None:
                self._take_dimms(done.view.dimms, done.view.ram_blocks)
        except Late:
            error, timed_out = "no answer in time", True
            raise
        except calls.JobRunning as failed:
            self.set_job(failed.job)
            error = failed.message
        except CallFailed as failed:
            error = failed.message
        except HypervisorUnreachable as lost:
            error, timed_out = lost.message, True
        finally:
            if self._running is not None:
                self._running = None
                took = time.monotonic() - begun
                self._done(command, error, timed_out=timed_out, seconds=took, vcpu_seconds=done.vcpu_seconds)

    async def _sample(self, lane: Lane) -> None:
        self._set_timer("sample", self._period, self._want_sample)
        sample, resident = await lane.call(self._call_sample, STATISTICS_LIMIT_SECONDS)
        self._tell_sample(sample, resident)

    def _call_sample(self, connection: Connection) -> tuple[calls.Sample, Resident | None]:
        sample = calls.sample(connection, self.uuid)
        view = self.view
        # After the balloon: a resident size that agrees with a claim must be newer than the claim.
        resident = None
        if self._meter is not None and view is not None:
            resident = self._meter.read(self.uuid, view.ram_blocks, view.owner)
        return sample, resident

    def _tell_sample(self, sample: calls.Sample, resident: Resident | None) -> None:
        if not self._managed:
            return
        self.set_job(sample.job)
        if sample.actual_bytes is not None:
            self._emit(BalloonSampled(self.uuid, sample.actual_bytes, sample.stats))
        if resident is not None:
            self.resident = resident
            self._emit(
                ResidentSampled(self.uuid, resident.guest_bytes, resident.overhead_bytes, resident.huge_bytes)
            )

    async def _open_channel(self, channel: Channel) -> None:
        try:
            found = await self._lanes.streams.call(channel.open, CONTROL_LIMIT_SECONDS)
        except DynmemError as error:
            self._channel_failed(str(error))
            channel.retry_seconds = min(2 * channel.retry_seconds, LAST_RETRY_SECONDS)
            self._channel_closed()
        except Late as late:
            late.outcome.add_done_callback(_end_late_stream)
            raise
        else:
            if channel is self._channel:
                channel.opened(found)
                if self._channel_failures >= FAILURES_TO_TELL:
                    self._emit(ChannelChanged(self.uuid, None))
                self._channel_failures = 0
                self._set_timer("deaf", self._deaf_seconds, self._listen)
            else:
                found.end()

    def _channel_failed(self, error: str) -> None:
        """One failure is nothing: the VM may be about to stop. More are the host's fault, and told once."""
        self._channel_failures += 1
        if self._channel_failures == FAILURES_TO_TELL:
            log.error("the agent's port cannot be opened", vm=self.name, error=error)
            self._emit(ChannelChanged(self.uuid, error))

    async def _recover(self, late: Late) -> None:
        self.timed_out_at = time.monotonic()
        log.warning("VM does not answer", vm=self.name)
        self._refuse_all("not sent: the VM does not answer")
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
                await self._sample(self._lanes.quarantine)
            except Late as again:
                outcome = again.outcome
            except DynmemError:
                continue
            else:
                break
        log.info("VM answers again", vm=self.name, seconds=time.monotonic() - self.timed_out_at)
        self.timed_out_at = None
        # What the late call did, nobody has said: look, and tell.
        self._inspect = self._was_late = True
        self._sample_due = True
        if self._channel is not None and not self._channel.is_open:
            self._channel_due = True
        self._wake.set()

    # --- what was found ---

    def _inspected(self, found: calls.Inspection | None, *, state_is_fresh: bool) -> None:
        if found is None:
            self._absent()
            return
        self._absent_since = None
        view, old = found.view, self.view
        self.view = view
        if view.problems and (old is None or old.problems != view.problems):
            log.warning(
                "domain has problems", vm=view.name, problems=list(view.problems), error=found.unreadable
            )
        if view.config is None:
            if self._managed:
                self._managed = False
                self._let_channel_go()
                self._refuse_all("the VM is no longer managed")
                self._emit(VmGone(self.uuid, "no longer managed"))
            return
        if not self._managed:
            self._announce(view, found.state if state_is_fresh else self.state, found.vcpu_seconds)
            return
        if state_is_fresh:
            self._set_state(found.state)
        if old is None or old.config != view.config:
            self._emit(VmConfigChanged(self.uuid, view.config))
        if old is None or old.dimms != view.dimms or self._was_late:
            self._emit(DimmsChanged(self.uuid, view.dimms))
        self._was_late = False
        if view.config.virtio_mem_bytes:
            asked = view.virtio_mem_requested_bytes
            self._emit(VirtioMemChanged(self.uuid, view.virtio_mem_bytes, asked))

    def _absent(self) -> None:
        """The domain was found stopped, perhaps just before the event that is on its way and knows why."""
        now = time.monotonic()
        if self._absent_since is None:
            self._absent_since = now
        if now - self._absent_since >= EVENT_SECONDS:
            self._gone(self)
        else:
            self._set_timer("inspect", EVENT_SECONDS, self.look_again)

    def _announce(self, view: DomainView, state: RunState, vcpu_seconds: float | None) -> None:
        assert view.config is not None
        self._managed = True
        self.state = state
        self._emit(
            VmAppeared(
                vm=self.uuid,
                config=view.config,
                state=state,
                dimms=view.dimms,
                actual_bytes=view.actual_bytes,
                booted=self._booted,
                virtio_mem_bytes=view.virtio_mem_bytes,
                virtio_mem_requested_bytes=view.virtio_mem_requested_bytes,
                vcpu_seconds=vcpu_seconds,
            )
        )
        if self.job is not None:
            self._emit(JobChanged(self.uuid, self.job))
        self._let_channel_go()
        self._channel_failures = 0
        if view.channel_alias is not None:
            self._channel = Channel(self.uuid, self._mailbox, self._emit, self._channel_closed)
            self._channel_due = True
        self._sample_due = True
        # From here on spread over the period, so that a thousand VMs found at once do not stay in step.
        self._set_timer("sample", self._period * (hash(self.uuid) % 997) / 997, self._want_sample)
        self._wake.set()

    def _take_dimms(self, dimms: tuple[Dimm, ...], ram_blocks: tuple[int, ...]) -> None:
        if self.view is not None:
            self.view = replace(self.view, dimms=dimms, ram_blocks=ram_blocks)
            if self._managed:
                self._emit(DimmsChanged(self.uuid, dimms))

    def _want_sample(self) -> None:
        self._sample_due = True
        self._wake.set()

    def _channel_closed(self) -> None:
        if self._channel is not None and self.timed_out_at is None:
            self._set_timer("channel", self._channel.retry_seconds, self._want_channel)

    def _listen(self) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        if channel.heard or self.state is not RunState.RUNNING:
            channel.heard, self._deaf_seconds = False, FIRST_DEAF_SECONDS
            self._set_timer("deaf", self._deaf_seconds, self._listen)
            return
        self._deaf_seconds = min(2 * self._deaf_seconds, LAST_DEAF_SECONDS)
        channel.hang_up()
        self._want_channel()

    def _want_channel(self) -> None:
        self._channel_due = True
        self._wake.set()

    def _let_channel_go(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _set_timer(self, kind: str, seconds: float, function: Callable[[], None]) -> None:
        old = self._timers.pop(kind, None)
        if old is not None:
            old.cancel()
        self._timers[kind] = self._loop.call_later(seconds, function)

    def _refuse_all(self, reason: str) -> None:
        while self._commands:
            self._done(self._commands.popleft(), reason)

    def _done(
        self,
        command: calls.VmCommand,
        error: str | None,
        *,
        timed_out: bool = False,
        seconds: float = 0.0,
        vcpu_seconds: float | None = None,
    ) -> None:
        self._emit(CommandDone(command.vm, command.ticket, error, timed_out, seconds, vcpu_seconds))


def _end_late_stream(outcome: "asyncio.Future[Port]") -> None:
    """A port that opened too late is nobody's: left alone it would be held and never read."""
    if not outcome.cancelled() and outcome.exception() is None:
        outcome.result().end()
