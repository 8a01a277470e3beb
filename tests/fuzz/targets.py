"""What is fuzzed: everything that reads bytes of somebody else, and what must hold whatever they are.

A target takes any bytes. It returns when they were dealt with as they should be, and raises when not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from agent import codec, wire
from agent.evictable import arc_evictable_bytes, available_bytes
from host_controller.config import Config, ConfigError, parse
from host_controller.core.interface import GuestNoise, GuestSpoke
from host_controller.core.model import GuestFacts, HostFacts, Limits, VmConfig
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.report_validation import Contradiction, facts_from_report
from host_controller.host.limits import above, group_of
from host_controller.host.memory import read_meminfo, read_pressure
from host_controller.host.qemu_process import read_smaps, resident_of
from host_controller.hypervisor.link import Link
from host_controller.units import GIB, MIB
from tests.fuzz import readers

RAM: Final = GIB
LIMITS: Final = Limits(512 * MIB, 256 * MIB, RAM)
CONFIG: Final = VmConfig("uuid", "fuzzed", LIMITS, boot_ram_bytes=RAM)
BOOT: Final = "0b1c2d3e-4f50-4162-9384-a5b6c7d8e9f0"


@dataclass(frozen=True, slots=True)
class Target:
    """One reader: where to start from, and the words of its language."""

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[str, ...]


def from_guest(data: bytes) -> None:
    """All that a hostile guest can write to its port, in pieces as large as the first byte says."""
    size = (data[0] if data else 0) * 16 + 1
    link = Link("uuid", 0.0)
    demand = Demand()
    last: GuestFacts | None = None
    for at in range(1, len(data), size):
        now = at / 100.0
        for event in link.feed(data[at : at + size], now):
            if isinstance(event, GuestNoise):
                assert event.count > 0
                continue
            assert isinstance(event, GuestSpoke)
            message = event.untrusted_message
            codec.decode_from_guest(codec.encode(message))
            if not isinstance(message, wire.Report):
                continue
            facts = facts_from_report(message, config=CONFIG, ram_bytes=RAM, now=now, previous=last)
            if isinstance(facts, Contradiction):
                continue
            last = facts
            _check_facts(facts)
            demand.observe(facts)
            _check_estimate(demand, now)


def _check_facts(facts: GuestFacts) -> None:
    assert 0 <= facts.available_bytes <= facts.total_bytes <= facts.usable_bytes <= RAM
    assert 0 <= facts.online_bytes <= RAM
    assert 0 <= facts.offline_bytes <= RAM
    assert 0 <= facts.movable_bytes <= RAM
    assert 0 <= facts.floor_bytes <= RAM // 4


def _check_estimate(demand: Demand, now: float) -> None:
    """A liar gains at most its own maximum."""
    estimate = demand.estimate(LIMITS, now)
    assert estimate is not None
    assert LIMITS.minimum_bytes <= estimate.irreducible_bytes <= estimate.need_bytes
    assert estimate.need_bytes <= estimate.desired_bytes <= LIMITS.maximum_bytes


def from_host(data: bytes) -> None:
    """All that can come out of a guest's port: the host is not believed blindly either."""
    for line in codec.LineReader().feed(data):
        if isinstance(line, codec.LineTooLong):
            continue
        try:
            message = codec.decode_from_host(line)
        except codec.WireError as error:
            codec.encode(codec.reply_to(error))
            continue
        if isinstance(message, wire.Welcome):
            assert 0.2 <= message.calm_seconds <= 5.0
            assert 1.0 <= message.heartbeat_seconds <= 60.0
            assert 0.05 <= message.alert_seconds <= 1.0


def configuration(data: bytes) -> None:
    """A configuration file of any content: taken whole, or refused with every mistake named."""
    try:
        config = parse(data)
        host = HostFacts(0.0, 64 * GIB, 60 * GIB, ordinary_bytes=64 * GIB, others_bytes=2 * GIB)
        if config.problems_on(host):
            raise ConfigError("configuration", config.problems_on(host))
        assert 0 <= config.settings(host).capacity_bytes <= 64 * GIB
    except ConfigError as error:
        if not error.problems or not all(one.key and one.allowed for one in error.problems):
            raise AssertionError("refused without saying why") from error
        str(error).encode()
        return
    assert not config.default_limits.problems()
    assert config.listen is None or 0 <= config.listen[1] <= 65535


_REPORT = wire.Report(BOOT[:8], 1, 83.42, 404 * MIB, 369 * MIB, 294 * MIB, 40 * MIB, 64 * MIB, 8 * MIB)
_FROM_GUEST: tuple[wire.Message, ...] = (
    wire.Hello(BOOT, "0.1.0", "6.1.0-30-cloud-amd64", 128 * MIB, True, "offline", "kernel"),
    _REPORT,
    _REPORT._replace(
        sequence=2, psi_some_avg10=1.5, psi_full_avg10=0.0, psi_some_total_us=9, psi_full_total_us=1
    ),
    wire.Ack(7, True, "1 blocks online", 128 * MIB),
    wire.Held(9, "services", (("php-fpm", 300 * MIB), ("user@1000", 20 * MIB))),
    wire.Error("unknown-version", "version 2"),
)
_FROM_HOST: tuple[wire.Message, ...] = (
    wire.Welcome("0.1.0"),
    wire.OnlineZone(1, "movable"),
    wire.Offline(2, 4 * GIB, 128 * MIB),
    wire.Online(3, 4 * GIB, 128 * MIB, "kernel"),
    wire.Ping(4),
    wire.WhoHolds(9),
)
_KEYS = tuple(field.key for one in (*_FROM_GUEST, *_FROM_HOST) for field in codec.fields_of(type(one)))
_JSON = ('"v":1', '"t":"', "null", "true", "NaN", "1e999", "-1", str(1 << 63), "\\ud800", "[[[[", "\n")
_SECTIONS = tuple(field.name for field in msgspec.structs.fields(Config))
_SETTINGS = tuple(
    field.name
    for section in msgspec.structs.fields(Config)
    if isinstance(section.type, type)
    for field in msgspec.structs.fields(section.type)
)
_WHOLE = b"""[libvirt]
uri = "qemu:///session"
[host]
capacity = "1.5GiB"
keep_ready = 0
[defaults]
startup = "1G"
buffer = 30
[timing]
shrink_after = "2min"
[history]
enabled = true
keep = "30d"
[http]
listen = "[::1]:9876"
[admission]
wait = 1.5
without_controller = "deny"
"""

