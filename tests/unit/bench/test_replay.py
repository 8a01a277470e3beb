"""A difference between what two trees make of a recording is found and shown whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.replay.__main__ import ReplayError, Story, compare, unpack


def line(at: float, *commands: str, as_recorded: bool = True, **more: Any) -> dict[str, Any]:
    return {"at": at, "commands": commands, "as_recorded": as_recorded, "notices": []} | more


def compared(tmp_path: Path, base: list[dict[str, Any]], now: list[dict[str, Any]]) -> Story:
    for name, lines in (("base", base), ("now", now)):
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in lines))
    story = Story()
    compare("story-00-1.jsonl", tmp_path / "base", tmp_path / "now", story)
    return story


def test_two_equal_traces_are_counted_and_differ_in_nothing(tmp_path: Path) -> None:
    lines = [line(1.0, "SetTarget(vm='a')"), line(2.0, "SetTarget(vm='a')", "SetPace(vm='a')")]
    story = compared(tmp_path, lines, lines)
    assert story.difference is None
    assert (story.lives, story.decisions) == (1, 2)
    assert story.commands == {"SetTarget": 2, "SetPace": 1}


@pytest.mark.parametrize(
    ("now", "shown"),
    [
        ([line(1.0, "SetTarget(2)")], '+ commands: ["SetTarget(2)"]'),
        ([line(1.5, "SetTarget(1)")], "+ at: 1.5"),
        ([], '- commands: ["SetTarget(1)"]'),
        ([line(1.0, "SetTarget(1)"), line(2.0)], "+ at: 2.0"),
        ([line(1.0, "SetTarget(1)", goals={"a": 5})], '+ goals: {"a": 5}'),
    ],
)
def test_another_command_time_or_figure_is_the_difference(
    tmp_path: Path, now: list[dict[str, Any]], shown: str
) -> None:
    difference = compared(tmp_path, [line(1.0, "SetTarget(1)")], now).difference
    assert difference is not None
    assert difference.startswith("story-00-1.jsonl at ")
    assert shown in difference


def test_what_the_operator_is_told_is_shown_and_hides_no_later_difference(tmp_path: Path) -> None:
    told = line(1.0, notices=[["pinned", "a"]])
    story = compared(tmp_path, [line(1.0), line(2.0)], [told, line(2.0)])
    assert story.difference is None
    assert story.told is not None
    assert '+ notices: [["pinned", "a"]]' in story.told
    assert compared(tmp_path, [line(1.0), line(2.0)], [told, line(2.0, "SetPace(1)")]).difference


def test_a_base_that_does_not_repeat_what_was_recorded_is_said(tmp_path: Path) -> None:
    lines = [line(1.0, "SetTarget(1)", as_recorded=False), line(2.0)]
    assert not compared(tmp_path, lines, lines).repeated
    assert compared(tmp_path, lines[1:], lines[1:]).repeated


def test_a_commit_that_is_not_here_is_said_with_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="git fetch --unshallow"):
        unpack("no-such-commit", tmp_path)
