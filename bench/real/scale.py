"""The real daemon under 10, 100 and 1,000 guests that report once a second: CPU, memory, delay, start.

The wire protocol, the sockets and the daemon are real; guests and their QEMUs are played by this process, so
libvirt's own cost is not in it. The floor: what a bare `json.loads` of the same lines costs, in the same run.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from bench.real.fake_guests import FakeGuest, Fleet
from bench.real.harness import Goal, Ratio, Result, percentile, processor_seconds
from host_controller.api.client import Client, ControllerUnreachable
from host_controller.units import MIB
from host_controller.verify.processes import prefer

COUNTS: Final = (10, 100, 1000)
MOST: Final = COUNTS[-1]
SECONDS: Final = 25.0
JUMPS_PER_SECOND: Final = 20.0
START_LIMIT: Final = 60.0
CALM_SECONDS: Final = 2.0


class ScaleError(Exception):
    """The daemon did not do what was waited for."""


@dataclass(frozen=True, slots=True)
class Load:
    """What so many guests cost."""

    guests: int
    start_seconds: float
    cpu: float
    """Of one core."""
    rss_bytes: int
    p50_seconds: float
    p99_seconds: float
    answered: int
    cpu_per_report_seconds: float


def run(counts: tuple[int, ...] = COUNTS, seconds: float = SECONDS) -> Result:
    """All of it."""
    prefer(os.getpid())
    floor = json_floor()
    columns = (
        "guests", "CPU of a core, %", "RSS, MiB", "report → command, median ms", "p99 ms", "start, s",
        "CPU per report ÷ json.loads",
    )  # fmt: skip
    result = Result("scale", "The daemon under load", columns)
    for count in counts:
        load = asyncio.run(measure(count, seconds))
        ratio = load.cpu_per_report_seconds / floor
        cells = (100 * load.cpu, load.rss_bytes / MIB, 1000 * load.p50_seconds, 1000 * load.p99_seconds)
        result.rows.append((f"{count:,}", *cells, load.start_seconds, ratio))
        result.series[str(count)] = {name: getattr(load, name) for name in Load.__slots__}
        if count == MOST:
            result.ratios["CPU per report ÷ json.loads at 1,000"] = Ratio(ratio)
            result.goals = [
                Goal("CPU of one core at 1,000 guests, %,", 100 * load.cpu, 20),
                Goal("RSS at 1,000 guests, MiB,", load.rss_bytes / MIB, 150),
                Goal("report → command p99 at 1,000 guests, ms,", 1000 * load.p99_seconds, 150),
                Goal("start with 1,000 guests, s,", load.start_seconds, 5),
            ]
    return result


def json_floor() -> float:
    """Seconds to parse one report's line with nothing done about it."""
    line = FakeGuest(1).report()
    rounds = 5000
    found = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(rounds):
            json.loads(line)
        found.append((time.process_time() - began) / rounds)
    return min(found)


async def measure(count: int, seconds: float = SECONDS) -> Load:
    """One daemon, from its start until it has been under load for some time."""
    with tempfile.TemporaryDirectory(prefix="dynmem-scale-") as name:
        directory = Path(name)
        async with Fleet(directory / "guests", count) as fleet:
            began = time.monotonic()
            daemon = start(directory, count)
            try:
                client = Client(str(directory / "run" / "control.sock"))
                await _until(lambda: len(fleet.first_target_at) == count, START_LIMIT, "a takeover of all")
                await until_live(client, fleet)
                started = time.monotonic() - began
                await fleet.play(CALM_SECONDS, 0.001)
                before, sent, at = processor_seconds(daemon.pid), fleet.reports, time.monotonic()
                fleet.waits.clear()
                await fleet.play(seconds, min(JUMPS_PER_SECOND, count / 10))
                used = processor_seconds(daemon.pid) - before
                took = time.monotonic() - at
                if daemon.poll() is not None:
                    raise ScaleError(f"the daemon has ended: {_log(directory)}")
                resident = psutil.Process(daemon.pid).memory_info().rss
                return Load(
                    count, started, used / took, resident, percentile(fleet.waits, 0.5),
                    percentile(fleet.waits, 0.99), len(fleet.waits), used / (fleet.reports - sent),
                )  # fmt: skip
            finally:
                daemon.terminate()
                await asyncio.to_thread(daemon.wait, 10)


def start(directory: Path, count: int, more: str = "") -> subprocess.Popen[bytes]:
    """The daemon for so many guests; `more` is TOML for the end of its configuration."""
    config = directory / "dynmem.toml"
    config.write_text(
        f'[libvirt]\nuri = "{directory}/guests"\n[host]\ncapacity = "{4 * count}GiB"\n'
        f'[paths]\nstate_dir = "{directory}/run"\nhistory = "{directory}/history.sqlite"\n{more}'
    )
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "bench.real.fake_hypervisor", str(config)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    prefer(daemon.pid)
    return daemon


async def _until(condition: Callable[[], bool], limit: float, what: str) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise ScaleError(f"not within {limit:g} s: {what}")
        await asyncio.sleep(0.02)


async def until_live(client: Client, fleet: Fleet) -> None:
    """Until the daemon says of every VM that it is live, with an agent.

    Guests report meanwhile: one report alone may come before its guest is believed.
    """
    talking = asyncio.create_task(fleet.play(2 * START_LIMIT, 0.001))
    try:
        await _until_live(client, len(fleet.guests))
    finally:
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


async def _until_live(client: Client, count: int) -> None:
    deadline = time.monotonic() + START_LIMIT
    live = 0
    while time.monotonic() < deadline:
        try:
            status: dict[str, Any] = await asyncio.to_thread(client.get, "status")
        except ControllerUnreachable:
            continue
        live = sum(vm["phase"] == "live" and vm["agent"] is not None for vm in status["vms"])
        if live == count:
            return
        await asyncio.sleep(0.1)
    raise ScaleError(f"{live} of {count} guests are live after {START_LIMIT:g} s")


def _log(directory: Path) -> str:
    return (directory / "log").read_text(errors="replace")[-2000:]


if __name__ == "__main__":
    print(run(tuple(map(int, sys.argv[1:])) or COUNTS).text())
