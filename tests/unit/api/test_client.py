"""The CLI's side of the control API, with controllers that end in the middle of an answer or say nothing."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host_controller.api import client as module
from host_controller.api.client import Client, ControllerUnreachable

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = json.dumps({"number": 1}).encode() + b"\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextmanager
def controller(tmp_path: Path, answer: Callable[[socket.socket], None]) -> Iterator[Client]:
    """Somebody at a socket who answers one request in this way, and hangs up."""
    path = tmp_path / "control.sock"

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            peer.recv(1 << 16)
            answer(peer)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Client(str(path))
        finally:
            thread.join()


@pytest.mark.parametrize("query", [{}, {"follow": "true"}])
@pytest.mark.parametrize("last", [b"", chunk(b'{"number": '), b"40\r\n" + EVENT, b"40\r\n", b"4"])
def test_events_that_are_cut_off_are_told_as_far_as_they_came_and_then_the_cut(
    query: dict[str, object], last: bytes, tmp_path: Path
) -> None:
    with controller(tmp_path, lambda peer: peer.sendall(HEAD + chunk(EVENT) + last)) as client:
        stream = client.follow("events", **query)
        assert next(stream) == {"number": 1}
        with pytest.raises(ControllerUnreachable, match="broke off"):
            list(stream)


def test_a_line_that_comes_in_pieces_is_one_and_the_last_needs_no_end(tmp_path: Path) -> None:
    halves = EVENT + EVENT[:5], EVENT[5:] + EVENT.rstrip()
    whole = HEAD + b"".join(map(chunk, halves)) + chunk(b"")
    with controller(tmp_path, lambda peer: peer.sendall(whole)) as client:
        assert list(client.follow("events")) == [{"number": 1}] * 3


def test_a_refusal_that_breaks_off_is_an_error_of_ours(tmp_path: Path) -> None:
    begun = b'HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n{"code": '
    with (
        controller(tmp_path, lambda peer: peer.sendall(begun)) as client,
        pytest.raises(ControllerUnreachable, match="broke off"),
    ):
        client.get("status")


@pytest.mark.parametrize("query", [{}, {"follow": "true"}])
def test_a_controller_that_does_not_begin_to_answer_is_not_waited_for_without_end(
    query: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.05)
    given_up = threading.Event()
    with controller(tmp_path, lambda _: assert_waited(given_up)) as client:
        try:
            with pytest.raises(ControllerUnreachable, match="does not answer"):
                list(client.follow("events", **query))
        finally:
            given_up.set()


@pytest.mark.parametrize(("query", "seconds"), [({}, module.ANSWER_SECONDS), ({"follow": "true"}, None)])
def test_who_follows_waits_for_the_next_event_however_long(
    query: dict[str, object], seconds: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[module._UnixConnection] = []

    class Connection(module._UnixConnection):
        def connect(self) -> None:
            super().connect()
            made.append(self)

    monkeypatch.setattr(module, "_UnixConnection", Connection)
    with controller(tmp_path, lambda peer: peer.sendall(HEAD + chunk(EVENT) + chunk(b""))) as client:
        stream = client.follow("events", **query)
        assert next(stream) == {"number": 1}
        assert made[0].line is not None
        assert made[0].line.gettimeout() == seconds
        assert not list(stream)


def assert_waited(event: threading.Event) -> None:
    assert event.wait(60)
