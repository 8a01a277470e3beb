"""A run of the matrix over several suites: what came of each, how long it took, and how all of it ends."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from lab.code_disk import REPOSITORY
from lab.errors import FetchError, LabError
from lab.matrix.cells import Cell
from lab.matrix.suites import NOT_FETCHED

HOSTS_LOG: Final = REPOSITORY / "build" / "matrix.log"
GUESTS_LOG: Final = REPOSITORY / "build" / "matrix-guests.log"
"""What was said where a cell is not as it should be."""

Play = Callable[[str, list[Cell]], None]
"""Plays a suite, and adds each cell to the list when it is known."""


def run(suites: Sequence[str], play: Play) -> int:
    """Each in turn; says its cells and minutes. Returns what the command ends with.

    That is 1 where a cell is not as it should be or could not be tried, though its suite was had;
    else NOT_FETCHED where a suite was not had; else 0.
    """
    failed = missing = False
    begun = time.monotonic()
    for name in suites:
        seen: list[Cell] = []
        started = time.monotonic()
        try:
            play(name, seen)
        except LabError as error:
            missing |= isinstance(error, FetchError)
            failed |= not isinstance(error, FetchError)
            print(f"✗ {name}: {error}", file=sys.stderr)
        passed = sum(cell.passed for cell in seen)
        # What was not fetched for a later cell excuses none that was red before.
        failed |= passed < len(seen)
        print(f"{name}: {passed} of {len(seen)} cells, {_minutes_since(started)}", flush=True)
    if len(suites) > 1:
        print(f"{len(suites)} suites, {_minutes_since(begun)}")
    return 1 if failed else NOT_FETCHED if missing else 0


def _minutes_since(start: float) -> str:
    return f"{(time.monotonic() - start) / 60:.1f} min"
