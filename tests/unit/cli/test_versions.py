"""A CLI and a controller of other versions: what one does not know is shown as such, never a KeyError."""

import asyncio
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from host_controller import __version__
from host_controller.api import answer
from host_controller.api.client import (
    ControllerUnreachable,
    RequestRefused,
    _read,
    _refused,
    check_shape,
    understood,
)
from host_controller.cli import events, explain, history, plot, status
from host_controller.cli.screen import COLUMNS, View, picture
from host_controller.cli.screen import KEYS as SORTS
from tests.support.serving import served
from tests.support.virtual import Host, aside, run


def live_answers(tmp_path: Path) -> dict[str, Any]:
    """What a controller with an overdraft, a pause and a decision really says."""

    async def story() -> dict[str, Any]:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path) as (controller, client):
            await asyncio.sleep(90)
            controller.hold_all(True)
            await asyncio.sleep(1)
            return {
                "status": await aside(client.get, "status"),
                "explain": await aside(client.get, "vms", "web", "explain"),
                "history": await aside(client.get, "vms", "web", "history"),
                "v1": await aside(client.get),
            }

    return run(story())


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = live_answers(tmp_path_factory.mktemp("live"))
    found["status"]["host"]["overdraft"] = {"cause": "x", "since": 1.0, "bytes_now": 5, "bytes_peak": 6}
    found["history"]["samples"] = found["history"]["samples"][:30]
    found["history"]["entries"] = found["history"]["entries"][:5]
    return found


def screen(told: Any) -> None:
    for sort in SORTS:
        view = View(sort)
        view.note(told)
        picture(told, view, 250, 40)


VIEWS: dict[str, list[Callable[[Any], object]]] = {
    "status": [
        lambda told: status.host_lines(told["host"]),
        lambda told: status.vm_lines(told["vms"]),
        screen,
    ],
    "explain": [explain.lines],
    "history": [history.lines, lambda told: [events.entry_line(one) for one in told["entries"]]],
}


