"""Keeps the agent's port of one VM open: opened anew when it closes, when it fails, and when it is deaf."""

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from agent import wire
from host_controller.core.interface import ChannelChanged, Inbox
from host_controller.core.model import RunState
from host_controller.errors import DynmemError
from host_controller.hypervisor.channel import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, Channel, Port
from host_controller.hypervisor.connections import Late
from host_controller.hypervisor.eventloop import Mailbox
from host_controller.hypervisor.known_vm import KnownVm
from host_controller.hypervisor.lanes import Lane
from host_controller.hypervisor.timers import Timers

OPEN_LIMIT_SECONDS: Final = 2.0
FAILURES_TO_TELL: Final = 3
"""Openings that fail in a row, 0.5, 1 and 2 s apart."""
FIRST_DEAF_SECONDS: Final = 20.0
LAST_DEAF_SECONDS: Final = 3600.0
"""A port from which nothing comes for so long is opened anew, each time later (fact: deaf-port)."""

log = structlog.get_logger(__name__)


class AgentPort:
    """The port of one VM. `wake` is called when it is to be opened: then `open` is due."""

    def __init__(self, vm: KnownVm, mailbox: Mailbox, emit: Inbox, wake: Callable[[], None]) -> None:
        self._vm = vm
        self._mailbox = mailbox
        self._emit = emit
        self._wake = wake
        self._timers = Timers()
        self._channel: Channel | None = None
        self._due = False
        self._failures = 0
        self._deaf_seconds = FIRST_DEAF_SECONDS

    @property
    def due(self) -> bool:
        """Whether it is to be opened now."""
        return self._due and self._channel is not None and not self._channel.is_open

    @property
    def heard_at(self) -> float:
        """When a message last came, by the monotonic clock; -inf while none has."""
        return -math.inf if self._channel is None else self._channel.heard_at

    def renew(self, *, there: bool) -> None:
        """The VM was announced, with such a port or without one."""
        self.close()
        self._failures = 0
        if there:
            self._channel = Channel(self._vm.uuid, self._mailbox, self._emit, self._closed)
            self._due = True

    def close(self) -> None:
        """Let it go. What waits to be written is lost, and nothing opens it again before `renew`."""
        self._timers.cancel()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def want(self) -> None:
        """Open it unless it is open, as soon as that may be."""
        self._due = True
        self._wake()

    def send(self, message: wire.HostMessage) -> None:
        """Hand a message to the guest; lost without a port."""
        if self._channel is not None:
            self._channel.send(message)

    def guest_opened(self) -> None:
        """The agent in the guest has opened its end."""
        if self._channel is not None:
            self._channel.guest_opened()

    async def open(self, streams: Lane) -> None:
        """Open it; a failure is told, and tried again by itself.

        The first try is refused where somebody holds the port. Mostly that is a stream of ours, or of a
        controller before us, which libvirt is about to end. Who is still there at the next try is pushed out.

        Raises:
            Late: libvirt did not answer in time. The port is let go when it opens after all.
        """
        self._due = False
        channel = self._channel
        assert channel is not None
        try:
            opening = partial(channel.open, force=self._failures > 0)
            found = await streams.call(opening, OPEN_LIMIT_SECONDS)
        except DynmemError as error:
            self._failed(str(error))
            channel.retry_seconds = min(2 * channel.retry_seconds, LAST_RETRY_SECONDS)
            self._closed()
        except Late as late:
            late.outcome.add_done_callback(_end_late_stream)
            raise
        else:
            if channel is self._channel:
                channel.opened(found)
                if self._failures >= FAILURES_TO_TELL:
                    self._emit(ChannelChanged(self._vm.uuid, None))
                self._failures = 0
                self._timers.set("deaf", self._deaf_seconds, self._listen)
            else:
                found.end()

    def _failed(self, error: str) -> None:
        """One failure is nothing: the VM may be about to stop. More are the host's fault, and told once."""
        self._failures += 1
        if self._failures == FAILURES_TO_TELL:
            log.error("the agent's port cannot be opened", vm=self._vm.name, error=error)
            self._emit(ChannelChanged(self._vm.uuid, error))

    def _closed(self) -> None:
        if self._channel is not None:
            self._timers.set("open", self._channel.retry_seconds, self.want)

    def _listen(self) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        if channel.heard or self._vm.state is not RunState.RUNNING:
            channel.heard, self._deaf_seconds = False, FIRST_DEAF_SECONDS
            self._timers.set("deaf", self._deaf_seconds, self._listen)
            return
        self._deaf_seconds = min(2 * self._deaf_seconds, LAST_DEAF_SECONDS)
        channel.hang_up()
        self._timers.set("open", FIRST_RETRY_SECONDS, self.want)


def _end_late_stream(outcome: "asyncio.Future[Port]") -> None:
    """A port that opened too late is nobody's: left alone it would be held and never read."""
    if not outcome.cancelled() and outcome.exception() is None:
        outcome.result().end()
