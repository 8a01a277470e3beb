"""Questions about the past: whoever asks for much waits for itself, and holds up nobody else."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from host_controller.api import door, past, reading, stored_history
from host_controller.api.server import Api
from host_controller.beside import Beside
from host_controller.core.interface import HostSampled, HypervisorEvent
from host_controller.hypervisor.adapter import LibvirtHypervisor
from host_controller.records.history_file import HistoryFile
from tests.support.serving import raw, request
from tests.support.virtual import Host, aside, run, until
from tests.unit.api.test_doors import Address, connect
from tests.unit.records.test_tiers import NOW, span

LIMIT_SECONDS = 60.0


def question(vm: str) -> bytes:
    return f"GET /v1/vms/{vm}/history?since=7d HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def ask(stack: ExitStack, where: Address, vm: str, times: int = 1) -> None:
    """So many connections there, each with that question; nobody reads the answers."""
    for _ in range(times):
        stack.enter_context(connect(where)).sendall(question(vm))


class Slow:
    """A history of which each reading waits until it may go on."""

    def __init__(self, body: bytes = b"{}\n") -> None:
        self.read: list[str] = []
        """Which VMs were asked for, in the order in which that was begun."""
        self.go_on = threading.Semaphore(0)
        self._body = body

    def __call__(self, path: Path, vm: str, *more: object) -> bytes:
        self.read.append(vm)
        assert self.go_on.acquire(timeout=LIMIT_SECONDS)
        return self._body


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[Api, Address, Address]]:
    """A controller with a history, in real time; where two peers can ask: by TCP and by the unix socket."""
    async with Host().controller() as controller:
        api = Api(controller, lambda: None, history=tmp_path / "history.sqlite")
        await api.start(tmp_path / "control.sock")
        port = await api.start_tcp("127.0.0.1", 0)
        try:
            yield api, ("127.0.0.1", port), str(tmp_path / "control.sock")
        finally:
            await api.stop()


def under_way(api: Api) -> int:
    """Requests that are being answered."""
    return sum(one.answering for each in api.listeners.doors for one in each._inside)


async def test_whoever_asks_a_hundred_times_waits_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow()
    monkeypatch.setattr(reading, "read_stored", slow)
    async with serving(tmp_path) as (api, tcp, unix):
        with ExitStack() as stack:
            ask(stack, tcp, "greedy", times=4)
            await until(lambda: under_way(api) == 4, "four questions")
            ask(stack, unix, "modest")
            await until(lambda: under_way(api) == 5, "a fifth one, of somebody else")
            slow.go_on.release()
            await until(lambda: len(slow.read) == 2, "the second reading")
            slow.go_on.release(4)
            await until(lambda: not under_way(api), "all answers")
    assert slow.read == ["greedy", "modest", "greedy", "greedy", "greedy"]


async def test_what_a_peer_does_not_take_keeps_its_next_answer_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(bytes(32 << 20))
    slow.go_on.release(3)
    monkeypatch.setattr(reading, "read_stored", slow)
    async with serving(tmp_path) as (api, tcp, unix):
        with ExitStack() as stack:
            ask(stack, tcp, "greedy", times=3)
            await until(lambda: under_way(api) == 3, "three questions")
            ask(stack, unix, "modest")
            await until(lambda: "modest" in slow.read, "the other peer's turn")
    assert slow.read == ["greedy", "modest"]


async def test_who_has_gone_is_read_nothing_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    monkeypatch.setattr(reading, "read_stored", slow)
    async with serving(tmp_path) as (api, tcp, _):
        for _ in range(3):
            with connect(tcp) as one:
                one.sendall(question("gone"))
                await until(lambda: slow.read, "the first reading")
        await until(lambda: not any(map(len, api.listeners.doors)), "the end of all connections")
        slow.go_on.release()
        with connect(tcp) as one:
            one.sendall(question("there"))
            await until(lambda: len(slow.read) == 2, "the second reading")
            slow.go_on.release()
    assert slow.read == ["gone", "there"]


async def test_more_than_so_many_questions_of_one_peer_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow()
    monkeypatch.setattr(reading, "read_stored", slow)
    monkeypatch.setattr(past, "MOST_WAITING", 2)
    async with serving(tmp_path) as (api, _, unix):
        with ExitStack() as stack:
            ask(stack, unix, "web", times=2)
            await until(lambda: under_way(api) == 2, "two questions")
            status, problem = await asyncio.to_thread(raw, tmp_path, request("GET /v1/balance?at=1"))
            slow.go_on.release(2)
    assert (status, problem["code"]) == (503, "too-many-questions")


async def test_the_host_is_looked_at_whatever_others_have_blocked() -> None:
    looks: list[HypervisorEvent] = []
    hypervisor = LibvirtHypervisor("test:///default", host_period_seconds=0.01)
    await hypervisor.start(lambda event: looks.append(event) if isinstance(event, HostSampled) else None)
    everybodys, go_on = ThreadPoolExecutor(1), threading.Event()
    try:
        asyncio.get_running_loop().set_default_executor(everybodys)
        everybodys.submit(go_on.wait)
        before = len(looks)
        await until(lambda: len(looks) > before + 2, "looks at the host")
    finally:
        go_on.set()
        await hypervisor.stop()


async def test_an_error_beside_the_loop_is_its_callers_and_the_next_call_works() -> None:
    beside = Beside("test")
    with pytest.raises(ZeroDivisionError):
        await beside.call(lambda: 1 // 0)
    assert await beside.call(threading.current_thread) is await beside.call(threading.current_thread)
    beside.close()
    assert await beside.call(lambda: 1) == 1
    beside.close()


def test_of_answers_that_nobody_takes_the_largest_of_the_greediest_peer_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"text": "x" * (8 << 20)}
    monkeypatch.setattr(reading, "json_schema", lambda: body)
    monkeypatch.setattr(door, "MOST_UNSENT", 24 << 20)

    async def story() -> list[int]:
        async with serving(tmp_path) as (api, tcp, _):
            with ExitStack() as stack:
                for _ in range(6):
                    one = await aside(connect, tcp)
                    stack.enter_context(one).sendall(b"GET /v1/schema HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await asyncio.sleep(door.SWEEP_SECONDS + 1)
                return [len(each) for each in api.listeners.doors]

    unix_door, tcp_door = run(story())
    assert unix_door == 0
    assert 2 <= tcp_door < 6


def test_an_answer_has_so_many_figures_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.sqlite"
    file = HistoryFile(path)
    file.write([("minute", ("u", "web", span(NOW - 60 * minute), None)) for minute in range(5)])
    file.close()
    monkeypatch.setattr(stored_history, "MOST_ROWS", 4)
    with pytest.raises(stored_history.TooMuch, match="5 figures and events"):
        stored_history.read_stored(path, "web", 0.0, "minute")
    assert stored_history.read_stored(path, "web", 0.0, "minute", one_in=2) is not None
    assert stored_history.read_stored(path, "web", NOW - 120, "minute") is not None
