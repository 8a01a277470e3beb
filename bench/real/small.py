"""The agent in a real guest, beside `python3 -I -S` that does nothing and beside qemu-ga, in one run.

CPU: the guest has QEMU's instruction counter for a clock (`-icount shift=0,sleep=off`). An instruction is a
nanosecond, so the kernel's account of a process's CPU time counts its instructions, system calls included;
and time in which nobody has anything to do is skipped, so that an hour at the ordinary cadence passes in
seconds. CPU seconds come from the same daemon on the host's own /proc. Growth: an ordinary guest whose agent
is asked for reports as fast as it gives them.
"""

import re
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

from agent import codec, wire
from bench.real.harness import Goal, Ratio, Result, tell
from host_controller.units import MIB
from host_controller.verify.processes import prefer
from lab.code_disk import REPOSITORY
from lab.domain import AGENT_PORT, GuestSpec
from lab.guest import Guest
from lab.lab import Lab

HOUR: Final = 3600.0
SETTLED: Final = 120.0
"""By so much uptime a guest has booted and is calm."""
REPORTS: Final = {720: "after an hour's reports", 10_000: "after 10,000 reports"}
LIMIT: Final = 300.0
RAM: Final = 512
ADDED: Final = 256
CORE_HZ: Final = 3e9
"""Instructions a second of one core under KVM, as we take it: 3 GHz, one a cycle."""
AGENT: Final = "/usr/bin/python3 -I /lab/agent/__main__.py run"
"""As its package starts it."""
OTHERS: Final = {
    "python3 -I -S, idle": "/usr/bin/python3 -I -S -c 'import signal; signal.pause()'",
    "qemu-ga": "/usr/sbin/qemu-ga -m unix-listen -p /run/qga.sock -t /run -f /run/qga.pid",
}
DIMM: Final = f"<memory model='dimm'><target><size unit='MiB'>{ADDED}</size><node>0</node></target></memory>"
NATIVE_SAMPLES: Final = 2000


class SmallError(Exception):
    """The guest did not do what was waited for."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One process at one time."""

    uss_bytes: int
    instructions: int
    wakeups: int


@dataclass(frozen=True, slots=True)
class Calm:
    """One process over a calm hour, and how large it was at its end."""

    uss_bytes: int
    instructions_per_second: float
    wakeups_per_second: float


class HostEnd:
    """The host's end of the agent's port."""

    def __init__(self, guest: Guest) -> None:
        found = re.search(rf"path='([^']*{re.escape(AGENT_PORT)})'", guest.domain().XMLDesc(0))
        if found is None:
            raise SmallError("the guest has no port for an agent")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(found[1])
        self._reader = codec.LineReader()
        self.received_bytes = 0
        self.reports = 0
        self.acks = 0

    def say(self, message: wire.HostMessage) -> None:
        """To the agent."""
        self._socket.sendall(codec.encode(message))

    def listen(self, seconds: float) -> None:
        """Take what comes in so much of our time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._take(left)

    def until(self, what: str, limit: float, **counts: int) -> None:
        """Listen until so many messages have come."""
        deadline = time.monotonic() + limit
        while any(getattr(self, name) < count for name, count in counts.items()):
            if time.monotonic() > deadline:
                raise SmallError(f"not within {limit:g} s: {what} ({self.reports} reports)")
            self._take(1.0)

    def _take(self, longest_seconds: float) -> None:
        if not select.select([self._socket], [], [], longest_seconds)[0]:
            return
        data = self._socket.recv(1 << 16)
        self.received_bytes += len(data)
        for line in self._reader.feed(data):
            assert isinstance(line, bytes)
            message = codec.decode_from_guest(line)
            self.reports += isinstance(message, wire.Report)
            self.acks += isinstance(message, wire.Ack)

    def close(self) -> None:
        """Go."""
        self._socket.close()


def run() -> Result:
    """All of it."""
    with Lab() as lab:
        counted = _hour(lab)
        grown = _growth(lab)
    return _result(counted, grown, native_cpu_seconds())


@dataclass(frozen=True, slots=True)
class Hour:
    """A calm hour of every process, and the agent's port in it."""

    calm: dict[str, Calm]
    port_bytes_per_second: float
    reports_per_second: float


