"""The sockets' limits: whoever waits, floods or sends nonsense keeps nobody else out, and is no traceback."""

import asyncio
import logging
import select
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from host_controller.api import changing, door, start_xml
from host_controller.api.client import Client, RequestRefused
from host_controller.api.http import BODY_SECONDS, TOO_LARGE_SECONDS
from host_controller.api.server import Api
from host_controller.control.controller import Controller
from tests.support.serving import raw, request
from tests.support.virtual import Host, aside, run

Address = str | tuple[str, int]


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[Controller, Api, dict[str, Address]]]:
    """A controller with one VM on a unix socket and on TCP."""
    host = Host()
    host.vm("web")
    async with host.controller() as controller:
        api = Api(controller, lambda: None)
        await api.start(tmp_path / "control.sock")
        port = await api.start_tcp("127.0.0.1", 0)
        await asyncio.sleep(1)
        try:
            yield controller, api, {"unix": str(tmp_path / "control.sock"), "tcp": ("127.0.0.1", port)}
        finally:
            await api.stop()


def connect(address: Address) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    one = socket.socket(family)
    one.settimeout(60)
    one.connect(address)
    return one


def asked(address: Address) -> int:
    """The status that an honest client gets."""
    with connect(address) as one:
        one.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := one.recv(1 << 16):
            answer += chunk
    return int(answer.split()[1])


def ended(one: socket.socket) -> bool:
    """Whether the other end has closed it."""
    try:
        return one.recv(1 << 16) == b""
    except ConnectionError:
        return True


