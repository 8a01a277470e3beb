"""One host's controller at work: one inbox, decisions soon after what came in, and nothing that stops it.

    hypervisor, timer, operator ──► put() ──► inbox ──► engine.handle … engine.decide ──► hypervisor.submit
                                                                   └────────► chronicle ──► journal

Everything here runs in one asyncio loop. Whoever needs the engine's state reads it between two steps.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import structlog

from host_controller.control.attribution import Attribution
from host_controller.control.chronicle import Chronicle
from host_controller.control.dry_run import DryRun, harmless
from host_controller.control.greeting import Greeter
from host_controller.control.guest_notes import GuestNotes
from host_controller.control.pausing import MarksHeld, Pausing
from host_controller.control.remembered import Remembered, inherit, remembered
from host_controller.control.starts import Starts
from host_controller.control.state_dir import StateDir
from host_controller.core.engine import Engine, Event
from host_controller.core.interface import (
    Command,
    CommandDone,
    ConnectionChanged,
    GuestSpoke,
    Hypervisor,
    Resume,
    SendToGuest,
    Suspend,
    Tick,
)
from host_controller.core.model import Settings
from host_controller.core.operations.standstill import Stage
from host_controller.core.operator_events import HoldVm, OperatorEvent, SettingsChanged
from host_controller.core.vm.record import Vm
from host_controller.records.journal import Journal
from host_controller.records.recording import Recorder

COALESCE_SECONDS: Final = 0.05
"""Decisions are at least so far apart; the first thing that happens after a pause is decided on at once."""
AWAITED_SECONDS: Final = 0.01
"""The same where a report may have ended a step of taking: its guest has nothing to do until the next."""
TICK_SECONDS: Final = 1.0
LATENESS_WINDOW: Final = 60
LET_RUN_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Controller:
    """Drives an engine over a hypervisor until it is stopped.

    settings: what decisions depend on. state_dir: opened; None keeps nothing (tests). after_tick: called
    every second after the decision, so it proves that the loop lives (watchdog). engine: makes the one that
    decides; benchmarks put other laws in its place.
    """

    def __init__(
        self,
        hypervisor: Hypervisor,
        settings: Settings,
        journal: Journal | None = None,
        *,
        state_dir: StateDir | None = None,
        before: Remembered | None = None,
        recorder: Recorder | None = None,
        dry_run: bool = False,
        connection: str = "the hypervisor",
        after_tick: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        engine: Callable[[Settings], Engine] = Engine,
    ) -> None:
        self.engine = engine(settings)
        self.journal = journal or Journal(clock)
        self.dry_run = dry_run
        self.started_at = clock()
        self.pausing = Pausing(hypervisor if isinstance(hypervisor, MarksHeld) and not dry_run else None)
        self.latenesses: deque[float] = deque(maxlen=LATENESS_WINDOW)
        """How late each of the last ticks came and was handled, seconds: how late this loop is, also while
        it is blocked. To gather events for COALESCE_SECONDS is not to be late.
        """
        self.connection = connection
        """The hypervisor's address, or what is wrong with the way to it."""
        self.guest_notes = GuestNotes()
        self.starts = Starts()
        self.attribution = Attribution(self.engine)
        self._hypervisor = hypervisor
        self._clock = clock
        self._state_dir = state_dir
        self._recorder = recorder
        self._after_tick = after_tick
        self._dry_run = DryRun(self.engine)
        self._greeter = Greeter()
        self._chronicle = Chronicle(self.engine, self.journal, dry_run=dry_run)
        self._tick_due = clock()
        self._inbox: deque[tuple[float, Event]] = deque()
        self._wake = asyncio.Event()
        self._awaited = asyncio.Event()
        self._stopping = asyncio.Event()
        self._decided_at = -math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        if before is not None:
            inherit(self.engine.state, before)
            self.pausing.paused.update(before.paused)
            self.pausing.paused_all = before.paused_all

    # --- what others ask of it ---

    def now(self) -> float:
        """The controller's clock."""
        return self._clock()

    def put(self, event: Event) -> None:
        """Take in an event, to be handled and decided upon at once or within 50 ms. Never blocks."""
        self._inbox.append((self._clock(), event))
        self._wake.set()
        if isinstance(event, GuestSpoke) and self.engine.awaits_report(event.vm):
            self._awaited.set()

    def tasks(self) -> int:
        """How many tasks there are in the loop, of whoever they are."""
        return 0 if self._loop is None else len(asyncio.all_tasks(self._loop))

    def settled(self) -> bool:
        """Whether all that operators and starts wish for is in the books.

        Hypervisor and guests are not waited for: on a busy host there is always something of theirs to come.
        """
        return not any(isinstance(event, OperatorEvent) for _, event in self._inbox)

    def hold(self, uuid: str, on: bool) -> None:
        """Pause or resume one VM. That outlives its restarts and the controller's, and goes along with it."""
        if self.pausing.hold(uuid, on) and uuid in self.engine.vms:
            self.put(HoldVm(uuid, on))

    def hold_all(self, on: bool) -> None:
        """Pause every VM, also those that start later, or end that; VMs paused one by one stay paused."""
        for uuid in self.pausing.hold_all(on, self.engine.vms):
            self.put(HoldVm(uuid, on))

    def ask_who_holds(self, vm: Vm) -> None:
        """Ask its agent who holds its memory, where it may be asked; see `attribution`."""
        now = self._clock()
        question = self.attribution.ask(vm, now)
        if question is not None:
            self._send(question, now)

    def apply(self, settings: Settings) -> None:
        """A new configuration is in force."""
        self.put(SettingsChanged(settings))

    def stop(self) -> None:
        """End `run`; nothing more is decided, and every VM stays as it is."""
        self._stopping.set()

    # --- at work ---

    async def run(self) -> None:
        """Work until `stop`, or until the first failure of the loop itself."""
        self._loop = asyncio.get_running_loop()
        tasks = [
            asyncio.create_task(self._decide_forever(), name="decisions"),
            asyncio.create_task(self._tick_forever(), name="ticks"),
        ]
        starting = asyncio.create_task(self._hypervisor.start(self.put), name="hypervisor")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        everything: set[asyncio.Task[Any]] = {*tasks, starting, stopping}
        try:
            waiting = everything
            while stopping in waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
            await self._let_run()
            self._close()
            await self._hypervisor.stop()

    async def _tick_forever(self) -> None:
        due = self._clock()
        while True:
            self._tick_due = due
            self.put(Tick())
            due = max(due + TICK_SECONDS, self._clock())
            await asyncio.sleep(due - self._clock())

    async def _decide_forever(self) -> None:
        while True:
            await self._wake.wait()
            await self._gather()
            self._wake.clear()
            self._awaited.clear()
            self._step()

    async def _gather(self) -> None:
        """Let what comes soon after a decision come, before the next one."""
        wait = self._decided_at + AWAITED_SECONDS - self._clock()
        if wait > 0:
            await asyncio.sleep(wait)
        wait = self._decided_at + COALESCE_SECONDS - self._clock()
        if wait > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awaited.wait(), wait)

    def _step(self) -> None:
        """Handle everything there is, decide, and send."""
        touched: set[str] = set()
        ticked = False
        greetings: list[Command] = []
        while self._inbox:
            at, event = self._inbox.popleft()
            if isinstance(event, Tick):
                ticked = True
                handled_late = self._clock() - max(at, self._decided_at + COALESCE_SECONDS)
                self.latenesses.append(max(0.0, at - self._tick_due) + max(0.0, handled_late))
            else:
                touched.add(getattr(event, "vm", ""))
                greeting = self._greeter.hear(event, at)  # type: ignore[arg-type] # operator events pass through
                if greeting is not None:
                    greetings.append(greeting)
            self._handle(event, at)
        now = self._decided_at = self._clock()
        commands = self._decide(now)
        remembers = self._remember()
        questions = self._questions(now) if ticked else []
        for command in (*greetings, *commands, *questions):
            if isinstance(command, Suspend) and not remembers:
                # After us nobody would let it run.
                self.put(CommandDone(command.vm, command.ticket, "not sent: it could not be remembered"))
                continue
            self._send(command, now)
        self._chronicle.write_down(touched, now)
        if ticked:
            self._chronicle.forget_old(now)
            self._after_tick()

    def _handle(self, event: Event, at: float) -> None:
        self.guest_notes.hear(event)
        if not self.dry_run:  # where everything may start
            self.starts.hear(event, self.engine.ledger.reservations)
        name = self._chronicle.hear(event, at)
        if isinstance(event, ConnectionChanged):
            self.connection = event.detail
        try:
            self._record(lambda recorder: recorder.handled(event, at))
            self.engine.handle(event, at)
            notices, noise = self.attribution.hear(event, at)
            self._chronicle.tell(notices)
            if noise is not None:
                self.put(noise)
        except Exception as error:  # noqa: BLE001 # an event that cannot be handled harms no other
            self._chronicle.failed("event", error, what=type(event).__name__, vm=name)
        if (held := self.pausing.hear(event)) is not None:
            self._handle(HoldVm(held, True), at)

    def _decide(self, now: float) -> list[Command]:
        answers: list[CommandDone] = []
        try:
            if self.dry_run:
                commands, answers = self._dry_run.decide(now)
            else:
                commands = self.engine.decide(now)
        except Exception as error:  # noqa: BLE001 # the next tick tries again, with what is known then
            self._chronicle.failed("decision", error)
            return []
        for answer in answers:
            self.put(answer)
        self._record(lambda recorder: recorder.decided(commands, now))
        return commands

    def _questions(self, now: float) -> list[SendToGuest]:
        try:
            return self.attribution.due(now)
        except Exception as error:  # noqa: BLE001 # nothing depends on it
            self._chronicle.failed("attribution", error)
            return []

    def _send(self, command: Command, now: float) -> None:
        if self.dry_run and not harmless(command):
            return
        name = self._chronicle.name_of(command.vm)
        self._chronicle.commanded(command, now)
        try:
            self._hypervisor.submit(command)
        except Exception as error:  # noqa: BLE001 # what cannot be sent to one VM is sent to the others
            self._chronicle.failed("command", error, what=type(command).__name__, vm=name)

    # --- what outlives it ---

    def _remember(self) -> bool:
        """Whether the next controller would know what this one has done."""
        if self._state_dir is None:
            return True
        try:
            paused = self.pausing.paused, self.pausing.paused_all
            self._state_dir.save(remembered(self.engine.state, *paused, self._clock()))
        except OSError as error:
            self._chronicle.failed("state", error)
            return False
        return True

    async def _let_run(self) -> None:
        """Whoever stands still because of us runs on: nobody may be there to let it run later."""
        state = self.engine.state
        standing = [uuid for uuid, one in state.standstills.items() if one.stage is not Stage.DUE]
        waiting = {state.ticket(): uuid for uuid in standing}
        for ticket, uuid in waiting.items():
            self._send(Resume(uuid, ticket), self._clock())
        end = self._clock() + LET_RUN_SECONDS
        while waiting and self._clock() < end:
            await asyncio.sleep(COALESCE_SECONDS)
            for _, event in self._inbox:
                if isinstance(event, CommandDone) and event.ticket in waiting and event.error is None:
                    del state.standstills[waiting.pop(event.ticket)]
        self._remember()

    def _record(self, what: Callable[[Recorder], None]) -> None:
        if self._recorder is None:
            return
        try:
            what(self._recorder)
        except Exception as error:  # noqa: BLE001 # a full disk costs the recording, never control
            self._chronicle.failed("recording", error)
            self._recorder = None

    def _close(self) -> None:
        self._record(lambda recorder: recorder.close())
        self._recorder = None
        self.journal.close()