def places(told: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a field."""
    if isinstance(told, dict):
        for key, value in told.items():
            yield (*path, key)
            yield from places(value, (*path, key))
    elif isinstance(told, list) and told:
        yield from places(told[0], (*path, 0))


def without(told: Any, path: tuple[Any, ...]) -> Any:
    """As a controller that does not know a field would say it."""
    found = copy.deepcopy(told)
    inside = found
    for step in path[:-1]:
        inside = inside[step]
    del inside[path[-1]]
    return answer.read(json.dumps(found).encode())


@pytest.mark.parametrize("name", VIEWS)
def test_an_older_controller_that_does_not_know_a_field_is_shown_all_the_same(
    answers: dict[str, Any], name: str
) -> None:
    tried = 0
    for path in places(answers[name]):
        told = without(answers[name], path)
        for view in VIEWS[name]:
            view(told)
        tried += 1
    assert tried > 20


WRONG: tuple[Any, ...] = (None, True, "x", 7, -1.5, 1e300, [], ["x"], [None], {}, {"x": 1})
OF: dict[str, tuple[str, str]] = {
    "status": ("host", "StatusView"),
    "explain": ("explain", "ExplainView"),
    "history": ("history", "HistoryView"),
}


@pytest.mark.parametrize("name", VIEWS)
def test_what_says_other_things_than_a_controller_is_shown_or_told_to_be_none(
    answers: dict[str, Any], name: str
) -> None:
    small = json.loads(json.dumps(answers[name]))
    for key in ("samples", "entries", "vms"):
        small[key] = small.get(key, [])[:1]
    refused = 0
    for path in places(small):
        for wrong in WRONG:
            told = copy.deepcopy(small)
            inside = told
            for step in path[:-1]:
                inside = inside[step]
            inside[path[-1]] = wrong
            told = answer.read(json.dumps(told).encode())
            for view in VIEWS[name]:
                try:
                    with understood(told, *OF[name]):
                        view(told)
                except ControllerUnreachable:
                    refused += 1
    assert refused > 20


def test_what_is_our_own_fault_is_not_put_on_the_controller(answers: dict[str, Any]) -> None:
    told = answer.read(json.dumps(answers["status"]).encode())
    with pytest.raises(TypeError), understood(told, "host", "StatusView"):
        raise TypeError
    check_shape(told, "host", "StatusView")


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({"host": None, "vms": []}, "host is None"),
        ({"vms": {}}, "vms is {}"),
        ({"vms": [None]}, "vms[0] is None"),
        ({"vms": [{"limits": {"weight": "7"}}]}, "vms[0].limits.weight is '7'"),
        ({"vms": [{"decision": {"at": 1e16}}]}, "vms[0].decision.at is 1e+16"),
        ({"host": {"overdraft": {"cause": 7}}}, "host.overdraft.cause is 7"),
        ({"host": {"capacity_bytes": 10**400}}, "host.capacity_bytes is 1000"),
        ({"host": {"uptime_seconds": float("nan")}}, "host.uptime_seconds is nan"),
        ([], "all of it is []"),
    ],
)
def test_the_first_thing_that_is_of_another_kind_is_named(told: Any, where: str) -> None:
    with pytest.raises(ControllerUnreachable) as refused:
        check_shape(told, "host", "StatusView")
    assert f"not understood: {where}" in str(refused.value)


def test_what_another_version_says_is_of_the_right_kind() -> None:
    for told in ({}, {"host": {}, "vms": [{}], "news": [None]}, {"vms": [{"phase": "dreaming"}]}):
        check_shape(told, "host", "StatusView")


def test_an_older_controller_that_says_nothing_at_all_is_shown_with_question_marks() -> None:
    told = answer.read(b'{"host": {}, "vms": [{}]}')
    assert "dynmem ? on ?" in status.host_lines(told["host"])[0]
    [_, row] = status.vm_lines(told["vms"])
    assert row.split()[0] == "?"
    assert row.count("?") > len(COLUMNS) // 2
    screen(told)


def test_a_newer_controller_says_more_and_is_shown_all_the_same(answers: dict[str, Any]) -> None:
    told = json.loads(json.dumps(answers["status"]))
    told["news"] = {"a": [1]}
    told["host"] |= {"moon": "full", "emergency": "of a new kind"}
    told["vms"][0] |= {"status": "splendid", "phase": "dreaming", "state": "elsewhere", "mood": None}
    told["vms"][0]["decision"] = {"action": "teleport", "reason": "it may", "held_back": None, "by": "us"}
    told = answer.read(json.dumps(told).encode())
    assert any("of a new kind" in line for line in status.host_lines(told["host"]))
    [_, row] = status.vm_lines(told["vms"])
    assert "splendid" in row
    assert "elsewhere" in row
    assert "teleport: it may" in row
    screen(told)


def test_a_plot_leaves_out_what_is_not_known_and_takes_no_name_for_a_formula(
    answers: dict[str, Any], tmp_path: Path
) -> None:
    told = json.loads(json.dumps(answers["history"]))
    told["name"] = "$x^$ \u202e\x9b $\\frac$"
    for sample in told["samples"][::2]:
        del sample["goal_bytes"]
    plot.draw(answer.read(json.dumps(told).encode()), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_v1_says_its_version(answers: dict[str, Any]) -> None:
    assert answers["v1"] == {"api": 1, "version": __version__}


class Response:
    def __init__(self, status: int, body: bytes) -> None:
        self.status, self._body = status, body

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self) -> bytes:
        return self._body


@pytest.mark.parametrize("code", ["unknown-path", "unknown-parameter"])
def test_what_an_older_controller_cannot_be_asked_is_said_to_be_that(code: str) -> None:
    problem = json.dumps({"code": code, "message": "there is no /v1/news"}).encode()
    error = _refused(Response(404, problem))  # type: ignore[arg-type]
    assert isinstance(error, RequestRefused)
    assert "older" in str(error)


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"7", b"null", b'{"code": 1}', b'{"message": null}', b"\xff", b"[" * 9000]
)
def test_a_refusal_of_any_form_is_an_error_of_ours(body: bytes) -> None:
    assert isinstance(_refused(Response(500, body)), ControllerUnreachable | RequestRefused)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff", b'{"a":', b"[" * 9000, b"7", b"null", b'"OK"', b"[7]", b"[null]"]
)
def test_an_answer_that_is_none_is_an_error_of_ours(body: bytes) -> None:
    for of_many in (False, True):
        with pytest.raises(ControllerUnreachable, match="not understood"):
            _read(body, of_many=of_many)


def test_one_object_and_a_list_of_them_are_told_apart() -> None:
    assert _read(b'{"a": 1}') == {"a": 1}
    assert _read(b'[{"a": 1}]', of_many=True) == [{"a": 1}]
    for body, of_many in ((b"{}", True), (b"[]", False)):
        with pytest.raises(ControllerUnreachable, match="not understood"):
            _read(body, of_many=of_many)
