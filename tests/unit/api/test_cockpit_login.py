"""The page where operators find it: behind Cockpit's login, with its privileges, beside cockpit-machines."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from host_controller.api.server import Api
from tests.support.browser import CHROMIUM, Page, opened
from tests.support.cockpit import BRIDGE, SERVER
from tests.support.cockpit_login import PASSWORD, USER, cockpit_with_login, left_behind
from tests.support.virtual import Host, aside, run
from tests.support.waiting import until

NEEDED = {"chromium": CHROMIUM, "cockpit": BRIDGE and SERVER.exists(), "sudo": shutil.which("sudo")}
NEEDED["cockpit-machines"] = Path("/usr/share/cockpit/machines").exists()
MISSING = [name for name, there in NEEDED.items() if not there]
pytestmark = [
    pytest.mark.cockpit,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a login checked by PAM"),
]
OUR_FRAME = "document.querySelector('iframe[src*=\"/dynmem/\"]')"
THEIR_FRAME = "document.querySelector('iframe[src*=\"/machines/\"]')"
OURS, THEIRS = f"{OUR_FRAME}?.contentDocument", f"{THEIR_FRAME}?.contentDocument"
LONG = 90.0
"""Cockpit's shell and our page in it, on a machine that is busy."""


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = left_behind()
    yield
    until(lambda: left_behind() == before, left_behind)


async def log_in(page: Page, password: str) -> None:
    await page.until("!!document.getElementById('login-button')?.offsetParent", LONG)
    for field, text in (("login-user-input", USER), ("login-password-input", password)):
        await page.run(f"document.getElementById('{field}').value = {json.dumps(text)}")
    await page.run("document.getElementById('login-button').click()")


async def see_ours(page: Page) -> None:
    await page.until(
        f"Number({OURS}?.body?.dataset.updates) > 1 && Number({OURS}.body.dataset.events) > 0", LONG
    )
    rows = f"[...{OURS}.querySelectorAll('#vms tbody tr')].map((row) => row.cells[0].innerText)"
    assert await page.run(rows) == ["db", "web"]


def visited(look: Callable[[Page], Awaitable[None]]) -> list[tuple[str, dict[str, object]]]:
    """Somebody comes to Cockpit at our page's address; the events of the controller are returned."""

    async def browse(directory: Path) -> None:
        with cockpit_with_login(directory, directory / "control.sock") as address:
            async with opened(f"{address}/dynmem") as page:
                await look(page)

    async def story(directory: Path) -> list[tuple[str, dict[str, object]]]:
        host = Host()
        host.vm("web")
        host.vm("db")
        async with host.controller() as controller:
            await asyncio.sleep(5)
            api = Api(controller, lambda: None)
            await api.start(directory / "control.sock")
            await api.start_view(directory / "view.sock")
            (directory / "view.sock").chmod(0o666)  # whoever logs in is in the group that may look
            try:
                await aside(lambda: asyncio.run(browse(directory)))
            finally:
                await api.stop()
            return [(one.text, dict(one.detail)) for one in controller.journal.entries()]

    with tempfile.TemporaryDirectory(prefix="dynmem-cockpit-") as name:
        Path(name).chmod(0o755)
        return run(story(Path(name)))


def test_a_login_without_administrative_access_sees_all_in_the_menu_and_changes_nothing() -> None:
    async def look(page: Page) -> None:
        await log_in(page, "wrong horse")
        await page.until("document.body.innerText.includes('Wrong user name or password')")
        await log_in(page, PASSWORD)
        await see_ours(page)
        assert "to look at only" in await page.run(f"{OURS}.getElementById('connection').innerText")
        assert await page.run(f"[...{OURS}.querySelectorAll('[data-changes]')].every((one) => one.disabled)")
        await page.until("document.querySelectorAll('#host-apps a').length > 1")
        menu = await page.run(
            "[...document.querySelectorAll('#host-apps a')].map((one) => one.innerText.trim())"
        )
        assert "Dynamic memory" in menu

    visited(look)


def test_with_administrative_access_it_changes_beside_cockpit_machines_and_the_event_says_who() -> None:
    async def look(page: Page) -> None:
        await page.until("!!document.getElementById('login-button')?.offsetParent", LONG)
        await page.run(
            f"localStorage.setItem('superuser:{USER}', 'any')"
        )  # as it is once one has asked for it
        await log_in(page, PASSWORD)
        await see_ours(page)
        await page.run(f"{OURS}.querySelector('#vms tbody button').click()")
        await page.until(f"{OURS}.getElementById('vm-name').innerText === 'db'")
        await page.run(f"{OURS}.getElementById('pause').click()")
        await page.until(f"{OURS}.getElementById('vm-said').innerText.includes('Done: paused db')")
        await beside(page)

    async def beside(page: Page) -> None:
        """Theirs is opened from the same menu, and ours goes on below it."""
        await page.run("document.querySelector('#host-apps a[href*=\"/machines\"]').click()")
        await page.until(f"{THEIRS}?.body?.innerText.includes('irtual')", LONG)
        seen = await page.run(f"Number({OURS}.body.dataset.updates)")
        await page.until(f"Number({OURS}.body.dataset.updates) > {seen}")
        await page.run("document.querySelector('#host-apps a[href*=\"/dynmem\"]').click()")
        await page.until(f"{OUR_FRAME}.offsetParent !== null && {THEIR_FRAME}.offsetParent === null")

    paused = [detail for text, detail in visited(look) if "paused" in text]
    assert [one["by_user"] for one in paused] == ["root"]
    assert [one.get("by_login") for one in paused] == [USER]