def _hour(lab: Lab) -> Hour:
    """In a guest whose clock counts instructions."""
    guest, pids, host = _boot(lab, "hour", qemu_arguments=("-icount", "shift=0,sleep=off"))
    while guest.workload.ping(LIMIT)[0] < SETTLED:
        host.listen(0.2)
    began, first = _take(guest, pids)
    bytes_before, reports_before = host.received_bytes, host.reports
    while (now := guest.workload.ping(LIMIT)[0]) < began + HOUR:
        tell(f"small: {now - began:,.0f} s of a calm hour")
        host.listen(2.0)
    ended, second = _take(guest, pids)
    received, reports = host.received_bytes - bytes_before, host.reports - reports_before
    host.close()
    guest.remove()
    passed = ended - began
    calm = {name: _calm(first[name], second[name], passed) for name in pids}
    return Hour(calm, received / passed, reports / passed)


def _growth(lab: Lab) -> dict[str, int]:
    """The agent's USS in an ordinary guest: at the start, after an hour's and 10,000 reports, a hot add."""
    guest, pids, host = _boot(lab, "growth")
    sizes = {"at the start": _uss(guest, pids)}
    asked = 0
    for reports, name in REPORTS.items():
        while host.reports < reports:
            asked += 1
            host.say(wire.Ping(asked))
            host.until("a report", LIMIT, reports=host.reports + 1)
        sizes[name] = _uss(guest, pids)
        tell(f"small: {sizes[name] / MIB:.2f} MiB {name}")
    guest.domain().attachDevice(DIMM)
    host.until("reports after a hot add", LIMIT, reports=host.reports + 5)
    assert guest.workload.memory().total_bytes > (RAM + ADDED // 2) * MIB, (
        "the hot add was not brought online"
    )
    sizes["after a hot add"] = _uss(guest, pids)
    host.close()
    guest.remove()
    return sizes


def _boot(lab: Lab, name: str, **more: Any) -> tuple[Guest, dict[str, int], "HostEnd"]:
    """A guest with an agent that has a host and has had a command, and the others beside it."""
    guest = lab.guest(
        GuestSpec(name, RAM, 2 * RAM, swap_mib=64, raw_dynmem=True, agent=AGENT, **more)
    )  # fmt: skip
    guest.start()
    prefer(guest.qemu_pid())
    guest.wait_booted(LIMIT)
    pids = {"dynmem-agent": guest.workload.wait_agent(LIMIT)} | _start_others(guest)
    host = HostEnd(guest)
    host.say(wire.Welcome("bench"))
    host.say(wire.OnlineZone(1, "movable"))
    host.until("an answer", LIMIT, acks=1, reports=2)
    return guest, pids, host


def _result(hour: Hour, uss: dict[str, int], native: tuple[float, float]) -> Result:
    ours, bare = hour.calm["dynmem-agent"], hour.calm["python3 -I -S, idle"]
    per_sample, per_report = native
    samples, reports = ours.wakeups_per_second, hour.reports_per_second
    share_native = per_sample * samples + (per_report - per_sample) * reports
    columns = ("process", "USS, MiB", "instructions a second", "of a 3 GHz core, %", "wakeups a second")
    result = Result("small", "The agent in a guest, over a calm hour", columns)
    for name, one in hour.calm.items():
        counted = one.instructions_per_second
        shown = (counted, 100 * counted / CORE_HZ, one.wakeups_per_second)
        result.rows.append((name, one.uss_bytes / MIB, *shown))
    result.series = {
        "uss_bytes": uss,
        "native_sample_us": 1e6 * per_sample,
        "native_report_us": 1e6 * per_report,
        "instructions_per_sample": ours.instructions_per_second / samples,
        "reports_per_second": reports,
        "port_bytes_per_second": hour.port_bytes_per_second,
    }
    _, after_hour, after_all, added = uss.values()
    counted = 100 * ours.instructions_per_second / CORE_HZ
    result.goals = [
        Goal("USS after a calm hour, MiB,", ours.uss_bytes / MIB, 5.5),
        Goal("USS after 10,000 reports, MiB,", after_all / MIB, 5.5),
        Goal("growth from an hour's reports to those, MiB,", (after_all - after_hour) / MIB, 0.1),
        Goal("USS after a hot add, above that before it, MiB,", (added - after_all) / MIB, 0.2),
        Goal("instructions a second when calm, thousands,", ours.instructions_per_second / 1000, 400),
        Goal("CPU when calm, by instructions at 3 GHz, % of a core,", counted, 0.05),
        Goal("CPU when calm, by CPU seconds of this machine, % of a core,", 100 * share_native, 0.05),
        Goal("wakeups a second when calm,", samples, 2.0),
        Goal("bytes a second on the port when calm,", hour.port_bytes_per_second, 100),
    ]
    result.ratios = {
        "USS ÷ idle python3": Ratio(ours.uss_bytes / bare.uss_bytes),
        "instructions a second, in thousands": Ratio(ours.instructions_per_second / 1000),
    }
    return result


