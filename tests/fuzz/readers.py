"""Readers of what lies on disk or comes from a socket, a domain or an operator; used by `targets.py`."""

import asyncio
import contextlib
import io
import json
import sqlite3
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import structlog

from host_controller.api import answer, start_xml
from host_controller.api.server import Api
from host_controller.api.stored_history import span_view
from host_controller.cli import events, explain, history, status
from host_controller.cli.screen import View, picture
from host_controller.control.controller import Controller
from host_controller.control.start_queue import read_start
from host_controller.control.state_dir import StateDir
from host_controller.core.engine import Engine
from host_controller.core.interface import VmAppeared
from host_controller.core.model import LARGEST_MAXIMUM_BYTES, Limits, RunState, Settings, VmConfig
from host_controller.domain_xml.ours import NAMESPACE
from host_controller.domain_xml.read import read_domain
from host_controller.errors import DynmemError, InputError
from host_controller.records.history_reading import Reading
from host_controller.records.history_schema import FIRST, TIERS, VERSION
from host_controller.records.journal import Journal
from host_controller.records.recording import Handled, Recording
from host_controller.simulator.trace_file import read_trace
from host_controller.simulator.trial_file import read_trial
from host_controller.units import GIB, MIB


@cache
def scratch() -> Path:
    """A directory for files, in TMPDIR. Whoever starts a search gives that and removes it, as the fuzzer ends
    this process at once.
    """
    return Path(tempfile.mkdtemp(prefix="readers-"))


def start(data: bytes) -> None:
    """A domain's XML from the hook, whole."""
    try:
        found = read_start(start_xml.check(data), 64 * MIB)
    except (DynmemError, start_xml.UnfitXml):
        return
    assert found.need_bytes >= 0
    assert len(found.name) <= start_xml.LARGEST_BYTES


def metadata(data: bytes) -> None:
    """Our element in a domain: whoever may edit the domain writes it."""
    text = data.decode(errors="replace").replace("\x00", "").replace("]]>", "")
    ours = f'<d:vm xmlns:d="{NAMESPACE}" {text}/>' if b"<" not in data else text
    xml = (
        f"<domain type='kvm'><name>n</name><uuid>0b1c2d3e-4f50-4162-9384-a5b6c7d8e9f0</uuid>"
        f"<metadata>{ours}</metadata><memory>1048576</memory><currentMemory>1048576</currentMemory>"
        "<maxMemory slots='16'>2097152</maxMemory><devices><memballoon model='virtio'/></devices></domain>"
    )
    try:
        found = read_domain(xml)
    except DynmemError:
        return
    assert found.ram_bytes == GIB, "a VM is counted whatever is wrong with what we wrote into it"
    if found.config is not None:
        assert not found.config.limits.problems()


def state(data: bytes) -> None:
    """What a controller before us left in /run."""
    (scratch() / "state.json").write_bytes(data)
    remembered = StateDir(scratch())._read()
    assert all(0 <= one.size_bytes <= LARGEST_MAXIMUM_BYTES for one in remembered.reservations)
    msgspec.json.encode(remembered)


_ROWS = {
    "samples VALUES (1": 11,
    "entries (number, vm, at, kind, topic, text, detail) VALUES (1,1": 5,
    "minutes VALUES (1,1": 10,
    "hours VALUES (1,1": 15,
}
"""A row of the VM in each table, and how many free values follow."""


def rows(data: bytes) -> None:
    """Rows of the history file, with any value of any type in any column."""
    db = _history()
    values = _values(data)
    for where, columns in _ROWS.items():
        figures = [next(values) for _ in range(columns)]
        with contextlib.suppress(sqlite3.Error):
            db.execute(f"INSERT INTO {where},{','.join('?' * columns)})", figures)
    reading = Reading.__new__(Reading)
    reading.damaged, reading._db, reading._tiers = 0, db, True
    for sample in reading.samples("u", -1e300):
        msgspec.json.encode(sample._asdict())
    for span in [*reading.minutes("u", -1e300), *reading.hours("u", -1e300)]:
        msgspec.json.encode(span_view(span))
    for entry in reading.entries("u", -1e300):
        msgspec.json.encode(entry._asdict())
    db.rollback()


@cache
def _history() -> sqlite3.Connection:
    """An empty history of one VM. Made once: that takes ten times as long as to read a row of each kind."""
    db = sqlite3.connect(":memory:")
    db.executescript(f"{FIRST} {TIERS} PRAGMA user_version = {VERSION};")
    db.text_factory = lambda text: text.decode(errors="replace")
    db.execute("INSERT INTO vms VALUES (1, 'u', 'web')")
    db.commit()
    return db


def _values(data: bytes) -> Any:
    """SQLite's five types, as the bytes say; nothing when they are used up."""
    at = 0
    while True:
        kind = data[at] % 6 if at < len(data) else 0
        piece = data[at + 1 : at + 9]
        at += 9
        if kind in (1, 2):
            yield int.from_bytes(piece, "little", signed=True) if kind == 1 else sum(piece)
        elif kind == 3:
            yield struct.unpack("<d", piece.ljust(8, b"\0"))[0]
        elif kind == 4:
            yield piece.decode(errors="replace")
        else:
            yield None if kind == 0 else piece


def recording(data: bytes) -> None:
    """A recording, replayed: an engine takes whatever such a file can name."""
    try:
        found = Recording(io.BytesIO(data))
        engine = Engine(found.settings)
    except InputError:
        return
    assert isinstance(engine, Engine)
    for one in found:
        assert isinstance(one.at, float)
        if isinstance(one, Handled):
            assert one.event is not None
    assert found.damaged >= 0


