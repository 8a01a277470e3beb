"""A real Cockpit on loopback with our page in it, over simulated VMs whose time stands still."""

import asyncio
import json
import os
import shlex
import shutil
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any, TypeVar

from host_controller.api.server import Api
from host_controller.units import GIB
from tests.support.browser import Page, opened
from tests.support.ports import free_port
from tests.support.virtual import Host, VirtualLoop, aside, run

T = TypeVar("T")
SERVER = Path("/usr/lib/cockpit/cockpit-ws")
BRIDGE = shutil.which("cockpit-bridge")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
SETTLED_SECONDS = 20
PAGE = Path(__file__).parents[2] / "host_controller/api/page"
RECORDER = """
import json, os, sys
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(sys.argv[2:]) + "\\n")
answers = json.load(open(sys.argv[1] + ".answers"))
word = sys.argv[2]
if word in answers:
    print(answers[word])
else:
    run = "from host_controller.cli import main; main()"
    os.execv(sys.executable, [sys.executable, "-c", run, word, "--connect", "test:///default", *sys.argv[3:]])
"""


class Stage:
    """The page, open in Chromium, and all that is behind it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = ""
        self.page: Page
        self.commands = directory / "commands"
        """What the page had our command do, a JSON list a line."""
        self.host: Host
        self._loop: asyncio.AbstractEventLoop
        self.controllers_loop: VirtualLoop

    def look(self, what: Callable[[Page], Awaitable[T]]) -> T:
        """Do something with the page, from the test's thread."""
        return asyncio.run_coroutine_threadsafe(_coroutine(what(self.page)), self._loop).result(90)

    def let_time_pass(self, seconds: float) -> None:
        """For the controller and its guests; it stands still otherwise."""

        async def wait() -> None:
            self.controllers_loop.frozen = False
            await asyncio.sleep(seconds)
            self.controllers_loop.frozen = True

        asyncio.run_coroutine_threadsafe(wait(), self.controllers_loop).result(60)

    def ran(self) -> list[list[str]]:
        return [json.loads(line) for line in self.commands.read_text().splitlines()]

    def answers(self, **told: str) -> None:
        """What our command prints instead of being run, by its first word."""
        Path(f"{self.commands}.answers").write_text(json.dumps(told))

    async def browse(self, begun: threading.Event, ended: threading.Event) -> None:
        """In a thread and a loop of its own: here time is real."""
        self._loop = asyncio.get_running_loop()
        async with opened(self.url) as self.page:
            begun.set()
            await asyncio.to_thread(ended.wait)


async def _coroutine(what: Awaitable[T]) -> T:
    return await what


@contextmanager
def staged(directory: Path, count: int, *names: str) -> Iterator[Stage]:
    """A host of so many VMs and some with names, Cockpit, and Chromium at our page."""
    stage = Stage(directory)
    stage.commands.touch()
    stage.answers()
    begun, ended = threading.Event(), threading.Event()
    troubles: list[BaseException] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        stage.controllers_loop = loop
        stage.host = host = Host(max(4, count) * GIB)
        for name in (*(f"vm{number}" for number in range(count)), *names):
            host.vm(name)
        async with host.controller() as controller:
            await asyncio.sleep(SETTLED_SECONDS)
            api = Api(controller, lambda: None)
            await api.start(directory / "control.sock")
            try:
                with cockpit(directory, directory / "control.sock") as stage.url:
                    await aside(lambda: asyncio.run(stage.browse(begun, ended)))
            finally:
                await api.stop()

    def play() -> None:
        try:
            run(story())
        except BaseException as error:  # noqa: BLE001 # the test's thread raises it
            troubles.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=play)
    thread.start()
    begun.wait(120)
    try:
        if not troubles:
            yield stage
    finally:
        ended.set()
        thread.join(60)
    if troubles:
        raise troubles[0]


def install_page(data: Path, directory: Path, control: Path) -> None:
    """Our page below a user's XDG_DATA_HOME, for a controller and a command of ours in the directory."""
    installed = data / "cockpit/dynmem"
    installed.mkdir(parents=True)
    for file in (*(PAGE / "cockpit").iterdir(), *(PAGE / "shared").iterdir()):
        shutil.copy(file, installed)
    recorder = directory / "recorder.py"
    recorder.write_text(RECORDER)
    manifest = json.loads((installed / "manifest.json").read_text())
    manifest["config"] = {
        "socket": str(control),
        "view_socket": str(directory / "view.sock"),
        "command": shlex.join([sys.executable, str(recorder), str(directory / "commands")]),
    }
    (installed / "manifest.json").write_text(json.dumps(manifest))


@contextmanager
def cockpit(directory: Path, control: Path, *, as_nobody: bool = False) -> Iterator[str]:
    """Cockpit's server with a session that is open, over a controller; yields our page's address.

    as_nobody: the session is one of a user without rights; only root can do that.
    """
    install_page(directory / "data", directory, control)
    port = free_port()
    process = Popen(
        [
            *(NOBODY if as_nobody else ()),
            str(SERVER),
            "--no-tls",
            "--address",
            "127.0.0.1",
            "--port",
            str(port),
            "--local-session",
            str(BRIDGE),
        ],
        env=os.environ
        | {
            "XDG_DATA_HOME": str(directory / "data"),
            "XDG_RUNTIME_DIR": str(directory),
            "PYTHONPATH": str(PAGE.parents[2]),
        },
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        until_heard(process, port)
        yield f"http://127.0.0.1:{port}/cockpit/@localhost/dynmem/index.html"
    finally:
        process.terminate()
        process.wait(60)


def until_heard(process: "Popen[bytes]", port: int) -> None:
    for _ in range(600):
        assert process.poll() is None, "cockpit-ws has ended"
        with closing(socket.socket()) as one:
            one.settimeout(0.1)
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
            threading.Event().wait(0.05)
    raise AssertionError("cockpit-ws does not listen after 30 s")


def axe() -> str:
    """axe-core's script."""
    import axe_core_python

    return (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()


async def violations(page: Page, least: tuple[str, ...] = ("serious", "critical")) -> list[Any]:
    """What axe-core finds of these weights: rule, weight, and up to three places."""
    if not await page.run("'axe' in window"):
        await page.run(axe() + "; true")
    found = await page.run(
        "axe.run(document, {resultTypes: ['violations']}).then((told) => told.violations.map((one) => "
        "[one.id, one.impact, "
        "one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200) + node.failureSummary)]))"
    )
    return [one for one in found if one[1] in least]
