"""Headless Chromium for tests, driven over its DevTools protocol with aiohttp: no driver to be installed."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.troubles: list[str] = []
        """What the page has complained about: exceptions, refused or failed requests."""

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = json.loads((await self._socket.receive(timeout=60)).data)
            if answer.get("method") in ("Runtime.exceptionThrown", "Network.loadingFailed"):
                self.troubles.append(json.dumps(answer["params"])[:500])
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.troubles.append(answer["params"]["entry"]["text"])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    async def run(self, script: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, script: str, limit: float = 60.0) -> Any:
        end = time.monotonic() + limit
        while not (value := await self.run(script)):
            if time.monotonic() > end:
                body = await self.run("document.body.innerText.slice(0, 500)")
                raise AssertionError(
                    f"not within {limit:g} s: {script}; the page says {body!r}, {self.troubles}"
                )
            await asyncio.sleep(0.05)
        return value

    async def resize(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def processor_seconds(self) -> float:
        """What the page's thread has worked until now: scripts, styles, layout. Others do not count."""
        found = (await self.call("Performance.getMetrics"))["metrics"]
        return next(float(one["value"]) for one in found if one["name"] == "TaskDuration")

    async def screenshot(self, file: Path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def opened(url: str, width: int = 1200, height: int = 900) -> AsyncIterator[Page]:
    """A tab at this address, without any network but this machine's."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as profile:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"),
            *(
                "--disable-background-networking",
                "--no-first-run",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            ),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
                    target = await answer.json()
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=1 << 26) as socket:
                    page = Page(socket)
                    for domain in ("Runtime", "Log", "Network", "Page"):
                        await page.call(f"{domain}.enable")
                    await page.call("Performance.enable", timeDomain="threadTicks")
                    await page.resize(width, height)
                    await page.call("Page.navigate", url=url)
                    yield page
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)
            await process.wait()


async def _port(file: Path) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if "\n" in (text := await asyncio.to_thread(_text, file)):
            return int(text.split()[0])
        await asyncio.sleep(0.05)
    raise AssertionError("Chromium did not start within 60 s")


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
