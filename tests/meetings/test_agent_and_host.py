"""The agent of one release speaks with the host of the other: nothing that either says is dropped."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import codec, wire
from tests.meetings.release import LIMIT, PRESENT, Release

GUEST = PRESENT / "tests/unit/agent/recorded/debian12"


@pytest.fixture(params=["0.1.0 to the present", "the present to 0.1.0"])
def pair(request: pytest.FixtureRequest, old: Release, new: Release) -> tuple[Release, Release]:
    return (old, new) if request.param.startswith("0.1.0") else (new, old)


@pytest.mark.parametrize("side", ["guest", "host"])
def test_every_message_that_a_release_writes_the_other_reads_field_by_field(
    pair: tuple[Release, Release], side: str
) -> None:
    writer, reader = pair
    lines = [f"{side} {line}" for line in writer.ask("written")[side]]
    own, other = (one.ask("wire", told="".join(lines)) for one in (writer, reader))
    assert [name for name, _ in own] == [name for name, _ in other]
    for (name, meant), (_, heard) in zip(own, other, strict=True):
        assert "Error" not in name or name == "Error", heard
        shared = meant.keys() & heard.keys()
        assert {key: heard[key] for key in shared} == {key: meant[key] for key in shared}, name


class HostEnd:
    """The host's end of a port, with the agent of a release at the other one. It decodes as `hears` does."""

    def __init__(self, listening: socket.socket, hears: Release) -> None:
        self._port, _ = listening.accept()
        self._port.settimeout(0.2)
        self._hears = hears
        self.lines: list[bytes] = []
        self._rest = b""

    def say(self, line: str) -> None:
        self._port.sendall(line.encode())

    def until(self, condition: Callable[[list[Any]], bool], what: str) -> list[Any]:
        """All that was heard, once it holds."""
        end = time.monotonic() + LIMIT
        while True:
            try:
                *whole, self._rest = (self._rest + self._port.recv(1 << 16)).split(b"\n")
            except TimeoutError:
                whole = []
            self.lines += [line for line in whole if line]
            types = [json.loads(line) for line in self.lines]
            if condition(types):
                told = "".join(f"guest {line.decode()}\n" for line in self.lines)
                heard: list[Any] = self._hears.ask("wire", told=told)
                return heard
            assert time.monotonic() < end, f"not within {LIMIT:g} s: {what}; {types}"


@contextmanager
def agent_of(release: Release, hears: Release, directory: Path) -> Iterator[HostEnd]:
    shutil.copytree(GUEST, directory / "guest")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "host"))
        listening.listen()
        listening.settimeout(LIMIT)
        agent = release.start("agent", str(directory / "guest"), str(directory / "host"))
        try:
            yield HostEnd(listening, hears)
        finally:
            (directory / "gone").touch()
            try:
                agent.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.communicate()


def test_an_agent_greets_reports_and_obeys_the_host_of_another_release(
    pair: tuple[Release, Release], tmp_path: Path
) -> None:
    guest, host = pair
    orders = host.ask("written")["host"]
    asked = [json.loads(order) for order in orders]
    numbers = {order["id"] for order in asked if "id" in order}
    with agent_of(guest, host, tmp_path) as end:
        end.until(lambda said: any(one["t"] == "hello" for one in said), "a hello")
        for order in orders:
            end.say(order)
        heard = end.until(
            lambda said: (
                numbers <= {one["id"] for one in said if one["t"] == "ack"}
                and sum(one["t"] == "report" for one in said) >= 2
            ),
            f"an answer to each of {numbers}, and reports",
        )
    assert {name for name, _ in heard} == {"Hello", "Ack", "Report"}
    reports = [fields for name, fields in heard if name == "Report"]
    assert all(0 < one["available_bytes"] <= one["total_bytes"] for one in reports)


def test_a_message_of_the_next_release_is_read_without_what_is_not_known() -> None:
    known = b'"v":1,"t":"report","b":"01234567","n":1,"up":1.5,"mt":1000,"ma":500,"mf":400'
    report = codec.decode_from_guest(b"{" + known + b',"moon":"full","w":"tide"}')
    assert isinstance(report, wire.Report)
    assert report.available_bytes == 500 * 1024
    assert report.reason == "other"
    welcome = codec.decode_from_host(b'{"v":1,"t":"welcome","controller":"0.3.0","calm":0.5,"sea":"high"}')
    assert isinstance(welcome, wire.Welcome)


def test_a_message_that_only_the_next_release_has_is_answered_and_nothing_else_happens() -> None:
    with pytest.raises(codec.UnknownType) as unknown:
        codec.decode_from_host(b'{"v":1,"t":"hibernate","id":1}')
    assert codec.reply_to(unknown.value).code == "bad-message"
    with pytest.raises(codec.UnknownVersion) as newer:
        codec.decode_from_guest(b'{"v":2,"t":"hello"}')
    assert codec.reply_to(newer.value).supported_versions == (1,)