def _start_others(guest: Guest) -> dict[str, int]:
    found = {}
    for name, command in OTHERS.items():
        text = guest.workload.exec(f"setsid {command} >/dev/null 2>&1 & echo $!", limit=60)
        found[name] = int(text.split()[-1])
    return found


def _take(guest: Guest, pids: dict[str, int]) -> tuple[float, dict[str, Taken]]:
    """The guest's clock and all processes, by one command in the guest: an idle guest's clock runs ahead of
    ours.
    """
    script = "cat /proc/uptime; " + "; ".join(
        f"echo next; cat /proc/{pid}/schedstat; grep Private_ /proc/{pid}/smaps_rollup; "
        f"grep ^voluntary /proc/{pid}/status"
        for pid in pids.values()
    )
    uptime, *parts = guest.workload.exec(script, limit=LIMIT).split("next\n")
    return float(uptime.split()[0]), {name: _parse(text) for name, text in zip(pids, parts, strict=True)}


def _uss(guest: Guest, pids: dict[str, int]) -> int:
    """The agent's, bytes."""
    return _take(guest, pids)[1]["dynmem-agent"].uss_bytes


def _parse(text: str) -> Taken:
    lines = text.splitlines()
    private = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    wakeups = next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
    return Taken(sum(private) * 1024, int(lines[0].split()[0]), wakeups)


def _calm(before: Taken, after: Taken, seconds: float) -> Calm:
    return Calm(
        after.uss_bytes,
        (after.instructions - before.instructions) / seconds,
        (after.wakeups - before.wakeups) / seconds,
    )


def native_cpu_seconds() -> tuple[float, float]:
    """CPU seconds of one sample, and of one that is reported, of the daemon on this machine's own /proc."""
    command = [sys.executable, "-I", "-c", _NATIVE, str(REPOSITORY), str(NATIVE_SAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    calm, reporting = map(float, done.stdout.split())
    return calm, reporting


_NATIVE: Final = """
import os, socket, sys, time
sys.path.insert(0, sys.argv[1])
from agent.daemon import Daemon
from agent.codec import encode
from agent.wire import Ping, Welcome
ours, host = socket.socketpair()
ours.setblocking(False); host.setblocking(False)
now = 0.0
daemon = Daemon(opener=lambda: os.dup(ours.fileno()), clock=lambda: now)
def turns(count, line):
    global now
    began = time.process_time()
    spent = 0.0
    for number in range(count):
        now += 0.5
        host.send(line(number)) if line else None
        began = time.process_time()
        daemon.turn(0)
        spent += time.process_time() - began
        try:
            host.recv(1 << 16)
        except BlockingIOError:
            pass
    return spent / count
host.send(encode(Welcome("bench", heartbeat_seconds=60.0)))
turns(50, None)
rounds = int(sys.argv[2])
print(min(turns(rounds, None) for _ in range(3)))
print(min(turns(rounds, lambda n: encode(Ping(n))) for _ in range(3)))
"""


if __name__ == "__main__":
    print(run().text())
