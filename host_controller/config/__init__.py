"""The configuration file: read whole or refused whole, with every mistake in it named at once.

    ConfigError     the file cannot be used; one Problem per mistake

Sizes are written as people write them ("512M", "1.5GiB"), durations as seconds or "90s", "10min", "7d".
`sections.py` has the tables that there are, `tables.py` reads one, `rule.py` the rules.
A named file that is missing is a mistake; a missing default file means the defaults.
"""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from host_controller.config.rule import RuleSection, parse_rules
from host_controller.config.sections import (
    AdmissionSection,
    DefaultsSection,
    FleetSection,
    HistorySection,
    HostSection,
    HttpSection,
    LibvirtSection,
    PathsSection,
    SavingsSection,
    TimingSection,
)
from host_controller.config.tables import ConfigError, Problem, key_text, meta_of, section, shown, unknown
from host_controller.core.books.capacity import capacity_of
from host_controller.core.model import HostFacts, Limits, Settings
from host_controller.units import format_size

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

    def at(self, uri: str | None) -> "Config":
        """The same for another libvirt; None: for its own.

        Raises:
            ConfigError: that is no address.
        """
        if uri is None:
            return self
        problems = _address_problems(uri)
        if problems:
            raise ConfigError("--connect", problems)
        return msgspec.structs.replace(self, libvirt=msgspec.structs.replace(self.libvirt, uri=uri))

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
        table = tomllib.loads(text.decode("utf-8-sig"))  # some editors begin with a mark
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
