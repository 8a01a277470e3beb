"""What does the arbiter of 32 hosts and 640 VMs cost? `python -m bench.arbiter`; no cluster is needed.

The arbiter is the one that runs on clusters, in a process of its own, by a clock of its own: a turn each ten
seconds, a publication each thirty. It asks listeners over mutual TLS, and Pacemaker's own tools about a
configuration in a file. Only whether the engine rests is not asked. Each minute all needs change.
"""

import argparse
import json
import os
import random
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import structlog

from bench.fleet import RESULTS, STEP_SECONDS, RandomCell, commit
from host_controller.cli import fleet as _command
from host_controller.credentials import Credentials
from host_controller.fleet.arbiter import TURN_SECONDS, Arbiter
from host_controller.fleet.certificates import make_authority, make_host
from host_controller.fleet.clock import Clock
from host_controller.fleet.hosts import Hosts
from host_controller.fleet.pacemaker.simulation import Simulation
from host_controller.fleet.pacemaker.tools import Tools

HOSTS, VMS, LOAD = 32, 20, 0.6


class Figures(BaseHTTPRequestHandler):
    """A host's listener, as far as an arbiter asks it: which host is meant is told by TLS."""

    protocol_version = "HTTP/1.1"  # as hosts speak it: connections are kept
    directory: Path

    def do_GET(self) -> None:
        """Answer with the figures of the host that was asked."""
        host = self.connection.server_name
        body = (self.directory / f"{host}.json").read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no line for each request."""


def listeners(directory: Path, hosts: list[str]) -> ThreadingHTTPServer:
    """All hosts, at one port of this machine."""
    contexts = {one: Credentials.within(make_host(directory / "ca", one)).server() for one in hosts}

    def meant(connection: ssl.SSLSocket, name: str, _: ssl.SSLContext) -> None:
        connection.context = contexts[name]
        connection.server_name = name  # type: ignore[attr-defined]

    first = contexts[hosts[0]]
    first.sni_callback = meant  # type: ignore[assignment]
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Figures,), {"directory": directory}))
    server.socket = first.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def tell(cell: RandomCell, directory: Path) -> None:
    """A minute passes, and every host has new figures."""
    for host, figures in cell.step().items():
        plain: dict[str, Any] = asdict(figures) | {"at": time.time()}
        (directory / f"{host}.json").write_text(json.dumps(plain))


class Rests(Tools):
    """The engine's tools on a file; it has nothing else to do."""

    simulations = 0

    def idle(self) -> bool:
        """Whether nothing is under way: always so."""
        return True

    def simulate(self, text: bytes) -> Simulation:
        """As the tools do, and counted."""
        self.simulations += 1
        return super().simulate(text)


def arbiter(directory: Path, port: int, minutes: int) -> None:
    """Each line of input is a minute. The first publishes all sizes, and is not counted."""
    assert _command  # what the command has loaded belongs to what it costs
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr))
    look_up = socket.getaddrinfo
    socket.getaddrinfo = lambda host, *more, **named: look_up("127.0.0.1", *more, **named)
    engine = Rests({**os.environ, "CIB_file": str(directory / "cib.xml")})
    clock = [0.0]
    hosts = Hosts(Credentials.within(directory / "ca" / "h0"), port)
    one = Arbiter(engine, hosts, directory / "bookings.json", Clock(lambda: clock[0], sleep=lambda _: None))
    one.start()
    before = (0.0, 0.0, 0)
    for minute in range(minutes + 1):
        sys.stdin.readline()
        if minute == 1:
            before = (*_used(), engine.simulations)
        for _ in range(round(STEP_SECONDS / TURN_SECONDS)):
            one.turn()
            clock[0] += TURN_SECONDS
        print(minute, flush=True)
    own, tools, simulations = (
        now - then for then, now in zip(before, (*_used(), engine.simulations), strict=True)
    )
    status = Path("/proc/self/status").read_text()
    most_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    found = {"own_seconds": own, "engine_seconds": tools, "simulations": simulations, "most_kib": most_kib}
    print(json.dumps(found))


def _used() -> tuple[float, float]:
    """Seconds of a processor: ours, and those of the engine's tools."""
    own, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, theirs.ru_utime + theirs.ru_stime


def measure(minutes: int) -> dict[str, Any]:
    """The arbiter's share of a processor, and the most memory that it had."""
    cell = RandomCell(HOSTS, VMS, LOAD, random.Random(18))
    cell.quiet = True
    with tempfile.TemporaryDirectory(prefix="dynmem-arbiter-") as name:
        directory = Path(name)
        (directory / "cib.xml").write_bytes(
            cell.xml(cell.sizes, cell.capacities).replace(b"3.16.2", b"3.16.1")
        )
        make_authority(directory / "ca")
        server = listeners(directory, list(cell.capacities))
        command = [sys.executable, "-m", "bench.arbiter", "--minutes", str(minutes)]
        child = [*command, "--arbiter", str(directory), "--port", str(server.server_port)]
        with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(minutes + 1):
                tell(cell, directory)
                print(file=process.stdin, flush=True)
                process.stdout.readline()
            said: dict[str, Any] = json.loads(process.stdout.readline())
        server.shutdown()
    return said | {"minutes": minutes, "hosts": HOSTS, "vms": HOSTS * VMS, "commit": commit()}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--arbiter", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arbiter:
        arbiter(given.arbiter, given.port, given.minutes)
        return
    found = measure(given.minutes)
    (RESULTS / "arbiter.json").write_text(json.dumps(found, indent=2) + "\n")
    share = 100 / (given.minutes * STEP_SECONDS)
    print(f"ours: {share * found['own_seconds']:.2f} % of a processor; {found['most_kib'] / 1024:.0f} MiB")
    print(f"the engine's tools: {share * found['engine_seconds']:.2f} %, {found['simulations']} simulations")


if __name__ == "__main__":
    main()
