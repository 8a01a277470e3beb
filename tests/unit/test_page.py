"""The page in headless Chromium, with a real controller over simulated VMs behind it."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from host_controller.api.page import library
from host_controller.api.server import Api
from host_controller.units import GIB
from tests.support.browser import CHROMIUM, Page, opened
from tests.support.serving import ask
from tests.support.virtual import Host, aside, run

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
ROWS = "[...document.querySelectorAll('tbody tr')]"
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
            api = Api(controller, lambda: None)
            port = await api.start_tcp("127.0.0.1", 0)
            try:
                await aside(lambda: _in_thread(_browse(port, look, **window)))
            finally:
                await api.stop()

    run(story())


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
        # The first click sorts, a click on a row tells why.
        await page.run("document.querySelector('tbody tr').click()")
        await page.until("document.getElementById('details').open")
        assert "what the guest can work with" in await page.run(
            "document.getElementById('details').innerText"
        )
        await shot(page, "details")
        await page.run("document.querySelector('#details button').click()")
        await page.until("document.body.dataset.updates > 3")
        await shot(page, "few")

    shown(5, look)


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
