"""The configuration file: read whole or refused whole, with every mistake in it named at once.

    ConfigError     the file cannot be used; one Problem per mistake

Sizes are written as people write them ("512M", "1.5GiB"), durations as seconds or "90s", "10min", "7d".
A named file that is missing is a mistake; a missing default file means the defaults.
"""

import difflib
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_type_hints

import msgspec

from host_controller.core.books.capacity import capacity_of
from host_controller.core.model import (
    LARGEST_MAXIMUM_BYTES,
    SMALLEST_MINIMUM_BYTES,
    HostFacts,
    Limits,
    Settings,
)
from host_controller.errors import InputError
from host_controller.units import GIB, MIB, format_size, parse_duration, parse_size

DEFAULT_PATH: Final = Path("/etc/dynmem/dynmem.toml")

_SIZE_WORDS: Final = 'a size such as "512M" or "1.5GiB"'
_DURATION_WORDS: Final = 'seconds, or text such as "90s", "10min", "2h", "7d"'
_SIZE: Final = {"kind": "size"}
_DURATION_KIND: Final = {"kind": "duration"}
_LARGEST: Final = LARGEST_MAXIMUM_BYTES

Size = Annotated[
    int, msgspec.Meta(ge=0, le=_LARGEST, description=f"{_SIZE_WORDS}, at most 16TiB", extra=_SIZE)
]
VmSize = Annotated[
    int,
    msgspec.Meta(
        ge=SMALLEST_MINIMUM_BYTES, le=_LARGEST, description=f"{_SIZE_WORDS}, 32MiB to 16TiB", extra=_SIZE
    ),
]
Duration = Annotated[
    float,
    msgspec.Meta(ge=0, le=86400, description=f"{_DURATION_WORDS}, at most one day", extra=_DURATION_KIND),
]
Retention = Annotated[
    float,
    msgspec.Meta(ge=3600, le=366 * 86400, description=f"{_DURATION_WORDS}, 1h to 366d", extra=_DURATION_KIND),
]
Text = Annotated[str, msgspec.Meta(min_length=1, description="text, not empty")]
AbsolutePath = Annotated[str, msgspec.Meta(pattern="^/", description="an absolute path")]


_PORT: Final = r"(\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
Listen = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^(\[[0-9a-fA-F:]+\]|[0-9A-Za-z.-]+):{_PORT}$",
        description='an address and a port such as "127.0.0.1:9876" or "[::1]:9876"',
    ),
]


class Problem(NamedTuple):
    """One mistake: which key, what stands there, and what may."""

    key: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.key}: found {self.found}; allowed: {self.allowed}"


class ConfigError(InputError):
    """The configuration cannot be used; nothing of it is in force."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{path}: {count}{lines}")
        self.path = path
        self.problems = problems


class LibvirtSection(msgspec.Struct, frozen=True):
    """Where the VMs are."""

    uri: Text = "qemu:///system"


class HostSection(msgspec.Struct, frozen=True):
    """What of the host's memory VMs may have."""

    capacity: VmSize | None = None
    """All that VMs may cost, instead of the host's memory less the reserve and less other QEMUs."""
    reserve: Size | None = None
    """Kept for the host itself; by default what its other processes use, and a spare by its size."""
    keep_ready: Size | None = None
    overhead_floor: Size = 64 * MIB


class DefaultsSection(msgspec.Struct, frozen=True):
    """Limits that `dynmem enable` takes when it is not told otherwise."""

    startup: VmSize = GIB
    minimum: VmSize = 512 * MIB
    maximum: VmSize = 4 * GIB
    buffer: Annotated[int, msgspec.Meta(ge=5, le=2000, description="percent of demand, 5 to 2000")] = 20
    weight: Annotated[int, msgspec.Meta(ge=1, le=10000, description="1 to 10000")] = 100


class TimingSection(msgspec.Struct, frozen=True):
    """How long things last before something is done about them."""

    shrink_after: Duration = 60.0
    settle: Duration = 60.0
    unplug_after: Duration = 600.0
    reset_wait: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=120,
            description=f"{_DURATION_WORDS}, at most two minutes; 0: never",
            extra=_DURATION_KIND,
        ),
    ] = 20.0
    """How long a VM may stand still after a reset while room is made for all of its RAM."""


