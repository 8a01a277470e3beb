"""The contract between agent and host: framing and messages, no I/O. PROTOCOL.md is its prose.

A line is one JSON object in UTF-8, at most MAX_LINE_BYTES with its newline. Everything read from a
peer is hostile until decode_from_guest() or decode_from_host() has returned it. Exceptions:

    WireError
    ├── LineTooLong          more than MAX_LINE_BYTES without a newline
    ├── NotJson              not UTF-8, not JSON, nested too deeply
    ├── UnknownVersion       a version that we do not speak; answer with reply_to()
    └── NotAMessage          JSON, but no object, or without a type
        ├── UnknownType      a type that this sender does not send
        └── BadField         missing, of a wrong type, out of range, or contradicting another field

Messages are NamedTuples, not dataclasses: importing dataclasses costs the guest's daemon 1 MiB more.
Sizes are bytes here; on the wire a report carries KiB, to stay below 100 B/s when all is calm.
"""

import json
from itertools import compress
from operator import ne

from agent.lean import Annotated, Any, Literal, NamedTuple, NoReturn, Optional, Union
from agent.values import MAX_SIZE_BYTES, Choice, Decimal, Flag, Holders, Integer, Kib, Kind, Text, Versions

VERSION = 1
SUPPORTED_VERSIONS = (VERSION,)
MAX_LINE_BYTES = 4096
PORT_NAME = "org.dynmem.agent.0"

MAX_DETAIL_CHARS = 200
MOST_PAGE_BYTES = 1 << 18  # the largest base page of any Linux architecture is 256 KiB

Zone = Literal["movable", "kernel"]
Hotplug = Literal["kernel", "agent", "none", "other"]
Willing = Literal["on", "off", "unknown"]
HeldBy = Literal["services", "processes", "other"]
Seen = Literal["all", "cut", "hidden", "other"]
Reason = Literal["heartbeat", "moved", "pressure", "hotplug", "hello", "other"]
# "other" stands for a word that a newer agent has; no agent says it.


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


class On(NamedTuple):
    """How a field is written on the wire: its key, and the values that are accepted."""

    key: str
    kind: Kind


_COUNT = Integer()
_SIZE = Integer(MAX_SIZE_BYTES)
_REQUEST = On("id", _COUNT)
_ZONE = On("zone", Choice("movable", "kernel"))
_START, _LENGTH = On("start", _SIZE), On("size", _SIZE)
_KIB = Kib()
_PERCENT = Decimal(0.0, 100.0)
_NAME = Text(64)
_DETAIL = Text(MAX_DETAIL_CHARS)
_HEX = "0123456789abcdef"
_VERSION_NUMBER = Integer(1 << 31)


class Hello(NamedTuple):
    """Guest: who I am. First message after the port opens, and the answer to every Welcome.

    boot_id: /proc/sys/kernel/random/boot_id. block_bytes: size of a memory block, 0 without memory
    hotplug. psi: the kernel has PSI. online_policy: auto_online_blocks, "" if there is none. hotplug:
    who brings new memory online. welcomed: this Hello answers a Welcome and must not be answered.
    holders: whether it answers WhoHolds; "off": its administrator does not want it; "unknown": too old.
    """

    boot_id: Annotated[str, On("boot", Text(36, least=36, alphabet=_HEX + "-"))]
    agent_version: Annotated[str, On("agent", _NAME)]
    kernel_release: Annotated[str, On("kernel", _NAME)]
    block_bytes: Annotated[int, On("block", _SIZE)]
    psi: Annotated[bool, On("psi", Flag())]
    online_policy: Annotated[str, On("policy", Text(32))]
    hotplug: Annotated[Hotplug, On("hotplug", Choice("kernel", "agent", "none", other="other"))]
    welcomed: Annotated[bool, On("welcomed", Flag())] = False
    holders: Annotated[Willing, On("holders", Choice("on", "off", other="unknown"))] = "unknown"


