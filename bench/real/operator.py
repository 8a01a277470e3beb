"""What an operator waits for, asked of the real daemon from outside while its guests report once a second.

`dynmem status` is a whole process; the API and `/metrics` are measured from connecting to the last byte; the
page by its own clock in headless Chromium. The floor: a Python process that does nothing.
"""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench.real.fake_guests import Fleet
from bench.real.harness import Goal, Ratio, Result, spread
from bench.real.scale import JUMPS_PER_SECOND, start, until_live
from host_controller.api.client import Client
from host_controller.verify.processes import prefer
from tests.support.browser import CHROMIUM, opened
from tests.support.ports import free_port

FEW: Final = 200
MANY: Final = 1000
ROUNDS: Final = 15
UPDATES: Final = 10
IDLE: Final = 1000
SENDERS: Final = 8
CROWD_ROUNDS: Final = 200
CROWD_FACTOR: Final = 3.0
SETTLE_SECONDS: Final = 10.0
LONGEST_SECONDS: Final = 600.0


def run() -> Result:
    """All of it."""
    prefer(os.getpid())
    columns = ("what", "median ms (p10–p90)", "best ms", "goal ms")
    result = Result("operator", "What an operator waits for", columns)
    asyncio.run(_measure(result))
    return result


async def _measure(result: Result) -> None:
    async with daemon(FEW) as (path, port):
        empty = await asyncio.to_thread(repeated, [sys.executable, "-I", "-S", "-c", ""], path)
        program = str(Path(sys.executable).with_name("dynmem"))
        status = await asyncio.to_thread(repeated, [program, "status"], path)
        add(result, f"`dynmem status`, whole process, {FEW} VMs", 300, status)
        result.ratios["dynmem status ÷ an empty Python process"] = Ratio(min(status) / min(empty))
        if CHROMIUM is not None:
            took = await page_updates(port)
            add(result, f"an update of the page, script time, {FEW} VMs", 16, took)
    async with daemon(MANY) as (path, _):
        took, answer = await asked(path, "/v1/vms")
        assert answer.count('"uuid"') == MANY
        add(result, f"`GET /v1/vms`, {MANY:,} VMs", 50, took)
        took, answer = await asked(path, "/metrics")
        assert answer.count("dynmem_vm_assigned_bytes{") == MANY
        add(result, f"`GET /metrics`, {MANY:,} VMs", 150, took)
        turn = re.search(r"^dynmem_host_scrape_turn_seconds (\S+)", answer, re.M)
        assert turn is not None
        add(result, "of that, most of the control loop at once", 5, [float(turn[1])])
        await _crowded(result, path)


async def _crowded(result: Result, path: str) -> None:
    """The honest client's slowest answers, alone and in a crowd, and how late the control loop was then."""
    quiet, _ = await asked(path, "/v1/vms", CROWD_ROUNDS)
    async with crowd(path, IDLE, SENDERS):
        await asyncio.sleep(SETTLE_SECONDS)
        crowded, answer = await asked(path, "/v1/vms", CROWD_ROUNDS)
        assert answer.count('"uuid"') == MANY
        host = (await asyncio.to_thread(Client(path).get, "status"))["host"]
    slow = [statistics.quantiles(one, n=100, method="inclusive")[98] for one in (quiet, crowded)]
    what = f"p99 of `GET /v1/vms` among {IDLE:,} idle connections and {SENDERS} that send 4 MiB ÷ p99 quiet"
    result.ratios[what] = Ratio(slow[1] / slow[0])
    result.goals.append(Goal(f"{what}, times,", slow[1] / slow[0], CROWD_FACTOR))
    add(result, "`GET /v1/vms` in that crowd", 1000 * CROWD_FACTOR * slow[0], crowded)
    add(result, "the control loop's longest delay meanwhile", 250, [host["lateness_seconds"]])


@asynccontextmanager
async def crowd(path: str, idle: int, senders: int) -> AsyncIterator[None]:
    """Strangers, in a process of their own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.real.crowd", path, str(idle), str(senders)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await asyncio.wait_for(process.stdout.readline(), 60)
        yield
    finally:
        process.kill()
        await process.wait()


def add(result: Result, what: str, goal: float, seconds: Sequence[float]) -> None:
    """A row of milliseconds, with its goal."""
    found = spread([one * 1000 for one in seconds])
    result.rows.append((what, found, min(seconds) * 1000, goal))
    result.goals.append(Goal(f"{what}, median ms,", found.median, goal))
    result.series[what] = [round(one * 1000, 2) for one in seconds]


@asynccontextmanager
async def daemon(
    count: int, prepare: Callable[[Path], None] = lambda _directory: None
) -> AsyncIterator[tuple[str, int]]:
    """A daemon with so many guests, which report until the end: its socket, and the port of its page.

    prepare: called with its directory before it starts.
    """
    with tempfile.TemporaryDirectory(prefix="dynmem-operator-") as name:
        directory = Path(name)
        await asyncio.to_thread(prepare, directory)
        async with Fleet(directory / "guests", count) as fleet:
            port = free_port()
            process = start(directory, count, f'[http]\nlisten = "127.0.0.1:{port}"\n')
            try:
                path = str(directory / "run" / "control.sock")
                await until_live(Client(path), fleet)
                playing = asyncio.create_task(fleet.play(LONGEST_SECONDS, min(JUMPS_PER_SECOND, count / 10)))
                await asyncio.sleep(SETTLE_SECONDS)
                yield path, port
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait, 20)


def repeated(command: list[str], path: str) -> list[float]:
    """Seconds from fork to exit, some times."""
    environment = os.environ | {"DYNMEM_SOCKET": path}
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
        took.append(time.perf_counter() - began)
    return took


async def asked(path: str, what: str, rounds: int = ROUNDS) -> tuple[list[float], str]:
    """Seconds of each answer, and the last one."""
    command = [sys.executable, "-m", "bench.real.asker", path, what, str(rounds)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told["took"], told["answer"]


async def page_updates(port: int) -> list[float]:
    """Seconds of script that each update took, by the page's own clock."""
    took = []
    async with opened(f"http://127.0.0.1:{port}/", width=1300, height=1000) as page:
        for number in range(2, UPDATES + 2):
            await page.until(f"document.body?.dataset.updates >= {number}", 60)
            took.append(float(await page.run("document.body.dataset.updateMs")) / 1000)
    return took