_XML = (
    "<!DOCTYPE",
    "<!ENTITY",
    "&x;",
    "<memory",
    "unit=",
    "KiB",
    "<name>",
    "slots=",
    "hotadd",
    "<![CDATA[",
    "xmlns",
)
_ANSWERS = (
    b'{"host":{"version":"1","uptime_seconds":5,"errors":{"api":1}},"vms":[{"name":"a","limits":{"weight":1}}]}',
    b'{"vm":{"name":"a","limits":{}},"why":["x"],"demand":[{"name":"a","size_bytes":1,"text":"b"}],"charge":[]}',
    b'{"name":"a","samples":[{"at":1.0,"phase":"live"},{"at":2.0}],"entries":[{"kind":"notice","text":"x"}]}',
)


def host_kernel(data: bytes) -> None:
    """What the host's kernel says, in files that nobody should be able to write."""
    text = data.decode(errors="replace")
    memory = read_meminfo(text)
    assert 0 <= available_bytes(memory, data) <= memory.get("MemTotal", 0)
    assert arc_evictable_bytes(data) >= 0
    assert all(one is None or 0 <= one <= 100 for one in read_pressure(text))
    found = group_of(text)
    assert found is None or all(one.is_absolute() and ".." not in one.parts for one in above(found[0]))
    held = resident_of(read_smaps(data), (RAM, MIB))
    assert held.guest_bytes >= held.huge_bytes >= 0 or not held.identified
    assert held.overhead_bytes >= 0 <= held.swap_bytes


TARGETS: Final = {
    target.name: target
    for target in (
        Target(
            "guest",
            from_guest,
            (
                b"\xff" + b"".join(map(codec.encode, _FROM_GUEST)),
                *(b"\x10" + codec.encode(message) for message in _FROM_GUEST),
            ),
            (*_KEYS, *_JSON, "report", "hello", "ack", "held", "processes", "error"),
        ),
        Target(
            "host",
            from_host,
            (b"".join(map(codec.encode, _FROM_HOST)), *map(codec.encode, _FROM_HOST)),
            (
                *_KEYS,
                *_JSON,
                "welcome",
                "online-zone",
                "offline",
                "online",
                "ping",
                "who-holds",
                "movable",
                "kernel",
            ),
        ),
        Target(
            "kernel",
            host_kernel,
            (
                b"MemTotal: 16 kB\nMemFree: 1 kB\nMemAvailable: 8 kB\nHugetlb: 4 kB\n",
                b"size 4 4096\nc_min 4 1024\n",
                b"some avg10=1.00 avg60=0.00 total=1\nfull avg10=0.50 avg60=0.00 total=0\n",
                b"4:memory:/machine/qemu-1-web.libvirt-qemu/emulator\n0::/machine.slice/machine-a.scope\n",
                b"7f0000000000-7f0000100000 rw-p 00000000 00:00 0\nSize: 1024 kB\nRss: 8 kB\nPss: 8 kB\n"
                b"AnonHugePages: 0 kB\nSwap: 0 kB\n",
            ),
            ("Active(file):", "Inactive(file):", "SReclaimable:", "AnonHugePages:", "/../", "nan", "1e9"),
        ),
        Target(
            "config",
            configuration,
            (b"", _WHOLE, b'[host]\nreserve = "4GiB"\n'),
            (*_SECTIONS, *_SETTINGS, "GiB", "min", "7d", "'''", "inf", "nan", "1979-05-27", "0x1f", "[["),
        ),
        Target("start", readers.start, (readers.START,), _XML),
        Target(
            "metadata",
            readers.metadata,
            (readers.METADATA,),
            ("startup=", "maximum=", "''", "9" * 400, "GiB"),
        ),
        Target(
            "state", readers.state, (readers.STATE,), (*_JSON, "reservations", "paused_all", "plugs", "1e999")
        ),
        Target("rows", readers.rows, (bytes(range(150)), b"\x01" * 150), ("notice", "decision", "{}")),
        Target(
            "recording", readers.recording, (readers.RECORDING,), (*_JSON, '"decide"', '"event"', '"data"')
        ),
        Target(
            "trial",
            readers.trial,
            (readers.TRIAL,),
            ("kind", "trace", "burst", "inf", "nan", "[vm.", "count"),
        ),
        Target("trace", readers.trace, (readers.TRACE,), (",", '"', "nan", "1e308", "web", "\n")),
        Target(
            "answer",
            readers.shown,
            _ANSWERS,
            (*_JSON, '"host"', '"vms"', '"samples"', '"entries"', '"decision"'),
        ),
        Target(
            "http",
            readers.http,
            readers.HTTP,
            ("HTTP/1.1", "\r\n", "chunked", "Expect: ", "%7B", "?since=", "GET "),
        ),
    )
}
