"""What BENCHMARKS.md and README.md say was measured is what was measured."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import tables
from bench.cells import DEMANDS, GROWTHS, HOSTS, VMS, WEIGHTS, Cell, mean_need, quick_grid, whole_grid
from bench.grid_report import behind, best_peer, missing, times_behind, unfair
from bench.real import plots
from bench.real.harness import RESULTS, ratios_of
from host_controller.units import MIB

REAL = tables.DOCUMENT.parent / "bench" / "real"


def test_the_tables_are_those_of_the_results() -> None:
    texts = [document.read_text() for document in tables.DOCUMENTS]
    assert set(tables.TABLES) == {found[2] for text in texts for found in tables.MARK.finditer(text)}
    assert [tables.written(text) for text in texts] == texts, "python -m bench.tables"


def test_every_picture_is_there() -> None:
    folder = tables.DOCUMENT.parent
    named = [
        line.split("](")[1].rstrip(")")
        for line in tables.DOCUMENT.read_text().splitlines()
        if line[:2] == "!["
    ]
    assert [name for name in named if not (folder / name).exists()] == []


@pytest.mark.parametrize("name", plots.FIGURES)
def test_every_benchmark_that_has_a_picture_is_drawn_and_shown(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.json").write_text((RESULTS / f"{name}.json").read_text())
    plots.draw(name, tmp_path)
    assert (tmp_path / f"{name}.png").stat().st_size > 0
    assert f"](bench/results/real/{name}.png)" in tables.DOCUMENT.read_text()


def test_the_quick_grid_is_a_part_of_the_whole_one() -> None:
    whole = {cell.key for cell in whole_grid()}
    assert len(whole) == 4 * 3 * 14 * 2 * 3
    assert {cell.key for cell in quick_grid()} <= whole


@pytest.mark.parametrize("side", ["demand", "host"])
def test_the_quick_grid_has_every_demand_on_every_host_and_each_of_both_in_every_way(side: str) -> None:
    cells = list(quick_grid())
    assert len({(cell.demand, cell.host) for cell in cells}) == len(cells) == len(DEMANDS) * len(HOSTS)
    for one in DEMANDS if side == "demand" else HOSTS:
        mine = [cell for cell in cells if getattr(cell, side) == one]
        assert {cell.growth for cell in mine} == set(GROWTHS)
        assert {cell.weights for cell in mine} == set(WEIGHTS)
        assert {4, 12} <= {cell.vms for cell in mine}
    assert {cell.vms for cell in cells} == set(VMS)


def test_a_cell_has_the_share_of_memory_that_it_says() -> None:
    cell = Cell(0.9, 4, "saw 60 s ± 30 %", "1:10:100", "hotadd")
    trial = cell.trial()
    assert abs(trial.capacity_bytes / mean_need(trial) - 0.9) < 0.001
    assert [vm.spec.limits.weight for vm in trial.vms] == [1, 10, 100, 1]
    programs = [vm.spec.workload.anonymous.at(100.0) / MIB for vm in trial.vms]
    assert len(set(programs)) == 4, "out of phase"


def figures(unmet: float, overcommitted: float = 0.0, promised: float = 0.0) -> dict[str, float]:
    return {"unmet": unmet, "overcommitted": overcommitted, "promised": promised}


def test_the_best_peer_shares_its_host_and_does_not_know_the_future() -> None:
    laws = {
        "dynmem": figures(1000),
        "static": figures(0),
        "clairvoyant": figures(0),
        "ghaf": figures(0, 900, 5000),
        "hyperv": figures(950),
    }
    assert best_peer(laws) == ("ghaf", 900)
    assert best_peer(laws, "promised") == ("hyperv", 950)
    assert missing(laws["ghaf"], "promised") == 5000


def test_each_law_is_behind_its_own_peers_and_ours_is_one_of_theirs() -> None:
    cell, laws = Cell(0.9, 4, "ramps", "equal", "balloon"), {"dynmem": figures(1000), "ghaf": figures(2000)}
    found = {cell: laws | {"clairvoyant": figures(0), "hyperv": figures(1950)}}
    behind_in = {law: times_behind(found, law) for law in found[cell]}
    assert behind_in == {"dynmem": 0, "ghaf": 1, "clairvoyant": 0, "hyperv": 1}
    found[cell]["ghaf"] = figures(500)
    assert times_behind(found, "dynmem") == 1


def test_a_tenth_or_100_mib_seconds_are_not_behind() -> None:
    assert not behind(1090, 1000)
    assert not behind(99, 0)
    assert behind(1101, 990)


def test_a_heavier_vm_that_lacks_more_for_its_weight_is_unfair() -> None:
    assert not unfair({"unmet_by_weight": {"1": 500.0, "10": 600.0, "100": 0.0}})
    assert unfair({"unmet_by_weight": {"1": 0.0, "10": 600.0, "100": 0.0}})


def test_results_stand_in_the_repository() -> None:
    assert Path(tables.RESULTS, "fast.json").exists()


def measured(module: str) -> Iterator[str]:
    """The names of the ratios that a benchmark on real guests keeps, as patterns."""
    tree = ast.parse((REAL / f"{module}.py").read_text())
    assigned = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(ast.Attribute(attr="ratios"), ast.Name(name)):
                yield pattern(assigned[name])
            case ast.Subscript(ast.Attribute(attr="ratios"), key):
                yield pattern(key)
            case ast.Assign([ast.Attribute(attr="ratios")], ast.Dict(keys)):
                yield from (pattern(key) for key in keys if key is not None)
            case ast.ImportFrom(str(source)) if source in ("bench.real.impact", "bench.real.evenness"):
                yield from measured(source.rpartition(".")[2])


def pattern(name: ast.expr) -> str:
    match name:
        case ast.Constant(str(text)):
            return re.escape(text)
        case ast.JoinedStr(parts):
            return "".join(pattern(one) for one in parts)
    return ".+"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_what_bench_check_compares_with_has_the_names_of_today(path: Path) -> None:
    """A ratio that a benchmark calls otherwise now is none that it can be compared with."""
    names = list(measured(path.stem))
    assert [one for one in ratios_of(path) if not any(re.fullmatch(name, one) for name in names)] == []
