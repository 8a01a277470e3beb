"""What an operator waits for: `python -m bench.operator`, or `make bench-operator`; about two minutes.

The daemon is a process of its own with simulated VMs that allocate and free all the time
(`bench.simulated_host`); what is measured is asked of it from outside, as an operator would.
"""

import asyncio
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.unit.browser import CHROMIUM, opened

ROUNDS: Final = 15
UPDATES: Final = 10
STARTED_SECONDS: Final = 120.0
WARM_UP_SECONDS: Final = 20.0
"""Until every guest has booted, reports, and is moved."""
FEW: Final = 200
MANY: Final = 1000
RESULTS: Final = Path(__file__).parent / "results" / "operator.json"


class Figure(NamedTuple):
    """What was measured some times, milliseconds."""

    what: str
    goal: float
    took: Sequence[float]

    def row(self) -> str:
        """A line of the table."""
        median = statistics.median(self.took)
        met = "" if median <= self.goal else "  MISSED"
        return f"{self.what:58}{min(self.took):8.1f}{median:8.1f}{max(self.took):8.1f}{self.goal:8.0f}{met}"


@contextmanager
def daemon(vms: int) -> Iterator[tuple[Path, int]]:
    """A daemon with so many VMs: its socket, and the port of its page."""
    with tempfile.TemporaryDirectory(prefix="dynmem-bench-") as name:
        directory, port = Path(name), _free_port()
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.simulated_host", str(vms), name, str(port)],
                stdout=log,
                stderr=log,
            )
        try:
            path = directory / "run" / "control.sock"
            end = time.monotonic() + STARTED_SECONDS
            while not (path.exists() and get(path, "/v1/status").count(b'"phase":"live"') >= 0.9 * vms):
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"the daemon does not get there: {(directory / 'log').read_text()}")
                time.sleep(0.5)
            time.sleep(WARM_UP_SECONDS)
            yield path, port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def get(path: Path, what: str) -> bytes:
    """An answer with its head."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(STARTED_SECONDS)
        connection.connect(str(path))
        connection.sendall(f"GET {what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        pieces = []
        while piece := connection.recv(1 << 18):
            pieces.append(piece)
    return b"".join(pieces)


def repeated(work: Callable[[], object]) -> list[float]:
    """Milliseconds of each of some rounds."""
    took = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        took.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.2)
    return took


def measure_status(path: Path) -> Figure:
    """The whole process, from fork to exit."""
    program = Path(sys.executable).with_name("dynmem")
    environment = os.environ | {"DYNMEM_SOCKET": str(path)}

    def once() -> None:
        done = subprocess.run([program, "status"], capture_output=True, check=True, env=environment)
        assert done.stdout.count(b"\n") >= FEW

    return Figure(f"`dynmem status`, whole process, {FEW} VMs", 300, repeated(once))


def measure_vms(path: Path) -> Figure:
    """From connecting to the last byte."""

    def once() -> None:
        assert get(path, "/v1/vms").count(b'"uuid"') == MANY

    return Figure(f"`GET /v1/vms`, {MANY:,} VMs", 50, repeated(once))


def measure_metrics(path: Path) -> tuple[Figure, Figure]:
    """From connecting to the last byte, and the longest that the control loop had to wait for it."""
    turns = []

    def once() -> None:
        text = get(path, "/metrics")
        assert text.count(b"dynmem_vm_assigned_bytes{") == MANY
        found = re.search(rb"^dynmem_host_scrape_turn_seconds (\S+)", text, re.M)
        if found is not None:  # of the scrape before
            turns.append(float(found[1]) * 1000)

    whole = Figure(f"`GET /metrics`, {MANY:,} VMs", 150, repeated(once))
    return whole, Figure("of that, longest without a turn for the control loop", 5, turns)


async def measure_page(port: int) -> Figure:
    """Script time of an update, by the page's own clock."""
    took = []
    async with opened(f"http://127.0.0.1:{port}/", width=1300, height=1000) as page:
        for number in range(2, UPDATES + 2):
            await page.until(f"document.body?.dataset.updates >= {number}", 60)
            took.append(float(await page.run("document.body.dataset.updateMs")))
    return Figure(f"update of the page in Chromium, script time, {FEW} VMs", 16, took)


def main() -> int:
    """Exit 1 when a median misses its goal."""
    figures = []
    with daemon(FEW) as (path, port):
        figures.append(measure_status(path))
        if CHROMIUM is not None:
            figures.append(asyncio.run(measure_page(port)))
    with daemon(MANY) as (path, _):
        figures.append(measure_vms(path))
        figures += measure_metrics(path)
    print(f"{'milliseconds':58}{'best':>8}{'median':>8}{'worst':>8}{'goal':>8}")
    for one in figures:
        print(one.row())
    RESULTS.write_text(json.dumps([one._asdict() for one in figures], indent=1) + "\n")
    return int(any(statistics.median(one.took) > one.goal for one in figures))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
