"""What happened and why, in order: notices, decisions when they change, commands and how they ended.

It is kept in memory for views, and handed to sinks that write it down. A sink that fails is closed and
counted: a full disk costs history, never control. Each VM has its share of it: a guest that makes itself
talked of is told less often, and pushes nobody else's events out.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, Protocol

import structlog

from agent import wire
from host_controller.core.interface import Command, CommandDone, SendToGuest, SetPace
from host_controller.core.policy.plan import Action, Decision, grow_dead_band
from host_controller.core.state import Notice
from host_controller.records.entries import Entries, Entry, Kind
from host_controller.records.samples import Sample, Samples
from host_controller.records.thinning import Allowance

KEPT_ENTRIES: Final = 20_000
NOTICES_AT_ONCE: Final = 120
NOTICES_PER_HOUR: Final = 240
"""About one VM. What a guest says, and each of its resets, may be worth a notice; an hour of a VM that
starts, reboots and changes hands by turns is 40."""
TEXT_CHARS: Final = 500
AGAIN_SECONDS: Final = 60.0
"""Until a move that nobody carries out is told again, with the size that it would have by then."""
_PUBLISHED: Final = {"granted_bytes": "held_bytes", "irreducible_bytes": "lower_bytes"}
"""What readers of the journal know a figure by."""
_NUMBERS: Final = re.compile(r"\d+(\.\d+)?( [KMGT]?i?B)?")

Failure = Literal["api", "attribution", "command", "decision", "event", "history", "recording", "state"]
"""What the controller may fail at, and goes on."""

log = structlog.get_logger(__name__)


class Sink(Protocol):
    """Somebody who keeps the journal. May raise OSError or sqlite3.Error, and is then closed for good."""

    @property
    def problem(self) -> str | None:
        """Why it keeps nothing now."""

    def entry(self, entry: Entry) -> None:
        """Keep an entry."""

    def sample(self, uuid: str, name: str, sample: Sample) -> None:
        """Keep a VM's figures, which have changed."""

    def close(self) -> None:
        """No more will come."""