class PathsSection(msgspec.Struct, frozen=True):
    """Where the controller keeps things."""

    state_dir: AbsolutePath = "/run/dynmem"
    socket: AbsolutePath | None = None
    """By default `control.sock` in the state directory."""
    view_socket: AbsolutePath | None = None
    """Where the group dynmem-view may look, and change nothing. By default `view.sock` beside it."""
    history: AbsolutePath = "/var/lib/dynmem/history.sqlite"
    meminfo: AbsolutePath = "/proc/meminfo"
    """What the host says of its memory. Another file is for rehearsing an emergency."""


class HistorySection(msgspec.Struct, frozen=True):
    """How much of the past is kept on disk."""

    enabled: Annotated[bool, msgspec.Meta(description="true or false")] = True
    keep: Retention = 7 * 86400.0
    max_size: Annotated[
        int,
        msgspec.Meta(ge=MIB, le=_LARGEST, description=f"{_SIZE_WORDS}, at least 1MiB", extra=_SIZE),
    ] = GIB


class HttpSection(msgspec.Struct, frozen=True):
    """The read-only server for metrics and the page; nothing listens on TCP unless it is named here."""

    listen: Listen | None = None


class AdmissionSection(msgspec.Struct, frozen=True):
    """What happens when a managed VM is started (`dynmem hook install`)."""

    wait: Annotated[
        float,
        msgspec.Meta(ge=0, le=120, description="seconds, at most 120; others are shrunk meanwhile"),
    ] = 20.0
    without_controller: Annotated[
        Literal["allow", "deny"],
        msgspec.Meta(description='"allow" or "deny": what is done with a start while no controller answers'),
    ] = "allow"


class Config(msgspec.Struct, frozen=True):
    """The whole file; every key has a default."""

    libvirt: LibvirtSection = LibvirtSection()
    host: HostSection = HostSection()
    defaults: DefaultsSection = DefaultsSection()
    timing: TimingSection = TimingSection()
    paths: PathsSection = PathsSection()
    history: HistorySection = HistorySection()
    http: HttpSection = HttpSection()
    admission: AdmissionSection = AdmissionSection()

    @property
    def state_dir(self) -> Path:
        """Where the lock and the reservations are."""
        return Path(self.paths.state_dir)

    @property
    def socket_path(self) -> Path:
        """Where the control API listens."""
        return Path(self.paths.socket) if self.paths.socket else self.state_dir / "control.sock"

    @property
    def view_path(self) -> Path:
        """Where those listen to who may only look."""
        return Path(self.paths.view_socket) if self.paths.view_socket else self.state_dir / "view.sock"

    @property
    def listen(self) -> tuple[str, int] | None:
        """Address and port of the read-only server."""
        if self.http.listen is None:
            return None
        address, _, port = self.http.listen.rpartition(":")
        return address.strip("[]"), int(port)

    @property
    def default_limits(self) -> Limits:
        """The limits of a VM whose user named none."""
        one = self.defaults
        return Limits(one.startup, one.minimum, one.maximum, one.buffer, one.weight)

    def settings(self, host: HostFacts | None = None) -> Settings:
        """What the engine is to know. What follows the host begins with what `host` says, or with nothing."""
        one = Settings(
            capacity_bytes=self.host.capacity or 0,
            reserve_bytes=self.host.reserve or 0,
            capacity_follows=self.host.capacity is None,
            reserve_follows=self.host.reserve is None,
            keep_ready_bytes=self.host.keep_ready,
            shrink_after_seconds=self.timing.shrink_after,
            settle_seconds=self.timing.settle,
            unplug_after_seconds=self.timing.unplug_after,
            reset_wait_seconds=self.timing.reset_wait,
            overhead_floor_bytes=self.host.overhead_floor,
        )
        now = capacity_of(one, host)
        capacity = now.size_bytes if one.capacity_follows else one.capacity_bytes
        return replace(one, capacity_bytes=capacity, reserve_bytes=now.reserve_bytes)

    def problems_on(self, host: HostFacts) -> list[Problem]:
        """What cannot be had on a host with this memory."""
        ordinary = host.ordinary_bytes
        if ordinary is None:
            return []
        huge = sum(pool.total_bytes for pool in host.pools)
        has = f"the host has {format_size(ordinary)}" + (
            f" beside {format_size(huge)} in huge pages" if huge else ""
        )
        tried = (
            ("host.capacity", self.host.capacity, ordinary, f"at most {ordinary} bytes: {has}"),
            ("host.reserve", self.host.reserve, ordinary - 1, f"less than {ordinary} bytes: {has}"),
            ("host.keep_ready", self.host.keep_ready, ordinary, f"at most {ordinary} bytes: {has}"),
            ("host.overhead_floor", self.host.overhead_floor, ordinary, f"at most {ordinary} bytes: {has}"),
        )
        return [
            Problem(key, f"{value} bytes ({format_size(value)})", allowed)
            for key, value, most, allowed in tried
            if value is not None and value > most
        ]