class Report(NamedTuple):
    """Guest: memory facts of one instant, so that usable minus available means something.

    Sizes in bytes, 0..1 PiB. `*_pages`, `major_faults` and `psi_*_total_us` count from boot.
    PSI averages are percent, 0..100; the four are None together when the kernel has no PSI.
    commit_limit_bytes: CommitLimit where the kernel refuses by it (vm.overcommit_memory=2), else 0.
    kill_percent: the available share of MemTotal at which a daemon in the guest kills.
    page_bytes: the page that the counters count.
    sequence restarts at 0 with the agent. Sources of each figure: agent/probe.py.
    """

    boot_id_prefix: Annotated[str, On("b", Text(8, least=8, alphabet=_HEX))]
    sequence: Annotated[int, On("n", _COUNT)]
    uptime_seconds: Annotated[float, On("up", Decimal(0.0, 1e10))]
    total_bytes: Annotated[int, On("mt", _KIB)]
    available_bytes: Annotated[int, On("ma", _KIB)]
    free_bytes: Annotated[int, On("mf", _KIB)]
    reclaimable_bytes: Annotated[int, On("rc", _KIB)] = 0
    swap_total_bytes: Annotated[int, On("st", _KIB)] = 0
    swap_used_bytes: Annotated[int, On("su", _KIB)] = 0
    swap_cached_bytes: Annotated[int, On("sc", _KIB)] = 0
    swap_disk_used_bytes: Annotated[int, On("sd", _KIB)] = 0
    swap_disk_free_bytes: Annotated[int, On("sf", _KIB)] = 0
    swap_in_pages: Annotated[int, On("si", _COUNT)] = 0
    committed_bytes: Annotated[int, On("ca", _KIB)] = 0
    psi_some_avg10: Annotated[Optional[float], On("ps", _PERCENT)] = None
    psi_full_avg10: Annotated[Optional[float], On("pf", _PERCENT)] = None
    psi_some_total_us: Annotated[Optional[int], On("pst", _COUNT)] = None
    psi_full_total_us: Annotated[Optional[int], On("pft", _COUNT)] = None
    refault_pages: Annotated[int, On("rf", _COUNT)] = 0
    major_faults: Annotated[int, On("mj", _COUNT)] = 0
    online_bytes: Annotated[int, On("on", _KIB)] = 0
    offline_bytes: Annotated[int, On("of", _KIB)] = 0
    movable_bytes: Annotated[int, On("mv", _KIB)] = 0
    ballooned_bytes: Annotated[int, On("bl", _KIB)] = 0
    floor_bytes: Annotated[int, On("fl", _KIB)] = 0
    commit_limit_bytes: Annotated[int, On("cl", _KIB)] = 0
    kill_percent: Annotated[int, On("kp", Integer(100))] = 0
    page_bytes: Annotated[int, On("pg", Integer(MOST_PAGE_BYTES))] = 4096
    reason: Annotated[
        Reason, On("w", Choice("heartbeat", "moved", "pressure", "hotplug", "hello", other="other"))
    ] = "heartbeat"


class Ack(NamedTuple):
    """Guest: request_id is done, as far as it will be. changed_bytes went on- or offline for it."""

    request_id: Annotated[int, _REQUEST]
    ok: Annotated[bool, On("ok", Flag())]
    detail: Annotated[str, On("detail", _DETAIL)] = ""
    changed_bytes: Annotated[int, On("changed", _SIZE)] = 0


class Held(NamedTuple):
    """Guest: who holds most of its memory, largest first. Answers WhoHolds.

    by: services (control groups) or processes, summed by their names. Sources: agent/holders.py.
    seen: all of them; cut: there are more than the agent looks at; hidden: the kernel hides some (hidepid).
    """

    request_id: Annotated[int, _REQUEST]
    by: Annotated[HeldBy, On("by", Choice("services", "processes", other="other"))]
    holders: Annotated[tuple[tuple[str, int], ...], On("top", Holders())]
    seen: Annotated[Seen, On("seen", Choice("all", "cut", "hidden", other="other"))] = "all"


class Error(NamedTuple):
    """Either side: what you sent was dropped. Read whatever its version; never answered."""

    code: Annotated[str, On("code", Text(32, least=1, alphabet="abcdefghijklmnopqrstuvwxyz-"))]
    message: Annotated[str, On("message", _DETAIL)] = ""
    supported_versions: Annotated[tuple[int, ...], On("supported", Versions())] = SUPPORTED_VERSIONS


class Welcome(NamedTuple):
    """Host: I am listening, report at these intervals (seconds). Answered by Hello and a Report.

    maximum_bytes: what the guest may come to have in all; 0: not told.
    """

    controller_version: Annotated[str, On("controller", _NAME)]
    calm_seconds: Annotated[float, On("calm", Decimal(0.2, 5.0, clamp=True))] = 0.5
    heartbeat_seconds: Annotated[float, On("heartbeat", Decimal(1.0, 60.0, clamp=True))] = 5.0
    alert_seconds: Annotated[float, On("alert", Decimal(0.05, 1.0, clamp=True))] = 0.1
    maximum_bytes: Annotated[int, On("maximum", _SIZE)] = 0


class OnlineZone(NamedTuple):
    """Host: bring memory that is plugged from now on online in this zone. Answered by Ack."""

    request_id: Annotated[int, _REQUEST]
    zone: Annotated[Zone, _ZONE]


class Offline(NamedTuple):
    """Host: take the memory blocks of this guest-physical range offline. Answered by Ack."""

    request_id: Annotated[int, _REQUEST]
    start_bytes: Annotated[int, _START]
    size_bytes: Annotated[int, _LENGTH]


class Online(NamedTuple):
    """Host: bring the offline blocks of this guest-physical range online. Answered by Ack."""

    request_id: Annotated[int, _REQUEST]
    start_bytes: Annotated[int, _START]
    size_bytes: Annotated[int, _LENGTH]
    zone: Annotated[Zone, _ZONE]


class Ping(NamedTuple):
    """Host: are you there? Answered by Ack and a Report."""

    request_id: Annotated[int, _REQUEST]


class WhoHolds(NamedTuple):
    """Host: which services or processes hold most of your memory? Answered by Held, or by Ack: no.

    Only for an agent whose Hello says that it answers.
    """

    request_id: Annotated[int, _REQUEST]


GuestMessage = Union[Hello, Report, Ack, Held, Error]
HostMessage = Union[Welcome, OnlineZone, Offline, Online, Ping, WhoHolds, Error]
Message = Union[GuestMessage, HostMessage]


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
    return f',"{field.key}":{raw if type(raw) is int else _ENCODER.encode(raw)}'


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


def printable(text: str, limit: int = MAX_DETAIL_CHARS) -> str:
    """The text fit for Ack.detail and Error.message: unprintable characters replaced, cut to limit."""
    return "".join(c if c.isprintable() else "?" for c in text)[:limit]


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