class Journal:
    """The journal of one controller."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        kept_entries: int = KEPT_ENTRIES,
    ) -> None:
        self.samples = Samples()
        self.errors: Counter[Failure] = Counter()
        """Failures by kind, of sinks and of whoever calls `count_error`."""
        self._clock, self._wall = clock, wall
        self._entries = Entries(kept_entries)
        self._allowances: dict[str, Allowance] = {}
        self._next_number = 1
        self._sinks: list[Sink] = []
        self._lost: str | None = None
        """What a sink said that was closed."""
        self._decisions: dict[str, Decision] = {}
        self._commands: dict[int, Command] = {}
        self._listeners: set[Callable[[], None]] = set()

    # --- reading ---

    def wall_time(self, at: float) -> float:
        """Seconds since 1970 of a time of the controller's clock."""
        return at + self._wall() - self._clock()

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Entries with a larger number, oldest first; those that are no longer kept are left out."""
        return self._entries.after(after)

    def find(self, wanted: str) -> tuple[str, str] | None:
        """UUID and name of a VM that something is known of, running or not, by either of them."""
        return self._entries.find(wanted)

    @property
    def last_number(self) -> int:
        """The number of the newest entry; 0 before the first."""
        return self._next_number - 1

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after entries were added; returns how to end that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    @property
    def problem(self) -> str | None:
        """Why some of what happens is not kept now."""
        return next((one.problem for one in self._sinks if one.problem is not None), self._lost)

    # --- writing ---

    def add_sink(self, sink: Sink) -> None:
        """From now on the sink is told everything."""
        self._sinks.append(sink)

    def notices(self, notices: Iterable[Notice]) -> list[Notice]:
        """Note what the engine has to say. Returns what was noted.

        Of a VM that is talked of too often the rest is counted, and the count is told with the next one.
        """
        noted = []
        for one in notices:
            detail: dict[str, object] = {}
            if one.vm is not None:
                allowance = self._allowances.setdefault(one.vm, Allowance(NOTICES_AT_ONCE, NOTICES_PER_HOUR))
                if not allowance.take(one.at):
                    continue
                if allowance.refused:
                    detail["left_out_before"], allowance.refused = allowance.refused, 0
            self._add(one.at, "notice", one.kind, one.vm, one.name, one.text, detail)
            noted.append(one)
        return noted

    def decided(self, decision: Decision, name: str, *, carried_out: bool = True) -> bool:
        """Note a decision if it is another than the VM's last one. Returns whether it was noted.

        carried_out: whether what is decided is done, so that to decide it again is something new.
        """
        last = self._decisions.get(decision.vm)
        if last is not None and not changed(last, decision, carried_out=carried_out):
            return False
        self._decisions[decision.vm] = decision
        text = decision.reason
        if decision.blocked_by:
            text = f"{text}; held back: {decision.blocked_by}"
        self._add(decision.at, "decision", decision.action, decision.vm, name, text, _inputs(decision))
        return True

    def commanded(self, command: Command, name: str, now: float) -> None:
        """Note a command that is being sent. Looking and asking is not worth an entry."""
        if isinstance(command, SetPace):
            return
        if isinstance(command, SendToGuest):
            if isinstance(command.message, wire.WhoHolds):
                return
            message = command.message
            topic = type(message).__name__
            self._add(now, "command", topic, command.vm, name, f"told the agent: {topic}", message._asdict())
            return
        self._commands[command.ticket] = command
        topic = type(command).__name__
        detail = {key: getattr(command, key) for key in command.__slots__ if key != "vm"}
        self._add(now, "command", topic, command.vm, name, f"sent {topic}", detail)

    def done(self, outcome: CommandDone, name: str, now: float) -> None:
        """Note how a command ended."""
        command = self._commands.pop(outcome.ticket, None)
        topic = type(command).__name__ if command is not None else "command"
        ended = "done" if outcome.error is None else f"failed: {outcome.error}"
        detail: dict[str, object] = {
            "ticket": outcome.ticket,
            "error": None if outcome.error is None else outcome.error[:TEXT_CHARS],
            "timed_out": outcome.timed_out,
            "seconds": round(outcome.seconds, 4),
        }
        self._add(now, "command", topic, outcome.vm, name, f"{topic} {ended}", detail)

    def sampled(self, uuid: str, name: str, sample: Sample) -> None:
        """Note a VM's figures if they have changed."""
        if self.samples.add(uuid, sample):
            self._tell(lambda sink: sink.sample(uuid, name, sample))

    def said(
        self,
        topic: str,
        text: str,
        now: float,
        vm: str | None = None,
        name: str | None = None,
        detail: dict[str, object] | None = None,
    ) -> None:
        """Note what the daemon itself has to say."""
        self._add(now, "notice", topic, vm, name, text, detail or {})

    def forget(self, uuid: str) -> None:
        """The VM has stopped: its next decision is news again. What it may be talked of it has used up."""
        self._decisions.pop(uuid, None)
        for ticket in [ticket for ticket, one in self._commands.items() if one.vm == uuid]:
            del self._commands[ticket]

    def count_error(self, kind: Failure) -> None:
        """One more error of this kind; `status` and the metrics show them."""
        self.errors[kind] += 1

    def close(self) -> None:
        """Close the sinks."""
        self._tell(lambda sink: sink.close())
        self._sinks.clear()

    def _add(
        self,
        at: float,
        kind: Kind,
        topic: str,
        vm: str | None,
        name: str | None,
        text: str,
        detail: dict[str, object],
    ) -> None:
        text = text if len(text) <= TEXT_CHARS else f"{text[: TEXT_CHARS - 1]}…"
        entry = Entry(self._next_number, at, self.wall_time(at), kind, topic, vm, name, text, detail)
        self._next_number += 1
        self._entries.add(entry)
        if len(self._allowances) > KEPT_ENTRIES:
            self._allowances.pop(next(iter(self._allowances)))
        self._tell(lambda sink: sink.entry(entry))
        for listener in list(self._listeners):
            listener()

    def _tell(self, what: Callable[[Sink], None]) -> None:
        for sink in list(self._sinks):
            try:
                what(sink)
            except Exception as error:  # noqa: BLE001 # whatever is wrong with history, control goes on
                self._sinks.remove(sink)
                self._lost = f"it was given up: {error}"
                self.count_error("history")
                log.error("history is no longer written", sink=type(sink).__name__, error=str(error))


def changed(last: Decision, new: Decision, *, carried_out: bool = True) -> bool:
    """Whether a decision says something else than the one before, figures that run on apart."""
    moves = new.action not in (Action.HOLD, Action.WAIT)
    if not carried_out and moves and new.action is last.action and new.at - last.at < AGAIN_SECONDS:
        return False
    if new.target_bytes is not None and new.action in (Action.GROW, Action.SHRINK, Action.CORRECT):
        known = last.target_bytes
        if carried_out or known is None or abs(new.target_bytes - known) > grow_dead_band(known):
            return True
    return (last.action, last.alias, last.size_bytes, _shape(last.reason), _shape(last.blocked_by)) != (
        new.action,
        new.alias,
        new.size_bytes,
        _shape(new.reason),
        _shape(new.blocked_by),
    )


def _shape(text: str | None) -> str | None:
    return None if text is None else _NUMBERS.sub("#", text)


def _inputs(decision: Decision) -> dict[str, object]:
    estimate = decision.estimate
    detail: dict[str, object] = {
        _PUBLISHED.get(key, key): value
        for key in ("granted_bytes", "goal_bytes", "target_bytes", "size_bytes", "zone", "alias")
        if (value := getattr(decision, key)) is not None
    }
    if estimate is not None:
        sizes = estimate._asdict()
        del sizes["at"]
        detail["estimate"] = {_PUBLISHED.get(key, key): size for key, size in sizes.items()}
    return detail
