"""The page in headless Chromium, with a real controller over simulated VMs behind it."""

import asyncio
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from host_controller.api.page import library
from host_controller.api.schema.history import ChartView
from host_controller.api.server import Api
from host_controller.api.stored_history import CHARTS, read_chart
from host_controller.control.controller import Controller
from host_controller.core.model import Limits
from host_controller.fleet.core.model import Resource
from host_controller.fleet.status import status_of
from host_controller.records import fleet_figures
from host_controller.records.history_file import HistoryFile
from host_controller.records.tier_file import DAY, Keep
from host_controller.records.tiers import Span
from host_controller.simulator.workload import Curve, Workload
from host_controller.units import GIB, MIB
from tests.support.browser import CHROMIUM, Page, opened
from tests.support.cockpit import violations
from tests.support.serving import ask
from tests.support.virtual import Host, aside, run, until
from tests.unit.fleet.cells import cell, host, vm

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
ROWS = "[...document.querySelectorAll('#vms tbody tr')]"
SHOTS = os.environ.get("DYNMEM_SCREENSHOTS")
"""A directory, to have a look."""


def shown(count: int, look: Callable[[Page], Awaitable[Any]], **window: int) -> None:
    """Look at the page of a host with so many VMs. The browser has a loop of its own: its time is real."""

    async def story() -> None:
        host = Host(max(4, count) * GIB)
        for number in range(count):
            host.vm(f"vm{number:03}")
        host.vm("<img src=x onerror=document.title='hit'>")
        async with host.controller() as controller:
            await asyncio.sleep(60)
            await serve(controller, look, **window)

    run(story())


async def serve(controller: Controller, look: Callable[[Page], Awaitable[Any]], **window: int) -> None:
    api = Api(controller, lambda: None)
    port = await api.start_tcp("127.0.0.1", 0)
    try:
        await aside(lambda: _in_thread(_browse(port, look, **window)))
    finally:
        await api.stop()


def _in_thread(main: Any) -> None:
    assert threading.current_thread() is not threading.main_thread()
    asyncio.run(main)


async def shot(page: Page, name: str) -> None:
    if SHOTS:
        await page.screenshot(Path(SHOTS) / f"{name}.png")


@needs_browser
def test_the_chart_begins_with_the_hour_that_the_controller_holds_and_names_are_counted() -> None:
    async def look(page: Page) -> None:
        assert await page.run("Chart.times.length") > 60
        first, last = await page.run("[Chart.times[0], Chart.times[Chart.times.length - 1]]")
        assert 3400 < last - first < 3700
        remembered = "[...Chart.past.values()].filter((one) => one.slice(0, 60).some((gib) => gib > 0))"
        assert await page.run(f"{remembered}.length") == 4
        names = await page.run(f"{ROWS}.map(row => row.cells[0].textContent)")
        assert names[-3:] == ["vm2", "vm10", "x?y\u0301\u0301\u0301\u0301"]

    async def story() -> None:
        host = Host(8 * GIB)
        for name in ("vm10", "vm2", "x\u202ey" + "\u0301" * 30, "1"):
            host.vm(name)
        async with host.controller() as controller:
            await asyncio.sleep(200)
            api = Api(controller, lambda: None)
            port = await api.start_tcp("127.0.0.1", 0)
            try:
                await aside(lambda: _in_thread(_browse(port, look)))
            finally:
                await api.stop()

    run(story())


async def _browse(port: int, look: Callable[[Page], Awaitable[Any]], **window: int) -> None:
    async with opened(f"http://127.0.0.1:{port}/", **window) as page:
        await page.until("document.body?.dataset.updates > 0")
        await look(page)
        assert page.troubles == []


