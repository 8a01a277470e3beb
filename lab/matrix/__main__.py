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
import time
from collections.abc import Sequence
from typing import Final

from lab.code_disk import REPOSITORY
from lab.errors import FetchError, LabError
from lab.image import ensure_image
from lab.matrix import cells, table
from lab.matrix.roots import built_packages, entered, host_root
from lab.matrix.suites import NOT_FETCHED, SUITES, Suite
from lab.progress import Progress

LOG: Final = REPOSITORY / "build" / "matrix.log"


def main() -> int:
    """See above."""
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
    failed = missing = False
    for name in wanted:
        try:
            failed |= not _try(SUITES[name], names, not arguments.no_table)
        except LabError as error:
            missing |= isinstance(error, FetchError)
            failed |= not isinstance(error, FetchError)
            print(f"✗ {name}: {error}", file=sys.stderr)
    return 1 if failed else NOT_FETCHED if missing else 0


def _try(suite: Suite, names: Sequence[str], write: bool) -> bool:
    begun = time.monotonic()
    with Progress(suite.name) as progress:
        progress.step("guest image")
        ensure_image()
        progress.step("packages")
        packages = built_packages(suite)
        progress.step("a host without dynmem")
        with entered(suite, host_root(suite)) as root:
            versions = cells.versions(root)
            progress.step(versions)
            seen = []
            for cell in cells.play(root, packages, names, _log):
                seen.append(cell)
                progress.step(f"{'✓' if cell.passed else '✗'} {cell.name}: {cell.said or f'see {LOG}'}")
    minutes = (time.monotonic() - begun) / 60
    if write:
        table.write(suite.name, versions, seen, whole=len(names) == len(cells.NAMES))
    print(f"{suite.name}: {sum(cell.passed for cell in seen)} of {len(seen)} cells, {minutes:.1f} min")
    return all(cell.passed for cell in seen)


def _log(text: str) -> None:
    with LOG.open("a", encoding="utf-8") as log:
        log.write(text)


if __name__ == "__main__":
    sys.exit(main())
