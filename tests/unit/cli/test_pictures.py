"""What stands on the pictures: events on the curve, and the level of the balance."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from host_controller.api.answer import read
from host_controller.api.stored_history import read_moment
from host_controller.cli.explain import explain, moment_of
from host_controller.cli.plot import pyplot, save
from host_controller.cli.plot_balance import Row, level_of, rows_of, table_of
from host_controller.cli.plot_events import MOST_OF_A_KIND, Mark, marks, told
from host_controller.core.model import Limits, VmConfig
from host_controller.core.policy.balance import Claims, balance
from host_controller.core.vm.record import Phase
from host_controller.errors import InputError
from host_controller.records.history_file import HistoryFile
from host_controller.records.samples import Sample
from host_controller.records.tiers import Span
from host_controller.units import GIB
from tests.support.serving import invoke, served
from tests.support.virtual import Host, aside, run


def entry(at: float, kind: str, topic: str, text: str) -> dict[str, Any]:
    return {"at": at, "kind": kind, "topic": topic, "text": text}


def test_events_are_marked_by_what_they_mean_to_people() -> None:
    found = marks(
        [
            entry(1, "decision", "grow", "the guest has a use for it"),
            entry(2, "decision", "wait", "it should grow; held back: db gives 1 GiB first"),
            entry(3, "notice", "reset", "web was reset"),
            entry(4, "notice", "operator", "alice (virsh) paused web"),
            entry(5, "command", "SetTarget", "SetTarget done"),
            entry(6, "decision", "hold", "it has what it should have"),
        ]
    )
    assert [(one.kind, one.text) for one in found] == [
        ("grown", "the guest has a use for it"),
        ("held back", "db gives 1 GiB first"),
        ("reset", "web was reset"),
        ("by somebody", "alice (virsh) paused web"),
    ]


def test_what_is_frequent_is_thinned_and_what_people_did_is_told_first() -> None:
    found = marks(
        [entry(at, "decision", "wait", f"x; held back: {at}") for at in range(500)]
        + [entry(900, "notice", "operator", "alice paused web\n\x1b[31m")]
    )
    assert len(found) == MOST_OF_A_KIND + 1
    words = told(found)
    assert len(words) == 10
    assert words[-1] == Mark(900, "by somebody", "alice paused web??[31m")


def test_the_level_of_the_picture_is_that_of_the_balance() -> None:
    claims = [
        Claims(100, GIB, GIB, GIB, GIB, 4 * GIB, 4 * GIB),
        Claims(200, GIB, GIB, GIB, GIB, 8 * GIB, 8 * GIB),
        Claims(100, GIB, GIB, GIB, GIB, 2 * GIB, 8 * GIB),
    ]
    goals = balance(claims, 11 * GIB)
    rows = [
        Row(f"vm{n}", one.weight, one.irreducible, one.need, one.eased, one.desired, goal, goal)
        for n, (one, goal) in enumerate(zip(claims, goals, strict=True))
    ]
    level = level_of(rows)
    assert level is not None
    assert abs(level * 100 - 3 * GIB) < 200
    assert level_of([rows[2]]) is None, "it has what it asks for"


def rows_at(claims: list[Claims], budget_bytes: int) -> list[Row]:
    return [
        Row(f"vm{n}", one.weight, one.irreducible, one.need, one.eased, one.desired, goal, goal)
        for n, (one, goal) in enumerate(zip(claims, balance(claims, budget_bytes), strict=True))
    ]


@pytest.mark.parametrize("kept", [True, False], ids=["now", "of the past, which keeps no stalls"])
def test_who_is_given_what_its_stalls_ask_for_and_no_more_raises_no_level(kept: bool) -> None:
    claims = [
        Claims(100, GIB, 2 * GIB, 3 * GIB, 3 * GIB, 4 * GIB, 4 * GIB),
        Claims(100, GIB, GIB, GIB, GIB, 4 * GIB, 4 * GIB),
        Claims(200, GIB, GIB, GIB, GIB, 8 * GIB, 8 * GIB),
    ]
    rows = rows_at(claims, 9 * GIB)
    assert rows[0].goal == 3 * GIB
    rows = rows if kept else [replace(one, eased=one.need) for one in rows]
    level = level_of(rows)
    assert level is not None
    assert abs(level * 100 - 2 * GIB) < 200


def test_a_budget_that_ends_with_a_tier_is_not_said_to_have_been_enough() -> None:
    claims = [Claims(100, GIB, 2 * GIB, 2 * GIB, 2 * GIB, 4 * GIB, 4 * GIB)] * 2
    assert table_of(rows_at(claims, 4 * GIB), "vm0")[-1].startswith("each got all of one tier")
    assert table_of(rows_at(claims, 8 * GIB), "vm0")[-1] == "everybody got what it asked for"


def test_a_vm_that_takes_no_part_is_not_in_the_balance_and_an_older_controller_knows_no_lower() -> None:
    status = read(
        b'{"vms": [{"name": "a", "need_bytes": null, "goal_bytes": null},'
        b' {"name": "b", "need_bytes": 5, "goal_bytes": 7, "desired_bytes": 9, "limits": {}}]}'
    )
    assert rows_of(status) == [Row("b", 100, 5, 5, 5, 9, 7, 0)]


def write_contention(path: Path, at: float) -> None:
    """Two VMs that want 5 GiB each and share six by their weights, and one that was gone by then."""
    file = HistoryFile(path)
    seen_at = {"web": at, "db": at, "old": at - 3600}
    for name, weight, goal in (("web", 100, 2 * GIB), ("db", 200, 4 * GIB), ("old", 100, GIB)):
        seen = seen_at[name]
        config = VmConfig(name, name, Limits(GIB, GIB // 2, 8 * GIB, weight=weight))
        sample = Sample(
            seen - 10, goal, GIB, GIB, 5 * GIB, goal, goal, goal, goal, GIB, 50.0, Phase.LIVE, 1.0
        )
        minute = Span(seen - 60, 60.0, 60.0, 0.0, goal, goal, goal, goal, GIB, GIB, GIB)
        detail = json.dumps({"lower_bytes": GIB // 2}).encode()
        decision = (seen - 20, "decision", "grow", name, name, "it needs more", detail)
        file.write(
            [
                ("minute", (name, name, minute, config)),
                ("sample", (sample.at, name, name, sample)),
                ("entry", decision),
            ]
        )
    file.close()


def test_a_past_moment_is_shown_as_it_was_with_who_asked_for_what_and_the_level(tmp_path: Path) -> None:
    path, at = tmp_path / "history.sqlite", 1.75e9
    write_contention(path, at)

    async def ask(*arguments: str) -> Result:
        async with served(Host(), tmp_path, history=path):
            return await aside(invoke, explain, tmp_path, *arguments)

    told = run(ask("web", "--at", "2025-06-15T15:06:40+00:00"))
    assert told.exit_code == 0, told.output
    assert "6 GiB laid out" in told.output
    assert "the level stood at 2 GiB for a weight of 100" in told.output
    assert "old" not in told.output
    lines = told.output.splitlines()
    assert [line.split()[:3] for line in lines if "web" in line] == [["*", "web", "100"]]
    assert [line.split()[2:] for line in lines if "db" in line] == [
        ["512", "MiB", "1", "GiB", "5", "GiB", "4", "GiB", "4", "GiB"]
    ]
    picture = tmp_path / "then.png"
    run(ask("web", "--at", "2025-06-15T15:06:40+00:00", "--plot", str(picture)))
    assert picture.read_bytes().startswith(b"\x89PNG")
    for wrong in (
        ("old", "2025-06-15T15:06:40+00:00"),
        ("web", "2025-06-01"),
        ("web", "soon"),
        ("web", "2999-01-01"),
    ):
        with pytest.raises(InputError):
            run(ask(wrong[0], "--at", wrong[1]))


def test_a_moment_is_so_long_ago_or_a_date() -> None:
    assert moment_of("2h", 10_000.0) == 2_800.0
    assert moment_of("1970-01-01T01:00:00+00:00", 10_000.0) == 3600.0
    for wrong in ("", "-1h", "1 h ago", "2999-01-01", "9" * 400, "1969-01-01"):
        with pytest.raises(InputError):
            moment_of(wrong, 10_000.0)


def test_a_detail_that_is_damaged_costs_the_irreducible_part_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    write_contention(path, 1e9)
    file = HistoryFile(path)
    for detail in (
        b"{",
        b"7",
        b'{"lower_bytes": "x"}',
        b'{"lower_bytes": -5}',
    ):
        file.write([("entry", (1e9 - 5, "decision", "grow", "web", "web", "x", detail))])
    file.close()
    told = read_moment(path, 1e9)
    assert told is not None
    found = {one["name"]: one["lower_bytes"] for one in json.loads(told)["vms"]}
    assert found["db"] == GIB // 2
    assert found["web"] in (None, GIB // 2)
    assert read_moment(tmp_path / "none", 1e9) is None


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("x.png", b"\x89PNG"),
        ("x.PNG", b"\x89PNG"),
        ("x", b"\x89PNG"),
        ("x.pdf", b"%PDF"),
        ("x.svg", b"<?xml"),
    ],
)
def test_a_picture_is_what_its_name_says(tmp_path: Path, name: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    figure, _ = pyplot().subplots()
    save(figure, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_a_name_in_a_script_without_a_font_is_drawn_without_a_word(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure, axes = pyplot().subplots()
    axes.set_title("\U00013000 \U0001f9ff 日本語")  # some of these no font here has
    with warnings.catch_warnings(record=True) as told:
        save(figure, tmp_path / "x.png")
    assert [str(one.message) for one in told] == []
