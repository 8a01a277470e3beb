"""What the pages cost: Cockpit's first view and its updates, and a year that opens while advice is made.

The real daemon, with guests that report once a second, and of 100 VMs a year by the hour and a week by five
minutes. Advice is another process, at nice 19. Times of a page are by its own clock.
"""

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from bench.real.harness import Result
from bench.real.operator import FEW, UPDATES, add, daemon
from host_controller.api.client import Client
from host_controller.core.model import Growth, Limits, VmConfig
from host_controller.records.history_file import HistoryFile
from host_controller.records.tier_file import KEEP
from host_controller.records.tiers import Span
from host_controller.units import GIB
from host_controller.verify.processes import prefer
from tests.support.browser import opened
from tests.support.cockpit import cockpit

VMS: Final = 100
OPENINGS: Final = 5
LATE_SECONDS: Final = 61.0
"""The daemon tells its worst delay of the last minute."""
IDLE: Final = """
import select, sys, time
worst, due = 0.0, time.monotonic()
while True:
    due = max(due + 1.0, time.monotonic())
    if select.select([sys.stdin], [], [], due - time.monotonic())[0]:
        break
    worst = max(worst, time.monotonic() - due)
print(worst)
"""
"""A process that does nothing once a second: how late it is, the machine makes it."""
LIMITS: Final = Limits(GIB, GIB // 2, 8 * GIB)


def run() -> Result:
    """All of it."""
    prefer(os.getpid(), nice=-20)  # browser and Cockpit are many processes that wait for each other
    result = Result("pages", "What the pages cost", ("what", "median ms (p10–p90)", "best ms", "goal ms"))
    asyncio.run(_measure(result))
    return result


async def _measure(result: Result) -> None:
    async with daemon(FEW) as (path, _):
        await _cockpit(result, Path(path))
    async with daemon(VMS, _year) as (path, port):
        async with _idle() as idle_quiet:
            await asyncio.sleep(LATE_SECONDS)
            quiet = await _lateness(path)
        advising = await _advise(path)
        try:
            async with _idle() as idle_late:
                await _open_year(result, port)
                assert advising.returncode is None, "the advice was over before the year was open"
                late = await _lateness(path)
        finally:
            if advising.returncode is None:
                advising.kill()
            await advising.wait()
        add(result, f"the control loop's longest delay in a minute, {VMS} VMs, in quiet", 50, [quiet])
        add(result, "an idle process's meanwhile", 50, idle_quiet)
        add(result, "the loop's while advice is made and a year opens", 50, [late])
        add(result, "an idle process's meanwhile, too", 50, idle_late)


@asynccontextmanager
async def _idle() -> AsyncIterator[list[float]]:
    """How late an idle process was at worst, seconds: in the list when the block is over."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IDLE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    prefer(process.pid)  # as the daemon
    found: list[float] = []
    yield found
    told, _ = await process.communicate(b"")
    found.append(float(told))


async def _cockpit(result: Result, control: Path) -> None:
    """Each time with a Cockpit of its own: its session ends with its browser."""
    first, thread, took = [], [], []
    for number in range(OPENINGS):
        with tempfile.TemporaryDirectory(prefix="dynmem-cockpit-") as name:
            found = await _view(Path(name), control, UPDATES if number == 0 else 1)
        first.append(found[0])
        thread.append(found[1])
        took += found[2:]
    add(result, f"Cockpit: from its address to the first view, {FEW} VMs", 1500, first)
    add(result, "of that, processor time of the page's thread", 1500, thread)
    add(result, f"Cockpit: an update, script time, {FEW} VMs", 16, took)


async def _view(directory: Path, control: Path, updates: int) -> list[float]:
    """Seconds to the first view, of processor time of its thread until then, and of script in each update."""
    with cockpit(directory, control) as url:
        async with opened(url, width=1300, height=1000) as page:
            await page.until("document.body?.dataset.updates >= 1", 60)
            thread = await page.processor_seconds()
            found = [float(await page.run("document.body.dataset.firstViewMs")) / 1000, thread]
            for update in range(2, updates + 2):
                await page.until(f"document.body.dataset.updates >= {update}", 60)
                found.append(float(await page.run("document.body.dataset.updateMs")) / 1000)
    return found


async def _open_year(result: Result, port: int) -> None:
    charts, curves = [], []
    async with opened(f"http://127.0.0.1:{port}/", width=1300, height=1000) as page:
        await page.until("document.body?.dataset.updates >= 2", 60)
        for _ in range(OPENINGS):
            ask = "(async () => { const begun = performance.now(); await Chart.zoom('year', answer);"
            draw = " Chart.draw(byId('chart'), latest); return performance.now() - begun; })()"
            charts.append(float(await page.run(ask + draw)) / 1000)
        await page.run("document.querySelector('#vms tbody a').click()")
        for _ in range(OPENINGS):
            await page.until("document.querySelector('.history')?.dataset.opened === 'hour'", 60)
            await page.run("document.querySelector('.history [data-span=year]').click()")
            await page.until("document.querySelector('.history').dataset.opened === 'year'", 60)
            curves.append(float(await page.run("document.querySelector('.history').dataset.openMs")) / 1000)
            await page.run("document.querySelector('.history [data-span=hour]').click()")
    add(result, f"a year of {VMS} VMs opens in the page's chart, beside `dynmem advise`", 1000, charts)
    add(result, "a year of one VM opens in the page, beside `dynmem advise`", 1000, curves)


async def _advise(path: str) -> asyncio.subprocess.Process:
    history = Path(path).parents[1] / "history.sqlite"
    program = str(Path(sys.executable).with_name("dynmem"))
    return await asyncio.create_subprocess_exec(
        *("nice", "-n", "19", program, "advise", "--history", str(history), "--socket", path),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


async def _lateness(path: str) -> float:
    host = (await asyncio.to_thread(Client(path).get, "status"))["host"]
    return float(host["lateness_seconds"])


def _year(directory: Path) -> None:
    """A year by the hour and a week by five minutes of every guest that will come."""
    now = time.time()
    file = HistoryFile(directory / "history.sqlite")
    config = VmConfig(_uuid(0), "guest0", LIMITS, Growth.BALLOON, boot_ram_bytes=8 * GIB)
    times = [now - 3600.0 * hour for hour in range(365 * 24, 7 * 24, -1)]
    times += [now - 300.0 * slot for slot in range(8 * 288, 0, -1)]
    for number, at in enumerate(times):
        size = (1 + number * 7919 % 48) * GIB // 8
        span = Span(at, 60.0, 60.0, 0.0, size, size, size, size, size // 2, size // 2, size // 2)
        file.write([("minute", (_uuid(0), config.name, span, config))])
    file.clean(now, 0, KEEP, 4 * GIB)
    file.close()
    with closing(sqlite3.connect(directory / "history.sqlite")) as db, db:
        for vm in range(1, VMS):
            db.execute("INSERT INTO vms VALUES (?, ?, ?)", (vm + 1, _uuid(vm), f"guest{vm}"))
            for table in ("minutes", "hours", "limits"):
                columns = [one[1] for one in db.execute(f"PRAGMA table_info({table})")][1:]
                names = ", ".join(columns)
                db.execute(f"INSERT INTO {table} SELECT {vm + 1}, {names} FROM {table} WHERE vm = 1")  # noqa: S608


def _uuid(vm: int) -> str:
    """Of the guest with this number (bench/real/fake_guests.py)."""
    return f"00000000-0000-4000-8000-{vm:012d}"
