"""Every law on every kind of host: `python -m bench.grid [--quick]`, or `make bench-grid` (QUICK=1).

Each cell is one host for five minutes after a minute's warm-up, under our engine and under every peer as
published. What was measured is kept in bench/results and not measured again while nothing that it depends on
has changed: the simulator, and for ours the engine. So it can be stopped and resumed, and after a change of
the law only ours is measured anew.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final

from bench.cells import Cell, quick_grid, whole_grid
from bench.grid_report import report
from host_controller.simulator.laws import LAWS
from host_controller.simulator.trial import OURS, Result, play

RESULTS: Final = Path(__file__).parent / "results"
SOURCES: Final = Path(__file__).parent.parent
MEASURED: Final = (OURS, *LAWS)
SAVE_EVERY_SECONDS: Final = 20.0
STOPPED: Final = 130
"""As a shell has it of a program that Ctrl-C ended."""

UNSEEN: Final = {"checker.py", "checker_sizes.py", "shown.py", "scenario.py", "what_if.py"}
"""Parts of the simulator that no figure depends on."""

Figures = dict[str, Any]


def fingerprint(law: str) -> str:
    """Of all that a law's figures depend on."""
    folders = ("simulator", "core") if law == OURS else ("simulator",)
    digest = hashlib.sha256()
    sources = [path for folder in folders for path in (SOURCES / "host_controller" / folder).rglob("*.py")]
    paths = [SOURCES / "bench" / "cells.py", *(path for path in sources if path.name not in UNSEEN)]
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def measure(cell: Cell, law: str) -> Figures:
    """One law in one cell. QEMU's own memory is counted for nobody."""
    return figures(play(cell.trial(), None if law == OURS else LAWS[law]))


def figures(result: Result) -> Figures:
    """What is kept of a run."""
    by_weight: dict[str, list[float]] = {}
    for vm in result.vms:
        by_weight.setdefault(str(vm.weight), []).append(vm.unmet_mib_seconds)
    return {
        "unmet": round(result.unmet_mib_seconds, 1),
        "overcommitted": round(result.overcommitted_mib_seconds, 1),
        "promised": round(result.promised_mib_seconds, 1),
        "footprint": round(result.footprint, 4),
        "churn": round(result.churn, 3),
        "commands": round(result.commands_per_vm_hour, 1),
        "distance": round(result.distance, 5),
        "unmet_by_weight": {weight: round(sum(all_) / len(all_), 1) for weight, all_ in by_weight.items()},
    }


class Store:
    """What has been measured, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.marks = {law: fingerprint(law) for law in MEASURED}
        told = json.loads(path.read_text()) if path.exists() else {}
        kept = {law for law, mark in told.get("fingerprints", {}).items() if self.marks.get(law) == mark}
        self.cells: dict[str, dict[str, Figures]] = {
            key: {law: one for law, one in laws.items() if law in kept}
            for key, laws in told.get("cells", {}).items()
        }
        self._saved_at = time.monotonic()

    def add(self, cell: Cell, law: str, found: Figures) -> None:
        """Keep it; to the disk every now and then."""
        self.cells.setdefault(cell.key, {})[law] = found
        if time.monotonic() - self._saved_at > SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """To the disk, whole or not at all."""
        self.path.parent.mkdir(exist_ok=True)
        whole = {"fingerprints": self.marks, "cells": self.cells}
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(whole, indent=0, sort_keys=True) + "\n")
        beside.replace(self.path)
        self._saved_at = time.monotonic()


def run(cells: Iterable[Cell], laws: Sequence[str], store: Store, jobs: int) -> None:
    """Measure what is missing, cell by cell: where it is stopped, what it has can be compared."""
    missing = [(cell, law) for cell in cells for law in laws if law not in store.cells.get(cell.key, {})]
    began = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        tasks = {pool.submit(measure, cell, law): (cell, law) for cell, law in missing}
        try:
            for count, task in enumerate(as_completed(tasks), 1):
                store.add(*tasks[task], task.result())
                if count % 200 == 0:
                    told = f"{count} of {len(missing)}, {time.monotonic() - began:.0f} s"
                    print(told, file=sys.stderr, flush=True)
        finally:
            # Stopped by hand: what is measured is kept, and the rest is not waited for.
            store.save()
            pool.shutdown(cancel_futures=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 1 when a goal is missed, 130 when it is stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="every demand on every host once")
    parser.add_argument("--only", nargs="*", default=[], help="cells whose key holds all of these")
    parser.add_argument("--laws", nargs="*", default=list(MEASURED), choices=MEASURED)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--worst", type=int, default=15, help="cells to print")
    options = parser.parse_args(arguments)
    chosen = quick_grid() if options.quick else whole_grid()
    cells = [cell for cell in chosen if all(part in cell.key for part in options.only)]
    store = Store(RESULTS / ("grid-quick.json" if options.quick else "grid.json"))
    try:
        run(cells, options.laws, store, options.jobs)
    except KeyboardInterrupt:
        print("stopped: what has been measured is kept, and the next run goes on there", file=sys.stderr)
        return STOPPED
    return report({cell: store.cells[cell.key] for cell in cells}, options.worst)


if __name__ == "__main__":
    sys.exit(main())
