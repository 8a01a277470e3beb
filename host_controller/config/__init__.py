"""The configuration file: read whole or refused whole, with every mistake in it named at once.

    ConfigError     the file cannot be used; one Problem per mistake

Sizes are written as people write them ("512M", "1.5GiB"), durations as seconds or "90s", "10min", "7d".
`tables.py` reads one table, `rule.py` the rules.
A named file that is missing is a mistake; a missing default file means the defaults.
"""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from host_controller.config.rule import RuleSection, parse_rules
from host_controller.config.tables import (
    DURATION_KIND,
    DURATION_WORDS,
    LARGEST,
    SIZE_KIND,
    SIZE_WORDS,
    AbsolutePath,
    ConfigError,
    Duration,
    Listen,
    Problem,
    Retention,
    Size,
    Text,
    VmSize,
    key_text,
    meta_of,
    section,
    shown,
    unknown,
)
from host_controller.core.books.capacity import capacity_of
from host_controller.core.model import HostFacts, Limits, Settings
from host_controller.credentials import DIRECTORY
from host_controller.units import GIB, MIB, format_size

__all__ = [
    "DEFAULT_PATH",
    "Config",
    "ConfigError",
    "Problem",
    "load",
    "meta_of",
    "parse",
]

DEFAULT_PATH: Final = Path("/etc/dynmem/dynmem.toml")


class LibvirtSection(msgspec.Struct, frozen=True):
    """Where the VMs are."""

    uri: Text = "qemu:///system"
    guest_agent: Annotated[
        bool,
        msgspec.Meta(
            description="true or false: read /proc of VMs without our agent through their QEMU guest agent, "
            "every ten seconds; libvirt marks such a VM as tainted (custom-ga-command)"
        ),
    ] = True


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
            description=f"{DURATION_WORDS}, at most two minutes; 0: never",
            extra=DURATION_KIND,
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
    keep_minutes: Retention = 35 * 86400.0
    keep_hours: Retention = 730 * 86400.0
    max_size: Annotated[
        int,
        msgspec.Meta(ge=MIB, le=LARGEST, description=f"{SIZE_WORDS}, at least 1MiB", extra=SIZE_KIND),
    ] = GIB


class SavingsSection(msgspec.Struct, frozen=True):
    """What `dynmem savings` reckons with."""

    price: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=1e6, description="a number, 0 or more: of a GiB for an hour, in any money; 0: none"
        ),
    ] = 0.0


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


class FleetSection(msgspec.Struct, frozen=True):
    """The listener for the other hosts of a cluster (mutual TLS); nothing listens unless it is named here."""

    listen: Listen | None = None
    credentials: AbsolutePath = str(DIRECTORY)
    """The directory with `host.pem`, `host.key` and `ca.pem` (`dynmem fleet certificates`)."""


class Config(msgspec.Struct, frozen=True):
    """The whole file; every key has a default."""

    libvirt: LibvirtSection = LibvirtSection()
    host: HostSection = HostSection()
    defaults: DefaultsSection = DefaultsSection()
    timing: TimingSection = TimingSection()
    paths: PathsSection = PathsSection()
    history: HistorySection = HistorySection()
    savings: SavingsSection = SavingsSection()
    http: HttpSection = HttpSection()
    admission: AdmissionSection = AdmissionSection()
    fleet: FleetSection = FleetSection()
    rule: tuple[RuleSection, ...] = ()

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
        return _parts(self.http.listen)

    @property
    def fleet_listen(self) -> tuple[str, int] | None:
        """Address and port for the other hosts of the fleet."""
        return _parts(self.fleet.listen)

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
        tried = [
            ("host.capacity", self.host.capacity, ordinary, f"at most {ordinary} bytes: {has}"),
            ("host.reserve", self.host.reserve, ordinary - 1, f"less than {ordinary} bytes: {has}"),
        ]
        for_vms = ordinary if self.host.capacity is None else min(ordinary, self.host.capacity)
        if self.host.reserve is not None and self.host.reserve < ordinary:
            for_vms = ordinary - self.host.reserve
        allowed = f"less than {for_vms} bytes, which is what VMs may have: {has}"
        tried += [
            ("host.keep_ready", self.host.keep_ready, for_vms - 1, allowed),
            ("host.overhead_floor", self.host.overhead_floor, for_vms - 1, allowed),
        ]
        return [
            Problem(key, f"{value} bytes ({format_size(value)})", allowed)
            for key, value, most, allowed in tried
            if value is not None and value > most
        ]


def _parts(listen: str | None) -> tuple[str, int] | None:
    if listen is None:
        return None
    address, _, port = listen.rpartition(":")
    return address.strip("[]"), int(port)


SECTIONS: Final = tuple(one for one in msgspec.structs.fields(Config) if one.name != "rule")
"""The tables that may come once."""


LARGEST_BYTES: Final = 1 << 20


def load(path: Path | None = None) -> Config:
    """The configuration in `path`, or in the default file, or the defaults if that is missing.

    Raises:
        ConfigError: with all mistakes.
    """
    named = path is not None
    path = path or DEFAULT_PATH
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        if not named:
            return Config()
        raise ConfigError(str(path), [Problem("file", "nothing", "a file that exists")]) from None
    except OSError as error:
        problem = Problem("file", error.strerror or str(error), "a file that can be read")
        raise ConfigError(str(path), [problem]) from None
    if len(text) > LARGEST_BYTES:
        problem = Problem("file", f"more than {LARGEST_BYTES} bytes", "a file of this kind, which is small")
        raise ConfigError(str(path), [problem])
    return parse(text, str(path))


def parse(text: bytes, path: str = "configuration") -> Config:
    """The configuration in a TOML text.

    Raises:
        ConfigError: with all mistakes.
    """
    try:
        table = tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, a number or a nest without end
        raise ConfigError(path, [Problem("file", f"a mistake ({error})", "TOML 1.0 in UTF-8")]) from None
    problems: list[Problem] = []
    sections: dict[str, Any] = {"rule": parse_rules(table.pop("rule", []), problems)}
    for field in SECTIONS:
        value = table.pop(field.name, {})
        if not isinstance(value, dict):
            problems.append(Problem(field.name, shown(value), f"a table: [{field.name}]"))
            continue
        sections[field.name] = section(field.name, field.type, value, problems)
    names = [field.name for field in msgspec.structs.fields(Config)]
    problems += [unknown(key_text(key), key, names, "tables") for key in table]
    if not problems:
        config = Config(**sections)
        problems += [
            Problem("defaults", sentence, "minimum ≤ startup ≤ maximum")
            for sentence in config.default_limits.problems()
        ]
        problems += _address_problems(config.libvirt.uri)
        if config.host.capacity is not None and config.host.reserve is not None:
            problems.append(Problem("host", "both capacity and reserve", "one of them"))
    if problems:
        raise ConfigError(path, problems)
    return config


def _address_problems(uri: str) -> list[Problem]:
    """Whatever takes a libvirt's address apart later need not ask whether it can be."""
    try:
        _ = urlsplit(uri).port
    except ValueError as error:
        allowed = 'a URI such as "qemu:///system" or "qemu+ssh://host/system"'
        return [Problem("libvirt.uri", f"{shown(uri)} ({error})", allowed)]
    return []
