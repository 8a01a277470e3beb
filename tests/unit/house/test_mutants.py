"""The list of mutants that survive says why, and is neither too short nor too long."""

from pathlib import Path

import pytest

from tests.mutants.outcome import Mutant
from tests.mutants.survivors import Entry, judge, load, outlived

CORE = Path(__file__).parents[3] / "host_controller/core"


def mutant(status: str, before: str = "a < b", after: str = "a <= b", file: str = "vm/growth.py") -> Mutant:
    return Mutant(file, "Rest.failed", status, (before,), (after,))


def entry(before: str = "a < b", after: str | None = None, file: str = "vm/growth.py") -> Entry:
    return Entry(file, before, after, "equivalent because they are never equal")


def test_every_survivor_of_the_list_has_its_reason() -> None:
    load()


def test_every_survivor_of_the_list_is_of_a_line_that_there_is() -> None:
    assert outlived(load(), CORE) == []


def test_an_entry_for_a_line_that_has_gone_or_that_another_covers_is_shown(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("if (\n    a\n    < b\n):\n    pass\n")
    there = [entry("a < b", "a <= b", "x.py"), entry("a < b", "a > b", "x.py"), entry("if ( a", None, "x.py")]
    assert outlived(there, tmp_path) == []
    assert len(outlived([entry("a < c", file="x.py"), entry(file="y.py")], tmp_path)) == 2
    assert outlived([*there, there[0], entry("if ( a", "if a", "x.py")], tmp_path) == [
        "twice: x.py: a < b → a <= b",
        "twice: x.py: if ( a → if a",
    ]


def test_a_reason_is_one_of_two(tmp_path: Path) -> None:
    path = tmp_path / "survivors.toml"
    path.write_text('[[survivor]]\nfile = "x.py"\nbefore = "a"\nwhy = "it is hard"\n')
    with pytest.raises(ValueError, match="the reason is to begin with"):
        load(path)


@pytest.mark.parametrize("status", ["survived", "no tests"])
def test_a_survivor_that_no_entry_covers_is_shown(status: str) -> None:
    for one in (entry("c < d"), entry(after="a > b"), entry(file="vm/dimms.py")):
        unexplained, _ = judge([mutant(status)], [one], whole=False)
        assert len(unexplained) == 1
    for one in (entry(), entry(after="a <= b")):
        assert judge([mutant(status)], [one], whole=True) == ([], [])


@pytest.mark.parametrize("status", ["killed", "timeout"])
def test_an_entry_whose_mutant_is_killed_is_to_go_where_it_was_looked_for(status: str) -> None:
    elsewhere = entry(file="vm/dimms.py")
    assert judge([mutant(status)], [entry(), elsewhere], whole=False) == ([], [entry()])
    assert judge([mutant(status)], [entry(), elsewhere], whole=True) == ([], [entry(), elsewhere])
