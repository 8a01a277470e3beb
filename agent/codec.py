"""From a message to its line and back: framing and validation, no I/O. `wire.py` has the messages.

A line is one JSON object in UTF-8, at most MAX_LINE_BYTES with its newline. Everything read from a
peer is hostile until decode_from_guest() or decode_from_host() has returned it. Exceptions:

    WireError
    ├── LineTooLong          more than MAX_LINE_BYTES without a newline
    ├── NotJson              not UTF-8, not JSON, nested too deeply
    ├── UnknownVersion       a version that we do not speak; answer with reply_to()
    └── NotAMessage          JSON, but no object, or without a type
        ├── UnknownType      a type that this sender does not send
        └── BadField         missing, of a wrong type, out of range, or contradicting another field
"""

import json
from itertools import compress
from operator import ne

from agent.lean import Any, NamedTuple, NoReturn, Union
from agent.values import Integer, Kind
from agent.wire import (
    SUPPORTED_VERSIONS,
    VERSION,
    Ack,
    Error,
    GuestMessage,
    Held,
    Hello,
    HostMessage,
    Message,
    Offline,
    Online,
    OnlineZone,
    Ping,
    Report,
    Welcome,
    WhoHolds,
    printable,
)

MAX_LINE_BYTES = 4096

_VERSION_NUMBER = Integer(1 << 31)
_NUMBERS = (int, float)


class WireError(Exception):
    """What a peer sent is not a message of ours. The text says why; nothing of the peer's is in it
    but what was validated or shortened by repr().
    """


class LineTooLong(WireError):  # noqa: N818 # read as what the line is
    """A line passed MAX_LINE_BYTES; the rest up to the next newline is skipped."""


class NotJson(WireError):  # noqa: N818 # read as what the line is
    """Not UTF-8, or not JSON as RFC 8259 has it (NaN and Infinity are refused)."""


class UnknownVersion(WireError):  # noqa: N818 # read as what the line is
    """The peer speaks a version that we do not; `version` is what it said."""

    def __init__(self, version: int) -> None:
        super().__init__(f"version {version} is not spoken here, only {list(SUPPORTED_VERSIONS)}")
        self.version = version


class NotAMessage(WireError):  # noqa: N818 # read as what the line is
    """JSON, but without the shape of a message."""


class UnknownType(NotAMessage):
    """A type that the sender may not send, or that is newer than we are."""