HALF: dict[str, bytes] = {
    "nothing": b"",
    "half a head": b"GET /v1/vms HTTP/1.1\r\nHost: localhost\r\nX-",
    "half a body": b"POST /v1/admission HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n<domain",
    "half a chunk": b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{",
    "a body too large": b"POST /v1/admission HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n",
}


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("sent", HALF.values(), ids=HALF)
def test_whoever_waits_with_hundreds_of_connections_keeps_nobody_out(
    tmp_path: Path, kind: str, sent: bytes
) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (_, api, addresses):
            with ExitStack() as stack:

                def hog() -> None:
                    for _ in range(3 * door.MOST_OF_ONE):
                        one = stack.enter_context(connect(addresses[kind]))
                        one.sendall(sent)

                await aside(hog)
                for _ in range(3):
                    assert await aside(asked, addresses[kind]) == 200
                assert all(len(one) <= door.MOST_OF_ONE + 1 for one in api.listeners.doors)

    run(story())


@pytest.mark.parametrize("sent", [HALF["nothing"], HALF["half a head"]])
def test_a_connection_without_a_whole_head_ends_after_its_time(tmp_path: Path, sent: bytes) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (_, _, addresses):
            one = await aside(connect, addresses["unix"])
            with one:
                one.sendall(sent)
                await asyncio.sleep(door.HEAD_SECONDS + 1)
                assert await aside(ended, one)

    run(story())


def test_a_connection_that_is_kept_ends_when_nothing_more_is_asked(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (_, _, addresses):
            with await aside(connect, addresses["tcp"]) as one:
                one.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await aside(one.recv, 1 << 16)).startswith(b"HTTP/1.1 200")
                await asyncio.sleep(door.HEAD_SECONDS + 1)
                assert await aside(ended, one)

    run(story())


def test_a_body_that_does_not_come_is_a_408_after_its_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (_, _, addresses):
            with await aside(connect, addresses["unix"]) as one:
                one.sendall(HALF["half a body"])
                await asyncio.sleep(BODY_SECONDS + 1)
                assert (await aside(one.recv, 1 << 16)).startswith(b"HTTP/1.1 408")

    run(story())


def quiet(one: socket.socket) -> bool:
    """Whether nothing has been answered yet."""
    return not select.select([one], [], [], 0)[0]


def test_a_body_that_is_too_large_is_refused_before_it_comes(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (_, _, addresses):
            with await aside(connect, addresses["unix"]) as one:
                one.sendall(HALF["a body too large"])
                await asyncio.sleep(TOO_LARGE_SECONDS / 2)
                assert await aside(quiet, one), "whoever sends too much again and again is kept waiting"
                await asyncio.sleep(TOO_LARGE_SECONDS / 2)
                answer = await aside(one.recv, 1 << 16)
                assert answer.startswith(b"HTTP/1.1 413")
                assert b'"code":"too-large"' in answer

    run(story())


def test_an_answer_that_its_reader_does_not_take_ends(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (controller, api, addresses):
            for number in range(20_000):
                controller.journal.said("test", f"{number} " + "x" * 200, 0.0)
            with await aside(connect, addresses["unix"]) as one:
                one.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await aside(one.recv, 100)
                await asyncio.sleep(door.STALL_SECONDS + 3 * door.SWEEP_SECONDS)
                assert [len(each) for each in api.listeners.doors] == [0, 0]

    run(story())


def test_followers_of_one_peer_are_few_and_an_ordinary_question_is_answered_beside_them(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (_, _, addresses):
            follow = b"GET /v1/events?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n"
            with ExitStack() as stack:

                def followers() -> list[bytes]:
                    found = []
                    for _ in range(door.MOST_FOLLOWERS + 3):
                        one = stack.enter_context(connect(addresses["unix"]))
                        one.sendall(follow)
                        found.append(one.recv(12))
                    return found

                found = await aside(followers)
                assert found.count(b"HTTP/1.1 200") == door.MOST_FOLLOWERS
                assert found.count(b"HTTP/1.1 503") == 3
                assert await aside(asked, addresses["unix"]) == 200

    run(story())


BAD: dict[str, bytes] = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no method": b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a version of its own": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "a head without end": b"GET /v1/vms HTTP/1.1\r\nX: " + b"a" * 20_000,
    "an address without end": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a thousand fields": b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(1000)) + b"\r\n",
    "a field in two lines": b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
    "a control character": b"GET /v1/vms HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
    "two lengths": b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length and chunks": b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a chunk of no size": b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an absolute address": b"GET http://[/v1/vms HTTP/1.1\r\nHost: x\r\n\r\n",
    "a host that is none": b"GET /v1/nothing HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n",
    "bytes in the address": b"GET /v1/vms/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a surrogate in the address": b"GET /v1/%ED%A0%80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "half an escape": b"GET /v1/vms/%zz%E HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a body that is no gzip": b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
    b"Connection: close\r\nContent-Length: 3\r\n\r\nabc",
    "a path upwards": b"GET /v1/vms/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "an expectation": b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\nContent-Length: 0\r\n\r\n",
    "an expectation that is no text": b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\nExpect: \xe9\r\n\r\n",
    "an upgrade": b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a tunnel": b"CONNECT evil:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a name of 8 KiB": b"GET /v1/vms/" + b"%F0%9F%92%A9" * 600 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a time without end": b"GET /v1/vms/web/history?since=" + b"9" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
}


def first_line(address: Address, sent: bytes) -> bytes:
    with connect(address) as one:
        one.sendall(sent)
        one.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := one.recv(1 << 16):
            answer += chunk
    return answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_bad_request_is_refused_and_is_no_traceback(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (controller, _, addresses):
            for what, sent in BAD.items():
                line = await aside(first_line, addresses[kind], sent)
                assert line == b"" or 400 <= int(line.split()[1]) < 500, (what, line)
                assert await aside(asked, addresses[kind]) == 200, what
            assert not controller.journal.errors
            assert not controller.pausing.paused_all

    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as said:
        run(story())
    assert [one for one in said if "exc_info" in one] == []
    assert [one.getMessage() for one in caplog.records if one.exc_info] == []


XML: dict[str, bytes] = {
    "laughs": b'<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><domain>&b;</domain>',
    "a file of ours": b'<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/passwd">]><domain>&a;</domain>',
    "an empty document type": b"<!DOCTYPE domain><domain/>",
    "a type of elsewhere": b'<!DOCTYPE domain SYSTEM "http://127.0.0.1/x.dtd"><domain/>',
    "too many elements": b"<domain>" + b"<a/>" * 50_000 + b"</domain>",
    "too deep": b"<a>" * 10_000 + b"</a>" * 10_000,
    "no end": b"<domain>",
    "no XML": b"{}",
    "nothing": b"",
    "no UTF-8": b"\xff\xfe<\x00d\x00/\x00>\x00",
    "an unknown entity": b"<domain>&nbsp;</domain>",
    "no domain": b"<network/>",
}


def test_xml_that_no_domain_has_is_a_400_and_no_traceback(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (controller, _, _):
            for what, body in XML.items():
                status, problem = await aside(raw, tmp_path, request("POST /v1/admission", body))
                assert status in (400, 413), (what, problem)
                assert "/etc/passwd" not in problem["message"]
                assert "root:" not in problem["message"]
            assert not controller.journal.errors
            assert not controller.engine.ledger.reservations

    with structlog.testing.capture_logs() as said:
        run(story())
    assert [one for one in said if "exc_info" in one] == []


def test_the_loop_goes_on_while_xml_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow(_xml: str, _overhead: int, _rules: object) -> Any:
        reading.set()
        assert go_on.wait(60)
        raise start_xml.UnfitXml("read at last")

    monkeypatch.setattr(changing, "read_start", slow)

    async def story() -> None:
        async with serving(tmp_path) as (_, _, addresses):
            posting = asyncio.create_task(
                asyncio.to_thread(raw, tmp_path, request("POST /v1/admission", b"<domain/>"))
            )
            await aside(reading.wait, 20)
            assert await aside(asked, addresses["unix"]) == 200
            go_on.set()
            assert (await posting)[1]["message"] == "read at last"

    run(story())


NAMES = [
    "{",
    "{vm}",
    "a{b:c}",
    "%",
    "a/b",
    "a b",
    "ä€😀",
    "?x=1",
    "#",
    "..a",
    "'",
    '"',
    "<b>",
    "[bold]",
    "\\",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_vm_of_any_name_can_be_asked_for_and_changed(tmp_path: Path, name: str) -> None:
    async def story() -> None:
        host = Host()
        host.vm(name)
        async with host.controller() as controller:
            api = Api(controller, lambda: None)
            await api.start(tmp_path / "control.sock")
            await asyncio.sleep(1)
            client = Client(str(tmp_path / "control.sock"))
            ways: list[Callable[[], Any]] = [
                lambda: client.get("vms", name)["name"],
                lambda: client.get("vms", name, "explain")["vm"]["name"],
                lambda: client.get("vms", name, "history")["name"],
                lambda: {one["name"] for one in client.follow("events", vm=name)}.pop(),
                lambda: client.post("vms", name, "pause")["done"].removeprefix("paused "),
            ]
            try:
                for way in ways:
                    assert await aside(way) == name
                with pytest.raises(RequestRefused, match="no managed VM"):
                    await aside(client.get, "vms", name + "nobody")
            finally:
                await api.stop()

    run(story())
