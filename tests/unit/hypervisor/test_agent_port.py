"""How the agent's port is opened: by force only where somebody keeps it, and never while a stream may end."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import libvirt

from host_controller.core.model import RunState
from host_controller.errors import CallFailed
from host_controller.hypervisor.agent_port import FIRST_DEAF_SECONDS, AgentPort
from host_controller.hypervisor.channel import FIRST_RETRY_SECONDS
from tests.support.virtual import run

FORCE = libvirt.VIR_DOMAIN_CHANNEL_FORCE


class Libvirt:
    """One port of one VM, as libvirtd has it, and a lane to it. What is asked of it is written down."""

    def __init__(self, *, held: bool = False) -> None:
        self.held = held
        self.asked: list[tuple[str, float]] = []
        self.handle = SimpleNamespace(newStream=lambda flags: Stream(self))

    def note(self, what: str) -> None:
        self.asked.append((what, asyncio.get_running_loop().time()))

    def domain(self, _uuid: str) -> "Libvirt":
        return self

    def openChannel(self, _name: str, _stream: object, flags: int) -> None:  # noqa: N802 # libvirt's
        self.note("force" if flags & FORCE else "open")
        if self.held and not flags & FORCE:
            raise CallFailed("Active channel stream exists for this domain")
        self.held = True

    def start(self, work: Callable[[], Any]) -> "asyncio.Future[Any]":
        future = asyncio.get_running_loop().create_future()
        future.set_result(work())
        return future

    async def call(self, work: Callable[["Libvirt"], Any], _limit_seconds: float) -> Any:
        return work(self)


class Stream:
    def __init__(self, at: Libvirt) -> None:
        self._at = at

    def eventAddCallback(self, *_: object) -> None: ...  # noqa: N802

    def eventRemoveCallback(self) -> None: ...  # noqa: N802

    def abort(self) -> None:
        self._at.note("abort")
        self._at.held = False

    def __del__(self) -> None: ...


def asked_of(at: Libvirt, seconds: float) -> list[tuple[str, float]]:
    """What a port that is wanted asks of it in so long a time."""

    async def story() -> None:
        wake = asyncio.Event()
        vm: Any = SimpleNamespace(uuid="uuid", name="web", state=RunState.RUNNING)
        mailbox: Any = SimpleNamespace(post=lambda *told: None)
        port = AgentPort(vm, mailbox, lambda event: None, wake.set)

        async def work() -> None:
            while True:
                if port.due:
                    await port.open(at)  # type: ignore[arg-type]
                wake.clear()
                await wake.wait()

        port.renew(there=True)
        working = asyncio.create_task(work())
        await asyncio.sleep(seconds)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        port.close()

    run(story())
    return at.asked


def test_a_port_that_nobody_holds_is_opened_without_force() -> None:
    assert asked_of(Libvirt(), 10.0)[:1] == [("open", 0.0)]


def test_whoever_holds_it_has_a_moment_to_let_go_and_is_pushed_out_then() -> None:
    (first, began), (second, then), *_ = asked_of(Libvirt(held=True), 10.0)
    assert (first, second) == ("open", "force")
    assert then - began >= FIRST_RETRY_SECONDS


def test_one_from_which_nothing_comes_is_let_go_before_it_is_opened_anew_and_not_by_force() -> None:
    asked = asked_of(Libvirt(), FIRST_DEAF_SECONDS + 10.0)
    assert [what for what, _ in asked] == ["open", "abort", "open", "abort"]
    assert asked[1][1] == FIRST_DEAF_SECONDS
    assert asked[2][1] - asked[1][1] >= FIRST_RETRY_SECONDS
