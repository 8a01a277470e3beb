"""Demand traces from CSV: a header, a column of seconds, a column per VM.

    seconds,web,db
    0,812,2048
    60,,2110

An empty, unreadable, negative or absurd value (above 16 TiB) is a hole: the value before it holds on, and
before the first value the first one does. Holes are counted and told; empty lines are no lines. Refused are a
time that does not go forward, a column that is not there or there twice, a column of which more than half is
holes, and quotes that do not end.
"""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from host_controller.core.model import LARGEST_MAXIMUM_BYTES
from host_controller.errors import InputError
from host_controller.simulator.text_file import read_text
from host_controller.simulator.workload import Curve, plateaus

MOST_HOLES: Final = 0.5


@dataclass(frozen=True, slots=True)
class Trace:
    """One column of a trace."""

    curve: Curve
    begins: float
    """The time of its first value, seconds."""
    holes: int
    values: int


def read_trace(path: Path, column: str, unit_bytes: int, scale: float = 1.0) -> Trace:
    """One VM's demand, bytes over seconds. `unit_bytes` is what a 1 in the file means.

    Raises:
        InputError: the file cannot be used, with its line and what is allowed.
    """
    rows = _rows(path)
    if len(rows) < 2:
        raise InputError(f"{path}: it has no values", hint="a header and a line per time are needed")
    names = [name.strip() for name in rows[0][1][1:]]
    if column not in names:
        told = f"there are {', '.join(names)}" if names else "commas are to stand between columns"
        raise InputError(f"{path}: no column {column!r}", hint=told)
    if names.count(column) > 1:
        raise InputError(f"{path}: two columns {column!r}", hint="a name for each is needed")
    at = 1 + names.index(column)
    times: list[float] = []
    values: list[float | None] = []
    for line, row in rows[1:]:
        time = _number(row[0])
        if time is None or (times and time <= times[-1]):
            raise InputError(
                f"{path}, line {line}: {row[:1]} is no time after the last", hint="seconds, rising"
            )
        value = _number(row[at]) if at < len(row) else None
        size = None if value is None else value * unit_bytes * scale
        times.append(time)
        values.append(size if size is not None and 0 <= size <= LARGEST_MAXIMUM_BYTES else None)
    known = [value for value in values if value is not None]
    holes = len(values) - len(known)
    if holes > MOST_HOLES * len(values):
        raise InputError(
            f"{path}: {holes} of {len(values)} values of {column!r} are missing, negative or absurd",
            hint="at most half may be",
        )
    last = known[0]
    steps = []
    for time, value in zip(times, values, strict=True):
        last = value if value is not None else last
        steps.append((time, last))
    return Trace(plateaus(steps), times[0], holes, len(values))


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Its lines, with their numbers."""
    reader = csv.reader(io.StringIO(read_text(path, "CSV")), strict=True)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: {error}", hint="is there a quote too many?"
        ) from None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
