"""The grid goes on where it was stopped, and measures anew only what a change may have changed."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import grid
from bench.cells import Cell

FIRST, SECOND = Cell(1.1, 4, "noise 1 %"), Cell(0.9, 12, "bursts", "1:10:100", "hotadd")
LAWS = ("dynmem", "static")

Pairs = set[tuple[str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Pairs:
    """What is measured, cell and law; here it takes no time."""
    pairs: Pairs = set()

    def measure(cell: Cell, law: str) -> grid.Figures:
        pairs.add((cell.key, law))
        return {"unmet": float(cell.vms)}

    monkeypatch.setattr(grid, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(grid, "measure", measure)
    monkeypatch.setattr(grid, "fingerprint", lambda law: f"{law} of today")
    return pairs


def measured(path: Path, *cells: Cell) -> grid.Store:
    store = grid.Store(path)
    grid.run(cells, LAWS, store, 1)
    return store


def test_what_was_measured_before_it_was_stopped_is_not_measured_again(asked: Pairs, tmp_path: Path) -> None:
    measured(tmp_path / "grid.json", FIRST)
    asked.clear()
    found = measured(tmp_path / "grid.json", FIRST, SECOND).cells
    assert asked == {(SECOND.key, law) for law in LAWS}
    assert found == {cell.key: {law: {"unmet": cell.vms} for law in LAWS} for cell in (FIRST, SECOND)}


def test_after_a_change_of_ours_no_peer_is_measured_again(
    asked: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(tmp_path / "grid.json", FIRST)
    asked.clear()
    monkeypatch.setattr(
        grid, "fingerprint", lambda law: f"{law} of {'tomorrow' if law == grid.OURS else 'today'}"
    )
    measured(tmp_path / "grid.json", FIRST)
    assert asked == {(FIRST.key, grid.OURS)}


def test_who_stops_it_is_told_that_it_goes_on_there(
    asked: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 0

    def measure(cell: Cell, law: str) -> grid.Figures:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return {"unmet": 0.0}

    monkeypatch.setattr(grid, "measure", measure)
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    assert grid.main(["--only", "4 VMs / noise 1 %", "--laws", *LAWS, "--jobs", "1"]) == grid.STOPPED
    assert "the next run goes on there" in capsys.readouterr().err
    kept = grid.Store(tmp_path / "grid.json").cells
    assert sum(len(laws) for laws in kept.values()) == 2