def load(path: Path | None = None) -> Config:
    """The configuration in `path`, or in the default file, or the defaults if that is missing.

    Raises:
        ConfigError: with all mistakes.
    """
    named = path is not None
    path = path or DEFAULT_PATH
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if not named:
            return Config()
        raise ConfigError(str(path), [Problem("file", "nothing", "a file that exists")]) from None
    except OSError as error:
        problem = Problem("file", error.strerror or str(error), "a file that can be read")
        raise ConfigError(str(path), [problem]) from None
    return parse(text, str(path))


def parse(text: bytes, path: str = "configuration") -> Config:
    """The configuration in a TOML text.

    Raises:
        ConfigError: with all mistakes.
    """
    try:
        table = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path, [Problem("file", f"a mistake ({error})", "TOML 1.0 in UTF-8")]) from None
    problems: list[Problem] = []
    sections = {}
    for field in msgspec.structs.fields(Config):
        value = table.pop(field.name, {})
        if not isinstance(value, dict):
            problems.append(Problem(field.name, _shown(value), f"a table: [{field.name}]"))
            continue
        sections[field.name] = _section(field.name, field.type, value, problems)
    names = [field.name for field in msgspec.structs.fields(Config)]
    problems += [_unknown(_key(key), key, names, "tables") for key in table]
    if not problems:
        config = Config(**sections)
        problems += [
            Problem("defaults", sentence, "minimum ≤ startup ≤ maximum")
            for sentence in config.default_limits.problems()
        ]
        if config.host.capacity is not None and config.host.reserve is not None:
            problems.append(Problem("host", "both capacity and reserve", "one of them"))
    if problems:
        raise ConfigError(path, problems)
    return config


def _section(name: str, kind: Any, table: dict[str, Any], problems: list[Problem]) -> Any:
    hints = get_type_hints(kind, include_extras=True)
    values = {}
    for key, raw in table.items():
        if key not in hints:
            problems.append(_unknown(f"{name}.{_key(key)}", key, list(hints), "keys"))
            continue
        try:
            values[key] = _value(raw, hints[key])
        except (ValueError, msgspec.ValidationError):
            problems.append(Problem(f"{name}.{key}", _shown(raw), meta_of(hints[key]).description or ""))
    return kind(**values)


def _value(raw: Any, hint: Any) -> Any:
    if isinstance(raw, str):
        if _kind(hint) == "size":
            raw = parse_size(raw)
        elif _kind(hint) == "duration":
            raw = parse_duration(raw)
    return msgspec.convert(raw, hint, strict=True)


def meta_of(hint: Any) -> msgspec.Meta:
    """The Meta of `Annotated[…, Meta]`, also within `… | None`."""
    for candidate in (hint, *getattr(hint, "__args__", ())):
        for one in getattr(candidate, "__metadata__", ()):
            if isinstance(one, msgspec.Meta):
                return one
    return msgspec.Meta()


def _kind(hint: Any) -> str:
    return str((meta_of(hint).extra or {}).get("kind", ""))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)  # the nearest to how TOML writes it
    return text if len(text) <= 80 else text[:77] + "..."


def _key(key: str) -> str:
    """As TOML writes it: one that is empty or odd in quotation marks."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _shown(key)


def _unknown(where: str, key: str, known: list[str], what: str) -> Problem:
    near = difflib.get_close_matches(key, known, 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return Problem(where, f"a key that is not known{meant}", f"the {what} {', '.join(known)}")
