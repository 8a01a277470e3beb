"""The daemon as one thing: on recorded kernel files and a pseudo terminal, and as a process of its own."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__, holders
from agent.codec import encode
from agent.daemon import Daemon, main
from agent.system import Log, Notifier
from agent.uevents import Uevent, UeventSocket
from agent.wire import Ack, Error, Held, Hello, Offline, Online, OnlineZone, Ping, Report, Welcome, WhoHolds
from tests.support.waiting import until
from tests.unit.agent.host_end import HostEnd
from tests.unit.agent.record import BLOCK_BYTES, add_block, add_memory, add_process, copy_of, set_kib

REPOSITORY = Path(__file__).parents[3]
OWN_LIMIT_MIB = 7
UEVENT = Path("/sys/devices/system/memory/memory0/uevent")
HEAVY = {
    "asyncio",
    "click",
    "dataclasses",
    "inspect",
    "logging",
    "psutil",
    "pyroute2",
    "structlog",
    "threading",
}


class Guest:
    """An agent on recorded files, and its host. Each wait turns the agent's loop."""

    def __init__(self, root: Path) -> None:
        self.root = copy_of("debian12", root)
        self.memory = add_memory(root)
        self.host = HostEnd()
        self.daemon = Daemon(str(root), self.host.opener, events=False)

    def until(self, condition, limit_seconds: float = 60.0) -> None:
        def turned() -> bool:
            self.daemon.turn(0.05)
            self.host.hear()
            return bool(condition())

        until(turned, lambda: self.host.messages, limit_seconds)

    def heard(self, kind: type) -> list:
        return [message for message in self.host.messages if isinstance(message, kind)]

    def close(self) -> None:
        self.daemon.close()
        self.host.close()


@pytest.fixture
def guest(tmp_path):
    guest = Guest(tmp_path)
    yield guest
    guest.close()


def test_the_agent_says_hello_and_reports_when_the_port_opens(guest):
    guest.until(lambda: guest.heard(Report))
    hello, report = guest.host.messages[:2]
    assert hello == Hello(
        boot_id="0b1c2d3e-4f50-4162-9384-a5b6c7d8e9f0",
        agent_version=__version__,
        kernel_release="6.1.0-18-cloud-amd64",
        block_bytes=BLOCK_BYTES,
        psi=True,
        online_policy="offline",
        hotplug="kernel",
        holders="on",
    )
    assert (report.reason, report.sequence) == ("hello", 0)
    assert report.online_bytes == 4 * BLOCK_BYTES
    assert hello.boot_id.startswith(report.boot_id_prefix)


def test_a_welcome_is_answered_with_a_hello_that_asks_for_no_answer_and_a_report(guest):
    guest.until(lambda: guest.heard(Report))
    guest.host.say(Welcome("0.1.0"))
    guest.until(lambda: len(guest.heard(Report)) == 2)
    assert [hello.welcomed for hello in guest.heard(Hello)] == [False, True]


def test_a_host_that_welcomes_every_hello_makes_no_storm(guest):
    guest.until(lambda: guest.heard(Report))
    now = guest.daemon._clock()
    guest.daemon._clock = lambda: now  # a busy machine takes half a second for some turns
    for _ in range(50):
        guest.host.say(Welcome("0.1.0"))
        guest.daemon.turn(0.0)
        guest.host.hear()
    assert len(guest.heard(Hello)) <= 2


def test_an_allocation_reaches_the_host_within_a_tick(guest):
    guest.until(lambda: guest.heard(Report))
    set_kib(guest.root, MemAvailable=200 << 10)
    guest.until(lambda: guest.heard(Report)[-1].available_bytes == 200 << 20, 0.7)
    assert guest.heard(Report)[-1].reason == "pressure"


def test_a_ping_is_answered_with_an_ack_and_a_report(guest):
    guest.until(lambda: guest.heard(Report))
    guest.host.say(Ping(42))
    guest.until(lambda: guest.heard(Ack) and len(guest.heard(Report)) == 2)
    assert guest.heard(Ack) == [Ack(42, True, "here")]


