"""The page in a real Cockpit on loopback, in Chromium, with a real controller over 200 simulated VMs."""

import asyncio
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host_controller.api.server import Api
from host_controller.simulator.workload import Curve, Workload
from host_controller.units import MIB
from tests.support.browser import CHROMIUM, Page, opened
from tests.support.cockpit import BRIDGE, SERVER, Stage, cockpit, staged, violations
from tests.support.virtual import Host, aside, run, until

HERE = CHROMIUM is not None and BRIDGE is not None and SERVER.exists()
pytestmark = [pytest.mark.cockpit, pytest.mark.skipif(not HERE, reason="needs chromium and cockpit")]
COUNT = 200
NAMES = "[...document.querySelectorAll('#vms tbody tr')].map((row) => row.cells[0].innerText)"
HOSTILE = "<img src=x onerror=document.title='hit'>"
SHOTS = os.environ.get("DYNMEM_SCREENSHOTS")
"""A directory, to have a look."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("cockpit"), COUNT, HOSTILE) as found:
        found.look(lambda page: page.until("document.body?.dataset.updates > 1"))
        yield found
        assert found.page.troubles == []


@pytest.fixture(autouse=True)
def afresh(stage: Stage) -> Iterator[None]:
    """Each test begins with the table of all VMs, and nothing else open."""
    yield

    async def back(page: Page) -> None:
        await page.run("document.querySelectorAll('dialog[open]').forEach((one) => one.close())")
        await click(page, "#tab-vms")
        await write(page, "#filter", "")

    stage.look(back)


async def click(page: Page, selector: str) -> None:
    await page.run(f"document.querySelector({json.dumps(selector)}).click()")


async def write(page: Page, selector: str, text: str) -> None:
    await page.run(
        f"(() => {{ const one = document.querySelector({json.dumps(selector)}); "
        f"one.value = {json.dumps(text)}; "
        "one.dispatchEvent(new Event('input')); })()"
    )


async def press(page: Page, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        more = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
        codes = {"Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37}
        await page.call(
            "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key], **more
        )


async def open_vm(page: Page, name: str) -> None:
    await write(page, "#filter", name)
    await click(page, "#vms tbody button")
    await page.until(f"document.getElementById('vm-name').innerText === {json.dumps(name)}")
    await page.until(
        "!!document.querySelector('#vm-why table') && !!document.querySelector('#vm-history svg')"
    )


async def shot(page: Page, name: str) -> None:
    if SHOTS:
        await page.screenshot(Path(SHOTS) / f"cockpit-{name}.png")


def test_all_vms_are_shown_in_the_order_in_which_people_count(stage: Stage) -> None:
    async def look(page: Page) -> Any:
        await shot(page, "vms")
        return await page.run(NAMES)

    assert stage.look(look) == [HOSTILE, *(f"vm{number}" for number in range(COUNT))]


def test_a_name_is_a_text_whatever_is_in_it(stage: Stage) -> None:
    async def look(page: Page) -> Any:
        return await page.run("[document.title, document.querySelectorAll('tbody img').length]")

    assert stage.look(look) == ["Dynamic memory", 0]


def test_they_are_filtered_and_sorted_by_figures_both_ways(stage: Stage) -> None:
    async def look(page: Page) -> tuple[Any, Any, Any]:
        await write(page, "#filter", "vm19")
        few = await page.run(NAMES), await page.run("document.getElementById('count').innerText")
        await click(page, "[data-sort=name]")
        turned = await page.run(NAMES)
        head = await page.run("document.querySelector('[data-sort=name]').parentElement.ariaSort")
        await click(page, "[data-sort=name]")
        return few, turned, head

    (names, count), turned, head = stage.look(look)
    assert names == ["vm19", *(f"vm{number}" for number in range(190, 200))]
    assert count == f"11 of {COUNT + 1} VMs"
    assert turned == names[::-1]
    assert head == "descending"


def test_a_vm_is_explained_with_its_curve_and_the_address_names_it(stage: Stage) -> None:
    async def look(page: Page) -> tuple[Any, ...]:
        await open_vm(page, "vm3")
        await shot(page, "vm")
        return (
            await page.run("document.getElementById('vm-why').innerText"),
            await page.run("document.querySelector('#vm-history svg').getAttribute('aria-label')"),
            await page.run("location.hash"),
        )

    why, label, address = stage.look(look)
    assert "what the guest can work with" in why
    assert label.startswith("vm3, the last hour: has ")
    assert address.startswith("#/vm/")


def test_a_guest_is_asked_who_holds_its_memory_and_its_answer_is_waited_for(stage: Stage) -> None:
    async def look(page: Page) -> Any:
        await page.until(
            "document.getElementById('vm-why').innerText.includes('Held by: the largest of its')"
        )
        return await page.run("document.getElementById('vm-why').innerText")

    stage.look(lambda page: open_vm(page, "vm5"))
    stage.let_time_pass(1.0)
    told = stage.look(look)
    assert re.search(r"Held by: the largest of its services, \d+ s ago\s+workload\s+\d+ MiB", told), told


def test_a_pause_is_in_the_events_with_who_did_it(stage: Stage) -> None:
    async def pause(page: Page) -> None:
        await open_vm(page, "vm7")
        await click(page, "#pause")
        await page.until("document.getElementById('vm-said').innerText.includes('Done: paused vm7')")

    async def look(page: Page) -> Any:
        await page.until("document.getElementById('pause').innerText === 'Resume'")
        await click(page, "#pause")
        await page.until("document.getElementById('vm-said').innerText.includes('Done: resumed vm7')")
        await page.run("document.getElementById('vm').close()")
        await click(page, "#tab-events")
        await page.run("whose.value = 'people'; whose.dispatchEvent(new Event('change'))")
        await page.until("document.querySelectorAll('#events li').length >= 2")
        await shot(page, "events")
        return await page.run("[...document.querySelectorAll('#events li')].map((one) => one.innerText)")

    stage.look(pause)
    stage.let_time_pass(1.0)
    newest, before, *_ = stage.look(look)
    assert "vm7" in newest
    assert "resumed vm7" in newest
    assert "by root" in newest
    assert "paused vm7" in before


def test_limits_that_were_changed_are_set_by_our_command_and_no_others(stage: Stage) -> None:
    stage.answers(set="vm5: maximum 3 GiB, at once\n")

    async def look(page: Page) -> None:
        await open_vm(page, "vm5")
        await page.run("document.getElementById('vm-limits').open = true")
        await page.until("document.getElementById('maximum').value === '2048MiB'")
        await page.run("document.getElementById('maximum').value = '3G'")
        await click(page, "#limits button")
        await page.until("document.getElementById('vm-said').innerText.includes('at once')")
        await shot(page, "limits")

    stage.look(look)
    assert stage.ran()[-1] == ["set", "--maximum", "3G", "--", "vm5"]


def test_what_our_command_refuses_is_told_and_nothing_is_locked(stage: Stage) -> None:
    stage.answers()  # the real command: it finds no such VM

    async def look(page: Page) -> Any:
        await open_vm(page, "vm6")
        await page.run("document.getElementById('weight').value = '7'")
        await click(page, "#limits button")
        await page.until("document.getElementById('vm-said').innerText.includes('Nothing was changed')")
        said = await page.run("document.getElementById('vm-said').innerText")
        assert await page.run("document.querySelector('#limits button').disabled") is False
        return said

    assert "vm6" in stage.look(look)


def test_vms_that_are_not_managed_are_adopted(stage: Stage) -> None:
    able = {"name": "old one", "outcome": "would be adopted", "steps": ["statistics on"]}
    found = [
        able | {"reason": None, "way_out": None},
        {"name": "sev", "outcome": "refused", "steps": [], "reason": "it is encrypted", "way_out": "none"},
    ]

    async def look(page: Page) -> Any:
        await click(page, "#adopt")
        await page.until("document.querySelectorAll('#candidates li').length === 2")
        stage.answers(adopt="adopted: old one")
        await click(page, "#candidates button")
        await page.until("document.getElementById('adoption-said').innerText.includes('adopted: old one')")
        await shot(page, "adopt")
        return await page.run("document.getElementById('candidates').innerText")

    stage.answers(adopt=json.dumps({"vms": found}))
    assert "it is encrypted" in stage.look(look)
    assert stage.ran()[-2:] == [["adopt", "--all", "--dry-run", "--json"], ["adopt", "--", "old one"]]


def test_doctors_findings_are_shown_with_their_remedies(stage: Stage) -> None:
    stage.answers()  # the real command, with libvirt's test driver

    async def look(page: Page) -> Any:
        await click(page, "#tab-doctor")
        await click(page, "#ask-doctor")
        await page.until("document.getElementById('doctor').innerText.includes('checks are in order')")
        await shot(page, "doctor")
        return await page.run("document.getElementById('doctor').innerText")

    told = stage.look(look)
    assert "start hook" in told
    assert "dynmem hook install" in told


def test_advice_is_shown_and_set(stage: Stage) -> None:
    limits = {"startup_bytes": 1 << 30, "minimum_bytes": 256 << 20, "buffer_percent": 20, "weight": 100}
    vm = {
        "name": "vm9",
        "now": limits | {"maximum_bytes": 8 << 30}, "advised": limits | {"maximum_bytes": 2 << 30},
        "changed": True, "refused": None, "taken_back": False, "confidence": "good", "days": 30.0,
        "reasons": ["it never wanted more than 1.5 GiB"], "findings": [],
    }  # fmt: skip
    stage.answers(advise=json.dumps({"seconds": 86400, "freed_bytes": 6 << 30, "vms": [vm]}), set="vm9: set")

    async def look(page: Page) -> Any:
        await click(page, "#tab-advice")
        await click(page, "#ask-advice")
        await page.until("!!document.querySelector('#advice tbody button')")
        told = await page.run("document.getElementById('advice').innerText")
        await click(page, "#advice tbody button")
        await page.until("document.getElementById('said').innerText.includes('vm9: set')")
        await shot(page, "advice")
        return told

    told = stage.look(look)
    assert "it never wanted more than 1.5 GiB" in told
    assert "6 GiB less would be promised" in told
    assert stage.ran()[-1][:5] == ["set", "--minimum", "256MiB", "--maximum", "2048MiB"]


def test_it_is_used_by_keyboard_alone(stage: Stage) -> None:
    async def look(page: Page) -> None:
        await page.run("document.getElementById('tab-vms').focus()")
        await press(page, "ArrowRight")
        await page.until("document.activeElement.id === 'tab-events'")
        assert await page.run("document.getElementById('panel-events').hidden") is False
        await press(page, "ArrowLeft")
        await page.run("document.querySelector('#vms tbody tr:nth-child(3) button').focus()")
        await press(page, "Enter")
        await page.until("document.getElementById('vm').open")
        assert await page.run("document.getElementById('vm').contains(document.activeElement)")
        await press(page, "Escape")
        await page.until("!document.getElementById('vm').open")
        assert await page.run("document.activeElement.innerText") == "vm1"

    stage.look(look)


@pytest.mark.parametrize("style", ["light", "dark"])
def test_axe_finds_nothing_serious(stage: Stage, style: str) -> None:
    async def look(page: Page) -> list[Any]:
        await page.run(f"localStorage.setItem('shell:style', '{style}')")
        await page.run("window.dispatchEvent(new Event('cockpit-style'))")
        await write(page, "#filter", "vm19")
        found = await violations(page)
        await open_vm(page, "vm190")
        await page.run("document.getElementById('vm-limits').open = true")
        await shot(page, style)
        found += await violations(page)
        return found

    assert stage.look(look) == []


def test_it_can_be_read_at_400_pixels(stage: Stage) -> None:
    async def look(page: Page) -> list[Any]:
        await page.resize(400, 800)
        try:
            await write(page, "#filter", "vm1")
            wide = [await page.run("document.documentElement.scrollWidth")]
            await open_vm(page, "vm11")
            wide.append(await page.run("document.getElementById('vm').scrollWidth"))
            await shot(page, "narrow")
            return wide
        finally:
            await page.resize(1200, 900)

    assert max(stage.look(look)) <= 400


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can open a session of somebody else")
def test_whoever_may_only_look_sees_all_and_changes_nothing() -> None:
    async def look(page: Page) -> None:
        await page.until("document.body?.dataset.updates > 1 && document.body.dataset.events > 0")
        assert "to look at only" in await page.run("document.getElementById('connection').innerText")
        assert await page.run(NAMES) == ["db", "web"]
        await page.run("document.querySelectorAll('#vms tbody button')[1].click()")
        told = await page.until("document.querySelector('#vm-why .news')?.innerText")
        assert told.startswith("web: workload grew by ")
        assert f"– {told}" in await page.run("document.querySelectorAll('#vms tbody tr')[1].innerText")
        assert await page.run("[...document.querySelectorAll('[data-changes]')].every((one) => one.disabled)")

    async def browse(directory: Path) -> None:
        with cockpit(directory, directory / "control.sock", as_nobody=True) as url:
            async with opened(url) as page:
                await look(page)

    async def story(directory: Path) -> None:
        host = Host()
        host.vm("web", workload=Workload(Curve([(0.0, 200 * MIB), (150.0, 200 * MIB), (270.0, 1400 * MIB)])))
        host.vm("db")
        async with host.controller() as controller:
            vms = controller.engine.vms
            await until(
                lambda: any(controller.attribution.news(one, controller.now()) for one in vms),
                "a growth",
                600.0,
            )
            api = Api(controller, lambda: None)
            await api.start(directory / "control.sock")
            await api.start_view(directory / "view.sock")
            (directory / "view.sock").chmod(0o666)
            try:
                await aside(lambda: asyncio.run(browse(directory)))
            finally:
                await api.stop()

    with tempfile.TemporaryDirectory(prefix="dynmem-cockpit-") as name:
        Path(name).chmod(0o777)
        run(story(Path(name)))
