"""Everything that came into the engine and everything that came out, as JSON lines: to be played again.

    {"dynmem-recording": 1, "at": …, "wall": …, "settings": {…}}        the first line
    {"at": …, "event": "VmAppeared", "data": {…}}                       Engine.handle was called
    {"at": …, "decide": [{"command": "SetTarget", "data": {…}}, …]}     Engine.decide was called

The engine is a pure step over events, so playing a recording gives the same commands again; with other
settings it tells what would have happened to the very same reports.
"""

import io
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from agent import codec
from host_controller.core.engine import Engine, Event
from host_controller.core.interface import (
    Command,
    GuestSpoke,
    HypervisorEvent,
    SendToGuest,
    Tick,
    VmAppeared,
    VmConfigChanged,
)
from host_controller.core.model import Settings
from host_controller.core.operator_events import OperatorEvent
from host_controller.errors import InputError
from host_controller.private import open_private

VERSION: Final = 1
FLUSH_SECONDS: Final = 1.0
LONGEST_LINE: Final = 1 << 24
"""Of 10,000 VMs' commands in one decision."""
_DAMAGE: Final = (
    KeyError,
    TypeError,
    AttributeError,
    ValueError,
    OverflowError,
    RecursionError,
    msgspec.DecodeError,
    codec.WireError,
)
_EVENTS: Final[dict[str, type[Any]]] = {
    one.__name__: one for one in (*get_args(HypervisorEvent), *get_args(OperatorEvent), Tick)
}
_COMMANDS: Final[dict[str, type[Any]]] = {one.__name__: one for one in get_args(Command)}


@dataclass(frozen=True, slots=True)
class Handled:
    """An event was taken in."""

    at: float
    event: Event


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision was made."""

    at: float
    commands: list[Command]


class Recorder:
    """Writes a recording. Its methods raise OSError when the file cannot be written."""

    def __init__(self, path: Path, settings: Settings, now: float) -> None:
        self._file = os.fdopen(open_private(path), "wb", buffering=1 << 16)
        self._flushed_at = now
        self._write({"dynmem-recording": VERSION, "at": now, "wall": time.time(), "settings": settings})

    def handled(self, event: Event, now: float) -> None:
        """`Engine.handle(event, now)` is being called."""
        self._write({"at": now, "event": type(event).__name__, "data": _plain(event)})

    def decided(self, commands: Iterable[Command], now: float) -> None:
        """`Engine.decide(now)` has given these commands."""
        told = [{"command": type(one).__name__, "data": _plain(one)} for one in commands]
        self._write({"at": now, "decide": told})
        if now - self._flushed_at >= FLUSH_SECONDS:
            self._flushed_at = now
            self._file.flush()

    def close(self) -> None:
        """The recording ends."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")


class Recording:
    """A recording that is read: its settings, and what follows.

    A line that is damaged is left out and counted: what is decided after it may be another thing than was.

    Raises:
        InputError: it is no recording, or of another version.
    """

    def __init__(self, stream: io.BufferedIOBase | io.BytesIO, name: str = "recording") -> None:
        self.damaged = 0
        """Lines that were left out so far."""
        self._stream = stream
        self._name = name
        try:
            header = _load(stream.readline(LONGEST_LINE))
            if header.get("dynmem-recording") != VERSION:
                raise InputError(f"{name} is not a recording of version {VERSION}", hint="record it anew")
            self.started = float(header["at"])
            self.settings: Settings = msgspec.convert(header["settings"], Settings)
        except _DAMAGE as error:
            raise InputError(f"{name}, line 1: {error}", hint="it is no recording") from None

    def __iter__(self) -> Iterator[Handled | Decided]:
        while line := self._stream.readline(LONGEST_LINE):
            if not line.endswith(b"\n"):
                if len(line) < LONGEST_LINE:
                    return  # the controller was killed while it wrote
                self.damaged += 1
                self._skip_line()
                continue
            try:
                one = _read(line)
            except _DAMAGE:
                self.damaged += 1
            else:
                yield one

    def _skip_line(self) -> None:
        while (rest := self._stream.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass


def _load(line: bytes) -> dict[str, Any]:
    return msgspec.json.decode(line, type=dict[str, Any])


def _read(line: bytes) -> Handled | Decided:
    one = _load(line)
    at = one["at"]
    if not isinstance(at, int | float):
        raise TypeError("a time that is no number")
    if "decide" in one:
        return Decided(float(at), [_command(command) for command in one["decide"]])
    return Handled(float(at), _event(one))


def replay(
    recording: Recording, settings: Settings | None = None
) -> Iterator[tuple[Engine, Decided, list[Command]]]:
    """Play a recording: after each decision the engine, what was decided then, and what is decided now.

    With other `settings` it goes on giving the reports of the recorded run: what would have been done
    first is exact, what would have followed is not known.
    """
    engine = Engine(settings or recording.settings)
    for one in recording:
        if isinstance(one, Handled):
            engine.handle(one.event, one.at)
        else:
            yield engine, one, engine.decide(one.at)


def _plain(one: Any) -> Any:
    # Messages are a union of tuples, which only their own code can tell apart.
    if isinstance(one, GuestSpoke):
        return {"vm": one.vm, "line": codec.encode(one.untrusted_message).decode().rstrip()}
    if isinstance(one, SendToGuest):
        return {"vm": one.vm, "line": codec.encode(one.message).decode().rstrip()}
    return one


def _event(line: dict[str, Any]) -> Event:
    kind, data = _EVENTS[line["event"]], line["data"]
    if kind is GuestSpoke:
        return GuestSpoke(data["vm"], codec.decode_from_guest(data["line"].encode()))
    found: Event = msgspec.convert(data, kind)
    if isinstance(found, VmAppeared | VmConfigChanged) and found.config.uuid != found.vm:
        raise ValueError("one VM with another's configuration")
    return found


def _command(line: dict[str, Any]) -> Command:
    kind, data = _COMMANDS[line["command"]], line["data"]
    if kind is SendToGuest:
        return SendToGuest(data["vm"], codec.decode_from_host(data["line"].encode()))
    return msgspec.convert(data, kind)  # type: ignore[no-any-return] # _COMMANDS holds nothing else