def test_who_holds_its_memory_is_told_when_the_host_asks_and_a_second_time_after_a_second(guest):
    guest.until(lambda: guest.heard(Report))
    add_process(guest.root, 1, "init", pages=0)
    add_process(guest.root, 7, "mysqld", pages=300)
    guest.host.say(WhoHolds(1), WhoHolds(2))
    guest.until(lambda: guest.heard(Held) and guest.heard(Ack))
    assert guest.heard(Held) == [Held(1, "processes", (("mysqld", 300 * os.sysconf("SC_PAGE_SIZE")),))]
    assert guest.heard(Ack) == [Ack(2, False, "asked again too soon")]
    guest.daemon._holders._asked_at -= holders.EVERY_SECONDS
    guest.host.say(WhoHolds(3))
    guest.until(lambda: len(guest.heard(Held)) == 2)


def test_what_the_administrator_hides_is_told_to_no_host(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNMEM_HOLDERS", "hide")
    guest = Guest(tmp_path)
    try:
        add_process(guest.root, 7, "mysqld", pages=300)
        guest.until(lambda: guest.heard(Report))
        assert [hello.holders for hello in guest.heard(Hello)] == ["off"]
        guest.host.say(WhoHolds(1))
        guest.until(lambda: guest.heard(Ack))
        assert guest.heard(Ack) == [Ack(1, False, "this guest's administrator does not want it told")]
        assert guest.heard(Held) == []
    finally:
        guest.close()


def test_nothing_of_any_process_is_read_before_the_host_asks(guest, monkeypatch):
    asked = []
    read = holders.read_file
    monkeypatch.setattr(holders, "read_file", lambda *of: asked.append(of) or read(*of))
    guest.until(lambda: len(guest.heard(Report)) == 1)
    guest.host.say(Welcome("0.1.0"), Ping(1), OnlineZone(2, "movable"))
    guest.until(lambda: len(guest.heard(Ack)) == 2 and len(guest.heard(Report)) >= 2)
    assert asked == []
    guest.host.say(WhoHolds(3))
    guest.until(lambda: guest.heard(Held))
    assert asked


def looks_for_holders(guest):
    """It is asked who holds its memory, and has begun with a thousand processes."""
    for pid in range(1, 1001):
        add_process(guest.root, pid, "worker", pages=1)
    guest.until(lambda: guest.heard(Report))
    guest.host.say(WhoHolds(1))
    guest.until(lambda: guest.daemon._holders.busy)


def test_while_it_looks_at_thousands_of_processes_the_host_is_answered_and_told_as_ever(guest):
    looks_for_holders(guest)
    guest.host.say(Ping(2), WhoHolds(3))
    guest.until(lambda: guest.heard(Ack) and len(guest.heard(Report)) == 2)
    assert guest.heard(Held) == []
    assert guest.heard(Ack) == [Ack(2, True, "here"), Ack(3, False, "asked again too soon")]
    guest.until(lambda: guest.heard(Held))
    assert guest.heard(Held)[0].holders == (("worker", 1000 * os.sysconf("SC_PAGE_SIZE")),)


def test_a_host_that_goes_while_its_question_is_answered_is_forgotten_with_it(guest):
    looks_for_holders(guest)
    guest.host.leave()
    guest.daemon.turn(0.05)
    assert not guest.daemon._holders.busy


def test_a_look_ends_with_the_host_also_where_a_write_found_it_gone_and_the_loop_waits_again(guest):
    looks_for_holders(guest)
    gone = OSError(errno.ENODEV, "the port was unplugged")
    guest.daemon._port._lost(gone)
    guest.host.leave()
    guest.daemon.turn(0.0)
    assert not guest.daemon._holders.busy
    assert guest.daemon._wake_at(0.0) > 0.0


def test_a_hot_add_and_its_way_back(guest):
    guest.until(lambda: guest.heard(Report))
    guest.host.say(OnlineZone(1, "movable"))
    guest.until(lambda: guest.heard(Ack))
    assert (guest.memory / "auto_online_blocks").read_text() == "online_movable"
    add_block(guest.root, 32, "online\n", "Movable\n")
    set_kib(guest.root, MemTotal=(404 + 128) << 10)
    guest.until(lambda: guest.heard(Report)[-1].movable_bytes == BLOCK_BYTES)
    assert guest.heard(Report)[-1].reason == "hotplug"
    guest.host.say(Offline(2, 32 * BLOCK_BYTES, BLOCK_BYTES))
    guest.until(lambda: guest.heard(Report)[-1].offline_bytes == BLOCK_BYTES)
    guest.until(lambda: len(guest.heard(Ack)) == 2)
    assert guest.heard(Ack)[-1] == Ack(2, True, "1 blocks offline", BLOCK_BYTES)
    guest.host.say(Online(3, 32 * BLOCK_BYTES, BLOCK_BYTES, "movable"))
    guest.until(lambda: guest.heard(Report)[-1].offline_bytes == 0)


def test_a_block_that_comes_between_two_readings_is_no_demand(guest, monkeypatch):
    """Two blocks go online, the second right after a sample: the report has both or neither."""
    guest.until(lambda: guest.heard(Report))
    probe, blocks_online = guest.daemon._probe, []
    sample = probe.sample

    def racing_sample(*look):
        facts = sample(*look)
        if len(blocks_online) == 1:
            plug()
        return facts

    def plug() -> None:
        blocks_online.append(32 + len(blocks_online))
        add_block(guest.root, blocks_online[-1], "online\n", "Movable\n")
        set_kib(guest.root, MemTotal=(404 + 128 * len(blocks_online)) << 10)

    monkeypatch.setattr(probe, "sample", racing_sample)
    plug()
    guest.until(lambda: guest.heard(Report)[-1].movable_bytes == 2 * BLOCK_BYTES)
    for report in guest.heard(Report):
        assert report.total_bytes - (404 << 20) == report.online_bytes - 4 * BLOCK_BYTES


def test_garbage_from_the_host_is_answered_once_and_harms_nothing(guest):
    guest.until(lambda: guest.heard(Report))
    guest.host.say(b"\x00\xff garbage\n" * 20, b'{"v":2,"t":"welcome"}\n')
    guest.host.say(b"x" * 3000)
    guest.daemon.turn(0.0)
    guest.host.say(b"x" * 3000 + b"\n", encode(Report("0b1c2d3e", 0, 1.0, 1 << 20, 0, 0)), Ping(7))
    guest.until(lambda: guest.heard(Ack))
    assert guest.heard(Ack) == [Ack(7, True, "here")]
    assert len(guest.heard(Error)) == 1


def test_an_unknown_version_is_answered_with_the_versions_spoken_here(guest):
    guest.until(lambda: guest.heard(Report))
    guest.host.say(b'{"v":2,"t":"welcome"}\n')
    guest.until(lambda: guest.heard(Error))
    assert guest.heard(Error)[0].code == "unknown-version"
    assert guest.heard(Error)[0].supported_versions == (1,)


def test_an_error_is_never_answered(guest):
    guest.until(lambda: guest.heard(Report))
    guest.host.say(Error("unknown-version"), Ping(1))
    guest.until(lambda: guest.heard(Ack))
    assert not guest.heard(Error)


def test_a_host_that_went_and_came_back_gets_a_fresh_hello(guest):
    guest.until(lambda: guest.heard(Report))
    guest.host.leave()
    until(lambda: guest.daemon.turn(0.05) or not guest.daemon._port.connected, lambda: "still connected")
    guest.host.come()
    guest.until(lambda: guest.heard(Report))
    assert isinstance(guest.host.messages[0], Hello)
    assert guest.heard(Report)[0].reason == "hello"


def test_while_the_host_is_away_the_agent_does_not_spin(guest):
    guest.until(lambda: guest.heard(Report))
    guest.host.leave()
    until(lambda: guest.daemon.turn(0.05) or not guest.daemon._port.connected, lambda: "still connected")
    assert guest.daemon._port.poll_for() is None
    before, turns = guest.daemon._clock(), 0
    while guest.daemon._clock() - before < 1.0:
        guest.daemon.turn()
        turns += 1
    assert turns <= 3


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Urgent data on one end gives POLLPRI on the other, as a PSI trigger does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


def test_a_psi_event_wakes_the_loop_and_is_reported_at_once(guest):
    guest.until(lambda: guest.heard(Report))
    ours, theirs = tcp_pair()
    guest.daemon._events.psi_fd = os.dup(ours.fileno())
    guest.until(lambda: guest.daemon._reporter.sample_due() > guest.daemon._clock() + 0.4)
    theirs.send(b"!", socket.MSG_OOB)
    guest.until(lambda: len(guest.heard(Report)) == 2, 0.3)
    assert guest.heard(Report)[-1].reason == "pressure"
    ours.close()
    theirs.close()


def test_a_psi_trigger_that_the_kernel_takes_away_is_let_go(guest):
    reading, writing = os.pipe()
    os.close(reading)
    guest.daemon._events.psi_fd = writing  # poll() says POLLERR of it
    guest.until(lambda: guest.daemon._events.psi_fd is None)
    guest.until(lambda: guest.heard(Report))


class Uevents:
    """What UeventSocket is to the daemon, over a pipe."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.waiting: list[Uevent] = []

    def tell(self, action: str, number: int) -> None:
        self.waiting.append(Uevent(action, f"/devices/system/memory/memory{number}"))
        os.write(self.writing, b"x")

    def fileno(self) -> int:
        return self.reading

    def read(self) -> tuple[list[Uevent], bool]:
        found, self.waiting = self.waiting, []
        if found:
            os.read(self.reading, len(found))
        return found, False

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


def test_a_uevent_is_acted_on_at_once(guest):
    guest.until(lambda: guest.heard(Report))
    guest.daemon._events.uevents = uevents = Uevents()
    guest.until(lambda: guest.daemon._reporter.sample_due() > guest.daemon._clock() + 0.4)
    add_block(guest.root, 32, "online\n", "Movable\n")
    uevents.tell("online", 32)
    guest.until(lambda: guest.heard(Report)[-1].movable_bytes == BLOCK_BYTES, 0.3)
    assert guest.heard(Report)[-1].reason == "hotplug"


def grown_by_a_block(guest: Guest) -> Uevents:
    """A guest by virtio-mem that has just got its first block, and heard of it by uevents."""
    guest.until(lambda: guest.heard(Report))
    guest.daemon._events.uevents = uevents = Uevents()
    add_block(guest.root, 32, "online\n", "Movable\n")
    set_kib(guest.root, MemTotal=(404 + 8) << 10)
    uevents.tell("online", 32)
    guest.until(lambda: guest.heard(Report)[-1].movable_bytes == BLOCK_BYTES)
    return uevents


def test_memory_that_comes_within_a_block_has_no_block_read(guest, monkeypatch):
    """virtio-mem plugs a few MiB a time: each report of a growth read all blocks, and 64 GiB have 512."""
    grown_by_a_block(guest)
    read, refresh = [], guest.daemon._blocks.refresh
    monkeypatch.setattr(
        guest.daemon._blocks, "refresh", lambda number: read.append(number) or refresh(number)
    )
    for mib in range(24, 128, 24):
        set_kib(guest.root, MemTotal=(404 + mib) << 10)
        guest.until(lambda: guest.heard(Report)[-1].total_bytes == (404 + mib) << 20)  # noqa: B023 # at once
    assert read == []


@pytest.mark.parametrize("told", [True, False])
def test_a_block_that_comes_right_after_a_sample_is_in_its_report_with_its_memory(guest, monkeypatch, told):
    """Its uevent waits by then, or comes a moment later."""
    uevents, probe = grown_by_a_block(guest), guest.daemon._probe
    add_block(guest.root, 33, "offline\n")
    uevents.tell("add", 33)
    guest.until(lambda: guest.heard(Report)[-1].offline_bytes == BLOCK_BYTES)
    sample, racing = probe.sample, [True]

    def racing_sample(*look):
        facts = sample(*look)
        if racing:
            racing.clear()
            (guest.memory / "memory33/state").write_text("online\n")
            set_kib(guest.root, MemTotal=(404 + 256) << 10)
            if told:
                uevents.tell("online", 33)
        return facts

    monkeypatch.setattr(probe, "sample", racing_sample)
    before = len(guest.heard(Report))
    set_kib(guest.root, MemTotal=(404 + 128) << 10)
    guest.until(lambda: guest.heard(Report)[-1].total_bytes == (404 + 256) << 20)
    for report in guest.heard(Report)[before:]:
        assert (report.total_bytes == (404 + 256) << 20) == (report.online_bytes == 6 * BLOCK_BYTES)


def test_where_uevents_never_come_blocks_are_found_as_memtotal_moves(guest):
    """The socket opens in namespaces to which the kernel sends nothing."""
    guest.until(lambda: guest.heard(Report))
    guest.daemon._events.uevents = Uevents()
    add_block(guest.root, 32, "online\n", "Movable\n")
    set_kib(guest.root, MemTotal=(404 + 128) << 10)
    guest.until(lambda: guest.heard(Report)[-1].movable_bytes == BLOCK_BYTES)


@pytest.mark.skipif(not os.access(UEVENT, os.W_OK), reason="only root can have the kernel send a uevent")
def test_a_uevent_of_this_kernel_is_read():
    uevents, seen = UeventSocket(), []
    UEVENT.write_text("change")
    until(lambda: seen.extend(uevents.read()[0]) or "memory0" in str(seen), lambda: seen)
    uevents.close()


def test_without_a_port_the_agent_waits_for_one(tmp_path):
    root, host, there = copy_of("debian12", tmp_path), HostEnd(), []

    def opener() -> int:
        if not there:
            raise FileNotFoundError(2, "No such file or directory")
        return host.opener()

    daemon = Daemon(str(root), opener, events=False)
    daemon.turn(0.0)
    there.append(True)
    until(lambda: daemon.turn(0.05) or host.hear(), lambda: host.raw)
    daemon.close()
    host.close()


def test_the_daemon_imports_nothing_heavy():
    code = "import sys; sys.path.insert(0, '.'); import agent.daemon; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    heavy = HEAVY if sys.version_info >= (3, 14) else HEAVY | {"typing", "contextlib"}
    assert not heavy & set(done.stdout.split())


def test_run_is_reached_without_the_commands():
    """The usage error of `run` comes from the daemon, and click has not been imported for it."""
    code = (
        "import sys; sys.path.insert(0, '.'); sys.argv = ['dynmem-agent', 'run', '--wrong'];"
        "from agent.cli import main; status = main(); print(status, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    status, *modules = done.stdout.split()
    assert status == "2"
    assert "usage" in done.stderr
    assert not {"click", "agent.commands"} & set(modules)


def own_mib(pid: int) -> float:
    """What only this process has written. A file's clean page is its own or shared as others come and go."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty:")) / 1024


@pytest.fixture
def process():
    """The daemon as systemd starts it, with the system's Python if there is one, and its host."""
    host = HostEnd(hold_master=True)
    python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
    command = [python, "-I", "-S", str(REPOSITORY / "agent/__main__.py"), "run", "--port", host.name]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    yield process, host
    process.kill()
    process.wait()
    process.stderr.close()
    host.close()


@pytest.mark.figures
def test_the_daemon_is_small_also_after_work(process):
    running, host = process
    until(lambda: any(isinstance(message, Report) for message in host.hear()), lambda: host.raw)
    first = own_mib(running.pid)
    for request_id in range(300):
        answer = Ack(request_id, True, "here")
        host.say(Ping(request_id), b"garbage\n", Offline(request_id, 1, 2))
        until(lambda answer=answer: answer in host.hear(), lambda: host.raw[-200:])
        host.messages.clear()
    last = own_mib(running.pid)
    print(f"the daemon alone holds {first:.1f} MiB, {last:.1f} MiB after 900 lines; allowed {OWN_LIMIT_MIB}")
    assert last <= OWN_LIMIT_MIB
    assert last - first < 0.5


def test_sigterm_ends_the_daemon_with_status_0(process):
    running, host = process
    until(host.hear, lambda: host.raw)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0


def test_systemd_hears_that_it_is_ready_and_alive(tmp_path, monkeypatch):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        notifier = Notifier()
        notifier.send("READY=1")
        notifier.feed_watchdog(100.0)
        notifier.feed_watchdog(100.5)  # too early for another
        notifier.feed_watchdog(101.0)
        server.setblocking(False)
        assert [server.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        with pytest.raises(BlockingIOError):
            server.recv(100)


def test_without_systemd_nothing_is_said(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().send("READY=1")


def test_an_event_is_logged_once_in_ten_seconds():
    reading, writing = os.pipe()
    log = Log(writing)
    for _ in range(100):
        log(4, "line", "dropped")
    log(6, "port", "a host is there")
    assert os.read(reading, 4096) == b"<4>line: dropped\n<6>port: a host is there\n"
    os.close(reading)
    os.close(writing)


def test_a_log_that_nobody_reads_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    Log(writing)(4, "line", "dropped")
    os.close(writing)


def test_programs_can_read_what_the_guest_may_come_to_have(tmp_path):
    guest = Guest(tmp_path)
    shown = tmp_path / "run/dynmem-agent/maximum"
    try:
        guest.until(lambda: guest.heard(Hello))
        assert not shown.exists(), "nobody has said what it is"
        old = os.umask(0o077)
        try:
            guest.host.say(Welcome("0.1.0", maximum_bytes=4 << 30))
            guest.until(shown.exists)
        finally:
            os.umask(old)
        assert shown.read_text() == "4294967296\n"
        assert shown.stat().st_mode & 0o777 == 0o644
        assert shown.parent.stat().st_mode & 0o777 == 0o755
        guest.host.say(Welcome("0.1.0", maximum_bytes=8 << 30))
        guest.until(lambda: shown.read_text() == "8589934592\n")
        guest.host.say(Welcome("0.1.0"))
        guest.until(lambda: not shown.exists())
        guest.host.say(Welcome("0.1.0", maximum_bytes=1 << 30))
        guest.until(shown.exists)
    finally:
        guest.close()
    assert not shown.exists(), "no host manages it any more"


@pytest.fixture
def signals():
    """None is ignored, as nohup(1) would have it; as they were, once the test is over."""
    used = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    kept = {one: signal.signal(one, signal.SIG_DFL) for one in used}
    yield
    for one, handler in kept.items():
        signal.signal(one, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_agent_that_is_stopped_as_it_starts_ends_well(monkeypatch: pytest.MonkeyPatch, number) -> None:
    monkeypatch.setattr("agent.daemon.protect_from_oom_killer", lambda: signal.raise_signal(number))
    assert main([]) == 0


@pytest.mark.usefixtures("signals")
def test_what_the_agent_inherits_of_signals_keeps_it_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An init that ignores SIGCHLD would take the offlining helper's end from us, and the agent with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
    found = []

    def begun() -> None:
        found.extend((signal.getsignal(signal.SIGCHLD), signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("agent.daemon.protect_from_oom_killer", begun)
    try:
        assert main([]) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGALRM})
    assert found == [signal.SIG_DFL, set()]


@pytest.mark.usefixtures("signals")
def test_a_second_signal_does_not_keep_the_guests_settings_from_being_put_back(tmp_path, monkeypatch) -> None:
    guest, done = Guest(tmp_path), []

    def restore() -> None:
        signal.raise_signal(signal.SIGTERM)
        done.append("restored")

    guest.daemon._overcommit.restore = restore
    monkeypatch.setattr("agent.daemon.Daemon", lambda **_: guest.daemon)
    monkeypatch.setattr(guest.daemon, "turn", lambda: signal.raise_signal(signal.SIGTERM))
    assert main([]) == 0
    assert done == ["restored"]
    guest.host.close()


@pytest.mark.usefixtures("signals")
def test_an_agent_that_cannot_read_the_kernels_figures_says_which_and_why(
    tmp_path, monkeypatch, capfd
) -> None:
    """As in a sandbox that hides /proc: it is no fault of ours, and no traceback."""
    monkeypatch.setattr("agent.daemon.Daemon", lambda **_: Daemon(str(tmp_path)))
    assert main([]) == 1
    said = capfd.readouterr().err
    assert "proc/meminfo cannot be read: No such file or directory" in said
    assert "Traceback" not in said


def test_who_kills_below_a_size_is_told_by_its_share_at_once_and_as_the_balloon_moves(tmp_path):
    guest = Guest(tmp_path)
    process = tmp_path / "proc/77"
    process.mkdir()
    (process / "comm").write_text("earlyoom\n")
    (process / "cmdline").write_bytes(b"/usr/bin/earlyoom\0-M\x0020480\0")
    try:
        guest.until(lambda: guest.heard(Report))
        assert guest.heard(Report)[0].kill_percent == 5  # 20 of 404 MiB
        set_kib(guest.root, MemTotal=202 << 10, MemAvailable=100 << 10)
        guest.daemon._slow_at = 0.0  # the next heartbeat
        guest.until(lambda: guest.heard(Report)[-1].kill_percent == 10)
    finally:
        guest.close()


def test_beside_a_kubelet_no_swap_counts_as_free(tmp_path):
    """By its defaults pods may use none, and a guest that is squeezed into swap would kill them."""
    guest = Guest(tmp_path)
    add_process(tmp_path, 77, "kubelet", pages=1)
    try:
        guest.until(lambda: guest.heard(Report))
        assert guest.heard(Report)[0].swap_disk_free_bytes == 0
        shutil.rmtree(tmp_path / "proc/77")
        guest.daemon._killers._due_at = guest.daemon._slow_at = 0.0  # a minute later
        guest.until(lambda: guest.heard(Report)[-1].swap_disk_free_bytes > 0)
    finally:
        guest.close()


def test_a_heartbeat_goes_before_what_is_done_beside_it(guest, monkeypatch):
    """So the host takes it while the agent is awake, and does not wake it for that."""
    guest.until(lambda: guest.heard(Report))
    daemon, done = guest.daemon, []
    send, slow = daemon._port.send, daemon._slow
    monkeypatch.setattr(daemon._port, "send", lambda message: done.append("report") or send(message))
    monkeypatch.setattr(daemon, "_slow", lambda now: done.append("slow") or slow(now))
    daemon._slow_at = 0.0
    daemon._reporter.force("heartbeat", 0.0)
    daemon.turn(0.0)
    assert done == ["report", "slow"]


def test_who_kills_is_not_looked_for_again_as_the_balloon_moves_where_nobody_did(guest, monkeypatch):
    guest.until(lambda: guest.heard(Report))
    monkeypatch.setattr("agent.killers.find", lambda *_: pytest.fail("nobody kills by a share of MemTotal"))
    set_kib(guest.root, MemTotal=202 << 10, MemAvailable=100 << 10)
    guest.daemon._slow_at = 0.0  # the next heartbeat
    guest.until(lambda: guest.daemon._slow_at > 0.0)


def test_without_uevents_a_dimm_comes_online_within_a_heartbeat(guest):
    """As in a namespace of its own, or under a kernel whose policy knows no zones: nobody else does it."""
    (guest.memory / "auto_online_blocks").unlink()
    guest.daemon._hotplug._mode = "agent"
    guest.until(lambda: guest.heard(Report))
    guest.host.say(OnlineZone(1, "movable"))
    guest.until(lambda: guest.heard(Ack))
    block = add_block(guest.root, 32, "offline\n")
    guest.daemon._slow_at = 0.0  # the next heartbeat
    guest.until(lambda: (block / "state").read_text() == "online_movable")
    guest.until(lambda: guest.heard(Report)[-1].online_bytes == 5 * BLOCK_BYTES)
