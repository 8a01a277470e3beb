"""The list of mutants that survive says why, and is neither too short nor too long."""

from pathlib import Path

import pytest

from tests.mutants.outcome import Mutant
from tests.mutants.survivors import Entry, judge, load


def mutant(status: str, before: str = "a < b", after: str = "a <= b", file: str = "vm/growth.py") -> Mutant:
    return Mutant(file, "Rest.failed", status, (before,), (after,))


def entry(before: str = "a < b", after: str | None = None, file: str = "vm/growth.py") -> Entry:
    return Entry(file, before, after, "equivalent because they are never equal")


def test_every_survivor_of_the_list_has_its_reason() -> None:
    load()


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
