"""The daemon: one poll() loop over the port, the PSI trigger, uevents, the offlining child, and a timer.

It must stay small, in guests of 512 MiB: it imports nothing but what is at the top here, and nothing
later on. Everything heavy (click, psutil, pyroute2, structlog) belongs to agent/commands.py.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import time
from collections.abc import Callable

from agent import __version__, holders, killers, overcommit
from agent.blocks import MemoryBlocks
from agent.codec import BadField, LineTooLong, WireError, decode_from_host, reply_to
from agent.hotplug import Hotplugger
from agent.kernel_events import KernelEvents
from agent.lean import NoReturn
from agent.maximum import Maximum
from agent.overcommit import Overcommit
from agent.port import Port, open_port
from agent.probe import Facts, Look, Probe
from agent.report import MIB, Reporter
from agent.system import Log, Notifier, Stop, protect_from_oom_killer, stop_at_signals
from agent.wire import Ack, Error, Hello, Ping, Welcome, WhoHolds, printable

MOST_LINES_PER_TURN = 64
PORT_RETRY_SECONDS = 1.0
HELLO_EVERY_SECONDS = 0.5  # at most: a host that welcomes every Hello gets no loop out of us
ERROR_EVERY_SECONDS = 1.0
# MemTotal that moves by this much beyond what the balloon explains means memory came or went.
_UNEXPLAINED_BYTES = 8 * MIB
_MOST_RESAMPLES = 3


class Daemon:
    """The agent of one guest. `root` stands for /, `opener` opens the port, `clock` is monotonic seconds."""

    def __init__(
        self,
        root: str = "/",
        opener: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        events: bool = True,
    ) -> None:
        self._clock = clock
        self._log = Log()
        self._probe = Probe(root)
        self._blocks = MemoryBlocks(root)
        self._hotplug = Hotplugger(self._blocks, self._log, self._probe.moved_pages)
        self._port = Port(opener or (lambda: open_port(root)))
        self._boot_id = self._probe.boot_id()
        self._overcommit = Overcommit(root, self._log, allowed=overcommit.wanted(os.environ))
        self._maximum_bytes: int | None = None  # until a host has welcomed us
        self._maximum = Maximum(root)
        now = clock()
        self._reporter = Reporter(self._boot_id, now)
        self._notifier = Notifier()
        self._hello_due: bool | None = None  # the value of Hello.welcomed
        self._hello_at = self._error_at = now - 60.0
        self._holders = holders.Teller(root, now, allowed=holders.wanted(os.environ))
        self._port_retry_at = now
        self._port_trouble = ""
        self._slow_at = now
        self._killers = killers.Watch(root, now)
        self._facts: Facts | None = None
        self._events = KernelEvents(root, self._log, has_psi=self._probe.has_psi, opened=events)
        self._poll = select.poll()
        # What it waits for: the port and for which events, the PSI trigger, uevents, the child.
        self._watched: tuple[tuple[int, int] | None, int | None, int | None, int | None] | None = None

    def run(self) -> NoReturn:
        """Turn the loop until a signal raises."""
        self._notifier.send("READY=1")
        try:
            while True:
                self.turn()
        finally:
            self._notifier.send("STOPPING=1")
            self.close()

    def turn(self, longest_seconds: float = 60.0) -> None:
        """Wait until something is due or comes, at most `longest_seconds`, and deal with it."""
        port = self._port.poll_for()
        self._watch(port)
        now = self._clock()
        wait = min(self._wake_at(now) - now, longest_seconds)
        for fd, events in self._poll.poll(max(0, round(wait * 1000 + 0.5))):
            now = self._clock()
            if port is not None and fd == port[0]:
                self._port_event(events, now)
            elif fd == self._events.psi_fd:
                if self._events.stalls(events):
                    self._reporter.psi_event(now)
            elif fd == self._events.uevents_fd and self._take_uevents(now):
                self._memory_changed(now)
        now = self._clock()
        self._work(now)
        self._notifier.feed_watchdog(now)

    def close(self) -> None:
        """End the child, close every descriptor, and leave the guest's settings as they were."""
        self._overcommit.restore()
        self._maximum.hide()
        self._hotplug.close()
        self._port.close()
        self._probe.close()
        self._events.close()

    def _watch(self, port: tuple[int, int] | None) -> None:
        """Have the poll object wait for what is open now. It is seldom something else than before."""
        wanted = (port, self._events.psi_fd, self._events.uevents_fd, self._hotplug.child_fd())
        if wanted == self._watched:
            return
        self._poll, self._watched = select.poll(), wanted
        _, psi_fd, uevents_fd, child_fd = wanted
        if port is not None:
            self._poll.register(*port)
        if psi_fd is not None:
            self._poll.register(psi_fd, select.POLLPRI)
        if uevents_fd is not None:
            self._poll.register(uevents_fd, select.POLLIN)
        if child_fd is not None:
            self._poll.register(child_fd, select.POLLIN)

    def _wake_at(self, now: float) -> float:
        wake_at = self._port_retry_at
        if self._port.connected:
            if self._holders.busy:
                return now
            wake_at = self._reporter.sample_due()
            if self._hello_due is not None:
                wake_at = min(wake_at, self._hello_at + HELLO_EVERY_SECONDS)
        due = self._hotplug.next_wake(now)
        # Neither the slow work nor the watchdog wakes us: the sample does, at least every 5 s.
        return wake_at if due is None else min(wake_at, due)

    def _work(self, now: float) -> None:
        ack, changed = self._hotplug.step(now)
        if ack is not None:
            self._port.send(ack)
        if changed:
            self._memory_changed(now)
        if not self._port.connected:
            self._holders.forget()  # also where it was a write that found the host gone
            if now >= self._port_retry_at:
                self._look_for_host(now)
            return
        if self._hello_due is not None and now - self._hello_at >= HELLO_EVERY_SECONDS:
            self._send_hello(now)
        if now >= self._reporter.sample_due():
            self._sample(now)
        if now >= self._slow_at:
            # Once a heartbeat has gone, while the host takes it: it wakes who sleeps by then (out_intr()).
            self._slow(now)
        if self._holders.busy and (answer := self._holders.go_on()) is not None:
            self._port.send(answer)

    def _look_for_host(self, now: float) -> None:
        self._port_retry_at = now + self._reporter.cadence.calm_seconds
        try:
            came = self._port.look()
        except OSError as error:
            self._port_retry_at = now + PORT_RETRY_SECONDS
            trouble = "another process has it" if error.errno == errno.EMFILE else str(error.strerror)
            if trouble != self._port_trouble:  # once, not every second for as long as it lasts
                self._log(5, "port", f"waiting for the port: {trouble}")
            self._port_trouble = trouble
            return
        self._port_trouble = ""
        if came:
            self._log(6, "port", "a host is there")
            self._slow(now)
            self._hello_due = False
            self._hello_at = now - HELLO_EVERY_SECONDS

    def _slow(self, now: float) -> None:
        """Worth a look at heartbeats only: policy, watermarks, and blocks where uevents are missing."""
        self._slow_at = now + self._reporter.cadence.heartbeat_seconds
        self._hotplug.keep_policy()
        self._probe.refresh()
        if self._killers.due(now):  # whoever changes watermark_scale_factor changes no minimum
            self._probe.look_around()
        if self._events.uevents is None:
            self._hotplug.scan(now)
        if self._maximum_bytes is not None:
            self._overcommit.keep(self._maximum_bytes, self._kernel_bytes())
        self._reporter.kill_percent = self._killers.percent(self._probe.look().total_bytes, now)
        self._probe.swapless = self._killers.swapless

    def _send_hello(self, now: float) -> None:
        assert self._hello_due is not None
        self._port.send(
            Hello(
                boot_id=self._boot_id,
                agent_version=__version__,
                kernel_release=printable(self._probe.kernel_release(), 64),
                block_bytes=self._blocks.block_bytes,
                psi=self._probe.has_psi,
                online_policy=printable(self._blocks.policy(), 32),
                hotplug=self._hotplug.mode,
                welcomed=self._hello_due,
                holders="on" if self._holders.allowed else "off",
            )
        )
        self._hello_at = now
        self._hello_due = None
        self._reporter.force("hello", now)

    def _sample(self, now: float) -> None:
        look, blocks = self._probe.look(), self._blocks.totals()
        reason = self._reporter.due(look, blocks, now)
        if reason is None:
            return
        facts = self._facts = self._consistent_sample(look, now)
        if (found := self._blocks.totals()) != blocks and reason != "hello":
            reason = "hotplug"
        try:
            self._port.send(self._reporter.report(facts, found, reason, now))
        except BadField as error:  # a kernel with figures that nobody believes
            self._log(4, "report", str(error))

    def _consistent_sample(self, look: Look, now: float) -> Facts:
        """A sample that agrees with the block totals.

        While a DIMM's blocks go online one by one, totals that are 10 ms newer than meminfo make a block
        of free memory look like demand. So when memory came or went, both are read until the totals that
        were known before the sample are those after it. By virtio-mem most of it comes within a block.
        """
        facts, last = self._probe.sample(look), self._facts
        if last is None:
            return facts
        plugged = facts.total_bytes + facts.ballooned_bytes - last.total_bytes - last.ballooned_bytes
        if abs(plugged) < _UNEXPLAINED_BYTES:
            return facts
        for _ in range(_MOST_RESAMPLES):
            before = self._blocks.totals()
            self._catch_up(now)
            if self._blocks.totals() == before:
                break
            self._probe.refresh_floor()
            facts = self._probe.sample()
        return facts

    def _memory_changed(self, now: float) -> None:
        self._probe.refresh_floor()
        self._reporter.force("hotplug", now)

    def _port_event(self, events: int, now: float) -> None:
        for line in self._port.read()[:MOST_LINES_PER_TURN]:
            try:
                if isinstance(line, LineTooLong):
                    raise line
                self._command(line, now)
            except WireError as error:
                self._log(5, "line", f"dropped a line of the host's: {error}")
                if now - self._error_at >= ERROR_EVERY_SECONDS:
                    self._error_at = now
                    self._port.send(reply_to(error))
        if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) and self._port.connected:
            self._port.hung_up()
        if not self._port.connected:
            self._log(6, "port", "the host went")
            self._port_retry_at = now + self._reporter.cadence.calm_seconds
        elif events & select.POLLOUT:
            self._port.flush()

    def _command(self, line: bytes, now: float) -> None:
        message = decode_from_host(line)
        if isinstance(message, Welcome):
            self._reporter.welcome(message)
            self._maximum_bytes = message.maximum_bytes
            self._maximum.show(message.maximum_bytes)
            self._slow_at = now
            self._hello_due = True
        elif isinstance(message, Ping):
            self._port.send(Ack(message.request_id, True, "here"))
            self._reporter.force("heartbeat", now)
        elif isinstance(message, WhoHolds):
            refusal = self._holders.ask(message.request_id, self._probe.look().total_bytes, now)
            if refusal is not None:
                self._port.send(refusal)
        elif isinstance(message, Error):
            text = f"{message.code}: {message.message} (speaks {list(message.supported_versions)})"
            self._log(4, "host", text)
        else:
            ack = self._hotplug.handle(message, self._spare_bytes, now)
            if ack is not None:
                self._port.send(ack)

    def _kernel_bytes(self) -> int:
        """What of RAM is in nobody's MemTotal, the balloon aside."""
        facts, online = self._facts, self._blocks.totals().online_bytes
        return 0 if facts is None else max(0, online - facts.total_bytes - facts.ballooned_bytes)

    def _spare_bytes(self) -> int:
        facts = self._probe.sample()
        return facts.available_bytes - facts.floor_bytes

    def _catch_up(self, now: float) -> None:
        """Know the blocks as they are now: all are read only where nobody tells which have changed."""
        if self._events.tells_of_blocks:
            self._take_uevents(now)
            self._hotplug.look_again()
        else:
            self._hotplug.scan(now)

    def _take_uevents(self, now: float) -> bool:
        """Take note of those that wait. Returns whether the host should hear of it at once."""
        blocks, lost = self._events.of_blocks()
        if not blocks and not lost:
            return False
        changed = self._hotplug.uevents(blocks, now)
        if lost:
            self._hotplug.scan(now)
        return lost or changed


def main(arguments: list[str]) -> int:
    """Run the daemon until a signal of STOPS. Returns the exit status: 1 without the kernel's figures, 2 for
    arguments that make no sense.
    """
    path: str | None = None
    if len(arguments) == 2 and arguments[0] == "--port":
        path = arguments[1]
    elif arguments:
        os.write(2, b"usage: dynmem-agent run [--port DEVICE]\n")
        return 2
    try:
        stop_at_signals()
        protect_from_oom_killer()
        try:
            daemon = Daemon(opener=lambda: open_port(path=path))
        except OSError as error:
            Log()(3, "start", f"{error.filename} cannot be read: {error.strerror}")
            return 1
        gc.collect()
        gc.freeze()  # what is there now stays: no reason to walk it, and a forked child leaves it shared
        daemon.run()
    except Stop:
        return 0