@needs_browser
def test_chart_and_curve_zoom_to_a_year_with_what_happened_on_them(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    now = time.time()

    async def look(page: Page) -> None:
        await page.run("document.querySelector('#spans [data-span=year]').click()")
        await page.until(
            "document.querySelectorAll('#chart canvas').length === 1 && document.body.dataset.updates > 2"
        )
        assert (
            await page.run("document.querySelector('[data-span=year]').getAttribute('aria-pressed')")
            == "true"
        )
        # The name leads to why: an address that can be sent to somebody.
        await page.run(f"{ROWS}.find(row => row.innerText.includes('web')).querySelector('a').click()")
        await page.until("location.hash.startsWith('#vm=') && document.getElementById('details').open")
        history = "document.querySelector('.history')"
        await page.until(f"{history}?.dataset.opened === 'hour'")
        await page.run(f"{history}.querySelector('[data-span=year]').click()")
        await page.until(f"{history}.dataset.opened === 'year'")
        await shot(page, "year")
        curve = await page.run(f"{history}.querySelector('path.has').getAttribute('d').length")
        assert curve > 2000
        marks = await page.run(f"[...{history}.querySelectorAll('title')].map((one) => one.textContent)")
        assert any("by somebody: alice paused web" in one for one in marks)
        assert any("held back: others need it" in one for one in marks)
        assert any("reset: its guest was reset" in one for one in marks)
        assert "alice paused web" in await page.run(f"{history}.querySelector('.events').innerText")
        await page.run("document.querySelector('#details button').click()")
        await page.until("location.hash === ''")
        # A figure is a number, not a text: 10 GiB comes before 9 GiB, and again turns it round.
        await page.run("document.querySelector('[data-sort=maximum]').click()")
        assert (await page.run(f"{ROWS}.map(row => row.cells[0].innerText)"))[:2] == ["large", "middle"]
        await page.run("document.querySelector('[data-sort=maximum]').click()")
        assert (await page.run(f"{ROWS}.map(row => row.cells[0].innerText)"))[-2:] == ["middle", "large"]
        assert [one for one in await violations(page) if one[0] != "color-contrast"] == []

    async def story() -> None:
        host = Host(32 * GIB)
        web = host.vm("web")
        host.vm("middle", limits=Limits(GIB, 256 * MIB, 9 * GIB))
        host.vm("large", limits=Limits(GIB, 256 * MIB, 10 * GIB))
        write_year(path, web.uuid, now)
        async with host.controller() as controller:
            await asyncio.sleep(20)
            api = Api(controller, lambda: None, history=path)
            port = await api.start_tcp("127.0.0.1", 0)
            try:
                await aside(lambda: _in_thread(_browse(port, look)))
            finally:
                await api.stop()

    run(story())


def write_year(path: Path, uuid: str, now: float) -> None:
    """A VM that was seen once an hour, and to which something happened."""
    file = HistoryFile(path)
    for hour in range(365 * 24):
        size = (1 + hour % 30) * GIB // 8
        span = Span(now - 3600 * hour, 60.0, 60.0, 0.0, size, size, size, size, size // 2, size, size)
        file.write([("minute", (uuid, "web", span, None))])
    happened = [
        ("notice", "operator", "alice paused web"),
        ("decision", "grow", "it needs more; held back: others need it"),
        ("notice", "reset", "its guest was reset"),
    ]
    file.write(
        [
            ("entry", (now - 86400 * (day + 1), kind, topic, uuid, "web", text, None))
            for day, (kind, topic, text) in enumerate(happened)
        ]
    )
    file.clean(now, 0, Keep(minutes=400 * DAY), GIB)
    file.close()


def test_a_chart_of_a_long_time_is_asked_for_by_name_and_refused_where_nothing_is_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history.sqlite"
    write_year(path, "u", 1e9)

    async def story() -> None:
        async with Host().controller() as controller:
            for history, since, status in (
                (path, "1h", 200),
                (path, "365d", 200),
                (path, "2d", 400),
                (None, "7d", 404),
                (tmp_path / "none", "7d", 404),
            ):
                api = Api(controller, lambda: None, history=history)
                port = await api.start_tcp("127.0.0.1", 0)
                try:
                    assert (await aside(ask, port, f"/v1/chart?since={since}"))[0] == status
                finally:
                    await api.stop()

    run(story())
    told = read_chart(path, CHARTS["365d"], 1e9)
    assert told is not None
    chart = msgspec.json.decode(told, type=ChartView)
    assert len(chart.at) == len(chart.vms[0].assigned_bytes) == 73
    assert chart.at[0] < 1e9 - 360 * DAY < chart.at[1]
    assert all(one is not None and GIB // 8 <= one <= 4 * GIB for one in chart.vms[0].assigned_bytes)


@needs_browser
def test_it_shows_the_host_a_chart_and_a_row_per_vm_and_details_on_click() -> None:
    async def look(page: Page) -> None:
        assert "Capacity" in await page.run("document.getElementById('figures').innerText")
        assert await page.run("document.querySelector('#chart canvas').width > 500")
        row = await page.run(f"{ROWS}.find(row => row.innerText.includes('vm000')).innerText")
        assert "OK" in row
        assert "256 MiB – 2 GiB" in row
        assert "hold: it has what it should have" in row
        # A name is a text, whatever is in it.
        assert await page.run("document.title") == "dynmem"
        assert await page.run("document.querySelectorAll('tbody img').length") == 0
        # A click on a row tells why.
        await page.run("document.querySelector('tbody tr').click()")
        await page.until("document.getElementById('details').open")
        assert "what the guest can work with" in await page.run(
            "document.getElementById('details').innerText"
        )
        assert "Held by: the largest of its services, " in await page.run(
            "document.getElementById('details').innerText"
        )
        await shot(page, "details")
        await page.run("document.querySelector('#details button').click()")
        await page.until("document.body.dataset.updates > 3")
        await shot(page, "few")

    shown(5, look)


@needs_browser
def test_a_vm_that_has_grown_says_whose_memory_it_was_in_its_row_and_in_its_details() -> None:
    async def look(page: Page) -> None:
        await page.until(f"{ROWS}.length === 1")
        assert "– web: workload grew by " in await page.run(f"{ROWS}[0].innerText")
        await page.run(f"{ROWS}[0].click()")
        told = await page.until("document.querySelector('#details .news')?.innerText")
        assert told.startswith("web: workload grew by ")
        tables = "[...document.querySelectorAll('#details table')]"
        rows = await page.run(
            f"{tables}.find((one) => one.caption.innerText.startsWith('Held by')).innerText"
        )
        assert re.search(r"workload\s1\.\d+ GiB\sgrew by (1\.\d+ GiB|9\d\d MiB) in \d minutes", rows), rows

    async def story() -> None:
        host = Host()
        host.vm("web", workload=Workload(Curve([(0.0, 200 * MIB), (150.0, 200 * MIB), (270.0, 1400 * MIB)])))
        async with host.controller() as controller:

            def told() -> bool:
                news = (controller.attribution.news(one, controller.now()) for one in controller.engine.vms)
                return any("grew by 1." in (one or "") for one in news)

            await until(told, "a growth of a GiB is told", 600.0)
            await serve(controller, look)

    run(story())


@needs_browser
def test_where_the_fleets_arbiter_runs_all_its_hosts_are_shown_and_elsewhere_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_figures, "STATUS", tmp_path / "status.json")

    async def none(page: Page) -> None:
        await page.until("document.body.dataset.updates > 1")
        assert await page.run("document.getElementById('fleet').hidden")

    shown(1, none)
    figures = {"n1": host(vm("web", 8 * GIB)), "n10": host(), "n2": None}
    stopped = (Resource("<img src=x onerror=document.title='hit'>", None, 1024),)
    told = status_of(cell(figures, stopped, {"web": 9216}), {"n2": "refused"}, ["fencing is off"], 0.0)
    fleet_figures.keep(msgspec.json.encode(told), tmp_path / "status.json")

    async def all_of_it(page: Page) -> None:
        await page.until("!document.getElementById('fleet').hidden")
        rows = "[...document.querySelectorAll('#fleet-hosts tbody tr')]"
        cells = await page.run(f"{rows}.map(row => [...row.cells].map(cell => cell.textContent))")
        assert [one[0] for one in cells] == ["n1", "n2", "n10"]
        assert cells[0] == ["n1", "64 GiB", "8 GiB", "13 %", "9 GiB", "56 GiB", "–", "1", "ok"]
        assert cells[1][-1] == "silent: refused"
        assert "fencing is off" in await page.run("document.getElementById('fleet-notes').innerText")
        await page.run("document.querySelector('#fleet summary').click()")
        assert "web" in await page.run("document.getElementById('fleet-vms').innerText")
        assert await page.run("document.title") == "dynmem"
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")
        assert [one for one in await violations(page) if one[0] != "color-contrast"] == []
        await shot(page, "fleet")

    shown(1, all_of_it, width=400, height=900)


@needs_browser
def test_200_vms_are_updated_filtered_and_counted() -> None:
    async def look(page: Page) -> None:
        await page.until("document.body.dataset.updates >= 2")
        await page.run("f = document.getElementById('filter'); f.value = 'vm19'")
        await page.run("f.dispatchEvent(new Event('input'))")
        assert await page.run("document.querySelectorAll('tbody tr').length") == 10
        assert await page.run("document.getElementById('count').innerText") == "10 of 201 VMs"
        await page.run("f.value = ''; f.dispatchEvent(new Event('input'))")
        await shot(page, "many")

    shown(200, look)


@needs_browser
def test_it_can_be_read_at_400_pixels() -> None:
    async def look(page: Page) -> None:
        await shot(page, "narrow")
        assert await page.run("document.documentElement.scrollWidth") <= 400
        assert await page.run("document.querySelector('tbody td.name').getBoundingClientRect().right") <= 400
        small = (
            "[...document.querySelectorAll('tbody td')].map(c => parseFloat(getComputedStyle(c).fontSize))"
        )
        assert min(await page.run(small)) >= 12

    shown(20, look, width=400, height=800)


def test_everything_is_served_by_us_with_a_policy_that_holds_it_to_that() -> None:
    assert library() is not None

    async def story() -> None:
        async with Host().controller() as controller:
            api = Api(controller, lambda: None)
            port = await api.start_tcp("127.0.0.1", 0)
            try:
                for path in (
                    "/",
                    "/assets/page.js",
                    "/assets/page.css",
                    "/assets/fleet.js",
                    "/assets/uPlot.js",
                    "/assets/uPlot.css",
                ):
                    status, body = await aside(ask, port, path)
                    assert status == 200
                    assert "//cdn" not in body
                assert (await aside(ask, port, "/assets/../api.py"))[0] == 404
            finally:
                await api.stop()

    run(story())
