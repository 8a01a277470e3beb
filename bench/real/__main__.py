"""`make bench`: run the set, print its tables, keep results and plots. `--only NAME …` runs a part of it.

With `--check` nothing is written: the exit code is 1 if a ratio against the run's own floor is worse than the
committed one by more than a quarter.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from typing import Final

from bench.real import plots
from bench.real.harness import RESULTS, TOLERANCE, Result, ratios_of, warm_up

SET: Final = ("scale", "small", "actuation", "reaction", "evenness", "impact", "survival")
"""In this order: what needs no guests comes first."""
APART: Final = (
    "operator",
    "pages",
    "memory",
    "giver",
    "agents",
    "price",
    "sampled",
    "growth",
    "counted",
    "counted_four",
)
"""Run by themselves."""
GUESTLESS: Final = ("scale", "operator", "pages")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.real", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=(*SET, *APART), default=SET, metavar="NAME")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    worse: list[str] = []
    if not set(options.only) <= set(GUESTLESS):
        warm_up()
    for name in options.only:
        began = time.monotonic()
        result: Result = importlib.import_module(f"bench.real.{name}").run()
        result.seconds = time.monotonic() - began
        print(result.text(), flush=True)
        if options.check:
            worse += regressions(result)
        else:
            result.save()
            plots.draw(name)
    for line in worse:
        print(f"WORSE {line}")
    return int(bool(worse))


def regressions(result: Result) -> list[str]:
    """Sentences about the ratios that are worse than the committed ones by more than the tolerance."""
    committed_file = RESULTS / f"{result.name}.json"
    if not committed_file.exists():
        return [f"{result.name}: there are no committed figures to compare with"]
    told = []
    for name, committed in ratios_of(committed_file).items():
        found = result.ratios.get(name)
        if found is None:
            told.append(f"{result.name}: {name} was not measured")
        elif (by := found.worse_by(committed)) > TOLERANCE:
            was = f"{by:.0%} worse than the committed {committed.value:.3g}"
            told.append(f"{result.name}: {name} is {found.value:.3g}, {was}")
    return told


if __name__ == "__main__":
    sys.exit(main())