class BadField(NotAMessage):
    """A field is missing, of a wrong type, out of range, or contradicts another one."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"field {field!r} {problem}")
        self.field = field


_REQUIRED: Any = object()


class Field(NamedTuple):
    """A field of a message: its name here, its key on the wire, what is accepted, and its default."""

    name: str
    key: str
    kind: Kind
    default: Any


def fields_of(cls: type[Any]) -> tuple[Field, ...]:
    """How each field of a message is written, as its class says."""
    noted = {name: annotation.__metadata__[0] for name, annotation in cls.__annotations__.items()}
    return tuple(
        Field(name, on.key, on.kind, cls._field_defaults.get(name, _REQUIRED)) for name, on in noted.items()
    )


# What a message is, how it is written and what is accepted stands once: at its class.
_NAMES: dict[type[Any], str] = {
    Hello: "hello",
    Report: "report",
    Ack: "ack",
    Held: "held",
    Error: "error",
    Welcome: "welcome",
    OnlineZone: "online-zone",
    Offline: "offline",
    Online: "online",
    Ping: "ping",
    WhoHolds: "who-holds",
}
_FIELDS: dict[type[Any], tuple[str, tuple[Field, ...]]] = {
    cls: (name, fields_of(cls)) for cls, name in _NAMES.items()
}
# The last message, and how each of its fields was written: most of a report is as it was in the last. Whoever
# writes replaces both at once, so a thread beside it, and a message that is refused midway, change nothing.
_LAST: dict[type[Any], tuple[tuple[Any, ...], list[str]]] = {
    cls: ((_REQUIRED,) * len(fields), [""] * len(fields)) for cls, (_, fields) in _FIELDS.items()
}

_FROM_GUEST = {_FIELDS[cls][0]: cls for cls in (Hello, Report, Ack, Held, Error)}
_FROM_HOST = {_FIELDS[cls][0]: cls for cls in (Welcome, OnlineZone, Offline, Online, Ping, WhoHolds, Error)}

# (smaller, larger): what the kernel guarantees within one reading, and a liar does not keep.
_NOT_ABOVE = (
    ("available_bytes", "total_bytes"),
    ("free_bytes", "total_bytes"),
    ("reclaimable_bytes", "total_bytes"),
    ("floor_bytes", "total_bytes"),
    ("swap_used_bytes", "swap_total_bytes"),
    ("swap_cached_bytes", "swap_total_bytes"),
    ("swap_disk_used_bytes", "swap_used_bytes"),
    ("swap_disk_free_bytes", "swap_total_bytes"),
    ("movable_bytes", "online_bytes"),
)


def encode(message: Message) -> bytes:
    """The line of a message, newline included. Fields at their default are left out.

    Raises BadField for a value that the other side would refuse, LineTooLong above MAX_LINE_BYTES.
    """
    kind_name, fields = _FIELDS[type(message)]
    last, pieces = _LAST[type(message)]
    pieces = pieces.copy()
    for at in compress(range(len(fields)), map(ne, message, last)):
        pieces[at] = _piece(fields[at], message[at])
    _LAST[type(message)] = message, pieces
    line = f'{{"v":{VERSION},"t":"{kind_name}"{"".join(pieces)}}}\n'.encode("ascii")
    if len(line) > MAX_LINE_BYTES:
        raise LineTooLong(f"a {kind_name} of {len(line)} bytes; {MAX_LINE_BYTES} are allowed")
    return line


def _piece(field: Field, value: Any) -> str:
    """A field as it stands in a line; nothing at its default."""
    if value == field.default:
        return ""
    try:
        raw = field.kind.dump(value)
    except ValueError as error:
        raise BadField(field.name, str(error)) from None
    # A number is written here as there: the encoder makes an encoder for each that is no string.
    return f',"{field.key}":{raw if type(raw) in _NUMBERS else _ENCODER.encode(raw)}'


def decode_from_guest(line: bytes) -> GuestMessage:
    """The message in a line that a guest sent (newline optional). Raises WireError only."""
    message = _decode(line, _FROM_GUEST)
    if isinstance(message, Report):
        _check_report(message)
    return message  # type: ignore[no-any-return] # _FROM_GUEST holds nothing else


def decode_from_host(line: bytes) -> HostMessage:
    """The message in a line that the host sent (newline optional). Raises WireError only.

    Intervals of a Welcome outside of sane ranges are clamped, not refused.
    """
    return _decode(line, _FROM_HOST)  # type: ignore[no-any-return] # _FROM_HOST holds nothing else


def reply_to(error: WireError) -> Error:
    """The Error message to answer a bad line with. Rate-limit it; never answer an Error."""
    codes = {UnknownVersion: "unknown-version", LineTooLong: "line-too-long", NotJson: "not-json"}
    return Error(codes.get(type(error), "bad-message"), printable(str(error)))


def _decode(line: bytes, known: dict[str, type[Any]]) -> Any:
    if len(line) > MAX_LINE_BYTES:
        raise LineTooLong(f"{len(line)} bytes; {MAX_LINE_BYTES} are allowed")
    obj = _load_object(line)
    type_name = obj.get("t")
    try:
        version = _VERSION_NUMBER.load(obj.get("v"))
    except ValueError as error:
        raise BadField("v", str(error)) from None
    # An Error keeps its shape in every version, so that two versions can say that they differ.
    if version not in SUPPORTED_VERSIONS and type_name != "error":
        raise UnknownVersion(version)
    if not isinstance(type_name, str):
        raise NotAMessage("an object without a type")
    cls = known.get(type_name)
    if cls is None:
        raise UnknownType(f"type {printable(type_name, 32)!r} is not one of {', '.join(known)}")
    values: dict[str, object] = {}
    for name, key, kind, default in _FIELDS[cls][1]:
        if key not in obj:
            if default is _REQUIRED:
                raise BadField(name, "is missing")
            continue
        try:
            values[name] = kind.load(obj[key])
        except ValueError as error:
            raise BadField(name, str(error)) from None
    return cls(**values)


def _load_object(line: bytes) -> dict[str, Any]:
    try:
        obj = _DECODER.decode(line.decode("utf-8"))
    except RecursionError:
        raise NotJson("nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, an integer of too many digits
        raise NotJson(printable(str(error))) from None
    if not isinstance(obj, dict):
        raise NotAMessage(f"a JSON {type(obj).__name__}, not an object")
    return obj


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # json.dumps, likewise
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # json.loads would make one for each line


def _check_report(report: Report) -> None:
    if report.total_bytes == 0:
        raise BadField("total_bytes", "is 0")
    for small, large in _NOT_ABOVE:
        if getattr(report, small) > getattr(report, large):
            raise BadField(small, f"is above {large}")
    if report.page_bytes & (report.page_bytes - 1) or report.page_bytes < 4096:
        raise BadField("page_bytes", "is no size of a page")
    psi = (
        report.psi_some_avg10,
        report.psi_full_avg10,
        report.psi_some_total_us,
        report.psi_full_total_us,
    )
    if any(one is None for one in psi) and any(one is not None for one in psi):
        raise BadField("psi_some_avg10", "is there without the other three of PSI, or missing beside them")


class LineReader:
    """Cuts a byte stream into lines. Holds at most MAX_LINE_BYTES, however long a line is."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[Union[bytes, LineTooLong]]:
        """The lines that `data` completes, without their newlines; empty lines are left out.

        A line over MAX_LINE_BYTES gives one LineTooLong, when it passes the limit, in its place.
        """
        found: list[Union[bytes, LineTooLong]] = []
        at = 0
        while at < len(data):
            end = data.find(b"\n", at)
            stop = len(data) if end < 0 else end
            if not self._skipping:
                if len(self._buffer) + stop - at >= MAX_LINE_BYTES:
                    found.append(LineTooLong(f"more than {MAX_LINE_BYTES} bytes without a newline"))
                    self._buffer.clear()
                    self._skipping = True
                else:
                    self._buffer += data[at:stop]
            if end < 0:
                break
            if not self._skipping and self._buffer.strip():
                found.append(bytes(self._buffer))
            self._buffer.clear()
            self._skipping = False
            at = end + 1
        return found

    def reset(self) -> None:
        """Forget a half line: the stream was opened anew."""
        self._buffer.clear()
        self._skipping = False