def trial(data: bytes) -> None:
    """A scenario file for `dynmem simulate`."""
    path = scratch() / "trial.toml"
    path.write_bytes(data)
    try:
        found = read_trial(path)
    except InputError:
        return
    assert found.seconds > 0
    assert all(not one.spec.limits.problems() for one in found.vms)


def trace(data: bytes) -> None:
    """A trace of somebody's monitoring."""
    path = scratch() / "trace.csv"
    path.write_bytes(data)
    try:
        found = read_trace(path, "web", MIB)
    except InputError:
        return
    assert 0 <= found.holes <= found.values
    assert 0 <= found.curve.at(0.0) <= LARGEST_MAXIMUM_BYTES


def shown(data: bytes) -> None:
    """A controller's answer, of whatever version, in every view."""
    try:
        told = answer.read(data)
    except ValueError:
        return
    if not isinstance(told, answer.Answer):
        return
    for view in VIEWS:
        # What is of another type than it ever was is no other version of it.
        with contextlib.suppress(TypeError, AttributeError, ValueError, OverflowError, OSError):
            view(told)


def _screen(told: Any) -> None:
    view = View()
    view.note(told)
    picture(told, view, 120, 40)


VIEWS: tuple[Callable[[Any], object], ...] = (
    lambda told: status.host_lines(told["host"]),
    lambda told: status.vm_lines(told["vms"]),
    _screen,
    explain.lines,
    history.lines,
    events.entry_line,
)


class _Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


@cache
def _served() -> tuple[Any, Api, Callable[[], Any]]:
    from host_controller.api.door import Door
    from tests.support.virtual import VirtualLoop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)

    async def make() -> tuple[Api, Callable[[], Any]]:
        controller = Controller(None, Settings(GIB), Journal(loop.time), clock=loop.time)  # type: ignore[arg-type]
        config = VmConfig("u", "web", Limits(512 * MIB, 256 * MIB, GIB), boot_ram_bytes=512 * MIB)
        controller.engine.handle(VmAppeared("u", config, RunState.RUNNING, (), 512 * MIB, booted=True), 0.0)
        controller.engine.decide(0.0)
        api = Api(controller, lambda: None)
        runner, _ = await api.listeners.serve(api.routes())
        assert runner.server is not None
        return api, Door().factory(runner.server)

    api, factory = loop.run_until_complete(make())
    return loop, api, factory


def http(data: bytes) -> None:
    """Whatever is sent to a socket of ours: it is answered or hung up on, and no error of ours."""
    loop, api, factory = _served()
    pipe = _Pipe()

    async def serve() -> None:
        connection = factory()
        connection.connection_made(pipe)
        for at in range(0, len(data), 700):
            if not pipe.closed:
                connection.data_received(data[at : at + 700])
            await asyncio.sleep(0)
        await asyncio.sleep(30)
        connection.connection_lost(None)
        await asyncio.sleep(0)

    loop.run_until_complete(serve())
    assert not api.controller.journal.errors, api.controller.journal.errors
    statuses = [line.split()[1] for line in bytes(pipe.written).split(b"\r\n") if line.startswith(b"HTTP/1.")]
    assert all(status < b"500" for status in statuses), statuses


START = (
    f"<domain type='kvm'><name>web</name><uuid>u</uuid><metadata><d:vm xmlns:d='{NAMESPACE}'"
    " startup='1048576' minimum='262144' maximum='2097152' growth='hotadd'/></metadata>"
    "<memory unit='KiB'>1048576</memory>"
    "<maxMemory slots='16' unit='GiB'>2</maxMemory><devices><memory model='dimm'><target><size>131072</size>"
    "</target></memory><memballoon model='virtio'/></devices></domain>"
).encode()
METADATA = b"startup='1048576' minimum='262144' maximum='2097152' buffer='20' weight='100' growth='hotadd'"
STATE = json.dumps(
    {
        "reservations": [{"name": "a", "size_bytes": GIB, "expires": 5.0}],
        "paused": ["u"],
        "paused_all": False,
        "standing": [{"uuid": "u", "since": 1.0, "until": 2.0, "vcpu_seconds": None}],
        "plugs": {"u": {"size_bytes": GIB, "dimms": 1}},
    }
).encode()
RECORDING = b"\n".join(
    (
        msgspec.json.encode(
            {"dynmem-recording": 1, "at": 1.0, "wall": 2.0, "settings": msgspec.to_builtins(Settings(GIB))}
        ),
        b'{"at":1.0,"event":"Tick","data":{}}',
        b'{"at":1.5,"event":"VmGone","data":{"vm":"u","reason":"shutdown"}}',
        b'{"at":1.5,"event":"GuestSpoke","data":{"vm":"u","line":"{\\"v\\":1,\\"t\\":\\"ack\\",\\"id\\":1}"}}',
        b'{"at":2.0,"decide":[{"command":"SetTarget","data":{"vm":"u","ticket":1,"target_bytes":5}}]}',
        b"",
    )
)
TRIAL = b"""capacity = "8GiB"
seconds = 600
[vm.web]
count = 2
startup = "1GiB"
minimum = "512MiB"
maximum = "2GiB"
demand = { kind = "diurnal", low = "256MiB", high = "1GiB", period = "1h", noise = 0.1 }
"""
TRACE = b"seconds,web,db\n0,812,2048\n60,,2110\n120,9e99,1\n180,-4,nan\n"
HTTP = (
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/vms/web/history?since=1h HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/vms/web/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"POST /v1/admission HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(START), START),
    b"GET /v1/events?last=3&vm=web HTTP/1.0\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
)
