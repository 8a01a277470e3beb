"""Write the tables of BENCHMARKS.md and README.md from bench/results: `python -m bench.tables [--check]`.

A table stands between `<!-- NAME -->` and `<!-- end -->`. So no figure there is typed, and a test says when
one is not what was measured.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from bench.bulk_laws import STEPS
from bench.cells import DEMANDS, HOSTS, Cell, quick_grid, whole_grid
from bench.density import COUNTS, HOSTS_GIB, densities
from bench.fleet_demand import EVEN_SECONDS
from bench.fleet_report import day_rows, places_rows, sampled_rows
from bench.grid_report import CALM_COMMANDS, best_peer, missing, standing, times_behind
from host_controller.simulator.trial import OURS

ROOT: Final = Path(__file__).parent.parent
DOCUMENT: Final = ROOT / "BENCHMARKS.md"
DOCUMENTS: Final = (DOCUMENT, ROOT / "README.md")
RESULTS: Final = Path(__file__).parent / "results"
NAMES: Final = {
    "static": "static: maximum from the start", "proxmox": "Proxmox", "peak": "sized at own peak + 20 %",
    "squeezed": "xapi squeezed", "mom": "oVirt MOM, 10 s", "mom-production": "oVirt MOM, 15 s",
    "qmemman": "Qubes qmemman", "hyperv": "Hyper-V-like", "ghaf": "ghaf", "dynmem": "**dynmem**",
    "adopted": "dynmem, VMs only adopted, no agents",
    "clairvoyant-buffered": "clairvoyant with 20 % buffer, never short",
    "clairvoyant": "clairvoyant without buffer, shares fairly",
    "starving-bound": "any law at all",
}  # fmt: skip
MARK: Final = re.compile(r"(<!-- (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

Rows = Sequence[Sequence[str]]


def table(head: Sequence[str], rows: Rows) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def density() -> str:
    """Every law, counted in every way that was measured; the first way gives the order."""
    kept = json.loads((RESULTS / "density-bitbrains-rnd-2013-07.json").read_text())["vms"]
    means = {
        (count, host): densities(kept, count, host) for count in COUNTS if count in kept for host in HOSTS_GIB
    }
    order = sorted(means["slots", 64], key=lambda name: means["slots", 64][name])
    head = ["law", *(f"{count}, {host} GiB" for count, host in means)]
    return table(head, [[NAMES[name], *_means(name, means.values())] for name in order])


def density_in_short() -> str:
    """What a reader compares first, in the two ways in which what was given counts as used."""
    kept = json.loads((RESULTS / "density-bitbrains-rnd-2013-07.json").read_text())["vms"]
    means = [densities(kept, count, host) for host in HOSTS_GIB for count in ("slots", "mib")]
    apart = ("static", "ghaf", "clairvoyant")
    for found in means:
        found["best"] = max(mean for name, mean in found.items() if name in STEPS and name not in apart)
    named = {
        "static": "fixed sizes",
        "best": "the best of the other laws that share out no more than the host has",
        "ghaf": "one that gives out more than the host has (ghaf)",
        "dynmem": "**dynmem**",
        "clairvoyant": "perfect foresight, shared fairly",
    }
    units = [f"{host} GiB, {what}" for host in HOSTS_GIB for what in ("by time", "by memory")]
    rows = [[text, *_means(name, means)] for name, text in named.items()]
    touched = [densities(kept, "touched", host)["static"] for host in HOSTS_GIB]
    lent = [cell for mean in touched for cell in (f"{mean:.1f}", "–")]
    rows.insert(1, ["the same, where the host lends out what they never touch", *lent])
    return table(["VMs that fit", *units], rows)


def _means(name: str, means: Iterable[Mapping[str, float]]) -> list[str]:
    return [f"{found[name]:.1f}" if name in found else "" for found in means]


def fast() -> str:
    """Every law as published, on each size of host: what is missing, and at what price where it is roomy."""
    hosts = json.loads((RESULTS / "fast.json").read_text())["hosts"]
    shares = sorted(hosts, key=float, reverse=True)
    runs = hosts["1.1"]["runs"]
    names = [name for name in runs if name in ("clairvoyant", OURS) or name.endswith("published")]

    def cell(share: str, name: str) -> str:
        run = hosts[share]["runs"].get(name)
        if run is None:
            return ""
        over = f" + {run['overcommitted_mib_s']:,.0f}" if run["overcommitted_mib_s"] >= 1 else ""
        return f"{run['unmet_mib_s']:,.0f}{over}"

    rows = [
        [
            NAMES[name.split(",")[0]],
            *(cell(share, name) for share in shares),
            f"{runs[name]['footprint']:.2f}",
            f"{runs[name]['churn']:.2f}",
            f"{runs[name]['commands_per_vm_hour']:,.0f}",
        ]
        for name in names
    ]
    sizes = [f"{share} ×" for share in shares]
    return table(["law, as published", *sizes, "footprint at 1.1 ×", "churn", "commands"], rows)


def grid() -> str:
    """By kind of demand and size of host: ours ÷ best peer, the middle and the worst of more than one."""
    cells = _grid_cells()
    rows = []
    for demand in DEMANDS:
        row = [demand]
        for host in HOSTS:
            found = sorted(
                (missing(laws[OURS]) + 100) / (best_peer(laws)[1] + 100)
                for cell, laws in cells.items()
                if (cell.demand, cell.host) == (demand, host)
            )
            worst = f" ({found[-1]:.2f})" if len(found) > 1 else ""
            row.append(f"{found[len(found) // 2]:.2f}{worst}" if found else "")
        rows.append(row)
    return table(["demand", *(f"{host} ×" for host in HOSTS)], rows)


def grid_laws() -> str:
    """Every law: the mean over all cells, with what no peer is judged by there."""
    cells = _grid_cells()
    kinds = ("unmet", "overcommitted", "footprint", "churn", "commands", "distance")
    means = {
        law: {kind: fmean(laws[law][kind] for laws in cells.values() if law in laws) for kind in kinds}
        for law in NAMES
        if any(law in laws for laws in cells.values())
    }
    rows = [
        [
            NAMES[law].removesuffix(", never short"),
            *(f"{found[kind]:,.0f}" for kind in kinds[:2]),
            *(f"{found[kind]:.2f}" for kind in kinds[2:4]),
            f"{found['commands']:,.0f}",
            f"{found['distance']:.1%}",
            str(times_behind(cells, law)),
        ]
        for law, found in sorted(means.items(), key=lambda item: missing(item[1]))
    ]
    head = ["law", "MiB·s unmet", "MiB·s of the host missing", "footprint", "churn", "commands"]
    return table([*head, "from weighted max-min", "cells behind"], rows)


def grid_goals() -> str:
    """What the grid says of the goals."""
    found = standing(_grid_cells())

    def of(count: int) -> str:
        return f"ahead in {count} of {found.cells} cells"

    return table(
        ["goal", "reached"],
        [
            ["no peer ahead by more than a tenth and 100 MiB·s, by what guests touch", of(found.lost)],
            ["the same, of peers that keep to their host's memory", of(found.lost_within)],
            [
                "cells in which that peer is ahead of the clairvoyant that shares by weight, too",
                f"{found.foreseen} of {found.lost}",
            ],
            ["the same, counting all that hosts gave out beyond their memory", of(found.lost_by_promise)],
            ["no peer ahead in 80 %", f"{found.level / found.cells:.0%}"],
            [
                f"at rest at most {CALM_COMMANDS:.0f} commands for an hour of a VM",
                f"{len(found.loud)} of {len(found.calm)} above; at most {max(found.calm.values()):,.0f}",
            ],
            ["no heavier VM lacks more for its weight", f"{len(found.unjust)} of {found.weighted} do"],
        ],
    )


def _grid_cells() -> Mapping[Cell, Mapping[str, Any]]:
    """Of the whole grid where it has been measured, else of the quick one."""
    for name, made in (("grid.json", whole_grid), ("grid-quick.json", quick_grid)):
        path = RESULTS / name
        if path.exists():
            kept = json.loads(path.read_text())["cells"]
            laws = {cell: kept.get(cell.key, {}) for cell in made()}
            return {cell: found for cell, found in laws.items() if OURS in found and len(found) > 1}
    raise FileNotFoundError("no grid has been measured")


TABLES: Final[dict[str, Callable[[], str]]] = {
    "fleet-day": lambda: table(*day_rows()),
    "fleet-even": lambda: table(*day_rows(EVEN_SECONDS)),
    "fleet-places": lambda: table(*places_rows()),
    "fleet-sampled": lambda: table(*sampled_rows()),
    "density": density,
    "density-in-short": density_in_short,
    "fast": fast,
    "grid": grid,
    "grid-goals": grid_goals,
    "grid-laws": grid_laws,
}


def written(text: str) -> str:
    """The document with its tables as they were measured."""
    return MARK.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 1 with --check if a table is not what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    changed = 0
    for document in DOCUMENTS:
        before = document.read_text()
        after = written(before)
        changed |= before != after
        if not options.check:
            document.write_text(after)
    return int(options.check and changed)


if __name__ == "__main__":
    sys.exit(main())
