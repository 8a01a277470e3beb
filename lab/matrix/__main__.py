"""`make matrix`: this tree's packages on hosts of several Debian releases; writes docs/compatibility.md.

    make matrix                 every suite
    make matrix SUITE=trixie    one
    make matrix SUITE=trixie CELL="hot remove"  one of its cells; the others stay as they are

Exit 1 where a cell is not as it should be, 75 where a suite could not be had. What was said lies in
build/matrix.log.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from lab.image import ensure_image
from lab.matrix import cells, runs, table
from lab.matrix.roots import built_packages, entered, host_root
from lab.matrix.suites import SUITES
from lab.progress import Progress

LOG: Final = runs.HOSTS_LOG


def main() -> int:
    """Do what the module's text says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--cell", choices=cells.NAMES, help="this one alone, once the package is installed")
    parser.add_argument("--no-table", action="store_true", help="write nothing of what was seen")
    arguments = parser.parse_args()
    wanted = arguments.suites or list(SUITES)
    names = [arguments.cell] if arguments.cell else cells.NAMES
    if unknown := set(wanted) - SUITES.keys():
        parser.error(f"no suite is called {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    if os.geteuid() != 0:
        parser.error("namespaces with a root of their own need root: sudo make matrix")
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    return runs.run(wanted, partial(_play, names=names, write=not arguments.no_table))


def _play(name: str, seen: list[cells.Cell], *, names: Sequence[str], write: bool) -> None:
    suite = SUITES[name]
    with Progress(name) as progress, ThreadPoolExecutor(1) as beside:
        progress.step("guest image")
        ensure_image()
        progress.step("packages, and a host without dynmem")
        # Each takes about a minute of one processor where nothing of it is cached.
        host = beside.submit(host_root, suite)
        packages = built_packages(suite)
        with entered(suite, host.result()) as root:
            versions = cells.versions(root)
            progress.step(versions)
            for cell in cells.play(root, packages, names, _log):
                seen.append(cell)
                progress.step(f"{'✓' if cell.passed else '✗'} {cell.name}: {cell.said or f'see {LOG}'}")
    if write:
        table.write(name, versions, seen, whole=len(names) == len(cells.NAMES))


def _log(text: str) -> None:
    with LOG.open("a", encoding="utf-8") as log:
        log.write(text)


if __name__ == "__main__":
    sys.exit(main())
