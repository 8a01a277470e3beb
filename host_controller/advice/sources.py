"""Recorded pasts from where they lie: the history file, or exports of other hosts' VMs as JSON lines.
Blocking.
"""

import json
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from host_controller.advice.past import Past, past_of
from host_controller.errors import InputError
from host_controller.records.history_reading import Reading
from host_controller.records.history_schema import UNREADABLE
from host_controller.records.stored_limits import StoredLimits, limits_of
from host_controller.records.tiers import Span, could_be

LONGEST_LINE: Final = 1 << 20
MOST_SPANS: Final = 2_000_000
_NUMBERS: Final = ("at", "seconds", "known_seconds", "tight_seconds")
_SIZES: Final = (
    "assigned_bytes", "assigned_largest_bytes", "charge_bytes", "usable_bytes", "demand_bytes",
    "demand_largest_bytes", "need_largest_bytes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recorded:
    """One VM as it was written down."""

    uuid: str
    name: str
    limits: StoredLimits | None
    spans: list[Span]
    """Minutes, or hours where there is nothing finer; oldest first."""
    reboots: int = 0


def pasts_in(paths: Sequence[Path], since: float) -> list[Past]:
    """Every VM in these files from `since` (seconds since 1970) on; the first one of a UUID counts.

    Raises:
        InputError: a file is neither a history nor an export, with what is wrong.
    """
    found = (
        past_of(one.uuid, one.name, one.limits, one.spans, one.reboots) for one in recorded(paths, since)
    )
    return [one for one in found if one is not None]


def recorded(paths: Sequence[Path], since: float, *, by_hour: bool = False) -> list[Recorded]:
    """The same as it was written. by_hour: of a history file the hours, which reach further back.

    Raises:
        InputError: as above.
    """
    found: dict[str, Recorded] = {}
    for path in paths:
        for one in _read(path, since, by_hour):
            found.setdefault(one.uuid, one)
    return list(found.values())


def _read(path: Path, since: float, by_hour: bool) -> list[Recorded]:
    try:
        # Before it is opened: a pipe waits for who writes, and cannot be read from its beginning again.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: it is no ordinary file", hint="write it into one, and name that")
        with path.open("rb") as stream:
            begin = stream.read(16)
    except FileNotFoundError as error:
        hint = "the controller keeps one where it runs; --history names another file"
        raise InputError(f"{path}: {error.strerror}", hint=hint) from None
    except OSError as error:
        hint = "the history is for its owner: ask as root"
        raise InputError(f"{path}: {error.strerror}", hint=hint) from None
    if begin.startswith(b"SQLite format 3"):
        return _from_file(path, since, by_hour)
    return _from_export(path, since)


def _from_file(path: Path, since: float, by_hour: bool) -> list[Recorded]:
    try:
        reading = Reading(path)
    except UNREADABLE as error:
        raise InputError(f"{path}: {error}", hint="name a history file, or an export") from None
    try:
        found = []
        for vm in reading.vms():
            spans = [] if by_hour else reading.minutes(vm.uuid, since)
            reboots = sum(one.topic == "reset" for one in reading.entries(vm.uuid, since))
            spans = spans or reading.hours(vm.uuid, since)
            found.append(Recorded(vm.uuid, vm.name, vm.limits, spans, reboots))
        return found
    except UNREADABLE as error:
        raise InputError(f"{path}: {error}", hint="name a history file, or an export") from None
    finally:
        reading.close()


def _from_export(path: Path, since: float) -> list[Recorded]:
    """One VM, or several one after the other."""
    found: list[Recorded] = []
    vm: tuple[str, str, StoredLimits | None] | None = None
    spans: list[Span] = []
    reboots = 0

    def finish() -> None:
        if vm is not None:
            found.append(Recorded(*vm, _in_order(spans), reboots))

    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE):
            number += 1
            row = _row(line, f"{path}, line {number}")
            if "dynmem-history" in row:
                finish()
                vm, spans, reboots = _vm(row, f"{path}, line {number}"), [], 0
            elif vm is None:
                raise InputError(f"{path}: it begins with no VM", hint="write it with --export jsonl")
            elif "span" in row:
                span = _span(row["span"])
                if span is None:
                    raise InputError(
                        f"{path}, line {number}: a minute that makes no sense", hint="export it again"
                    )
                if span.at >= since and len(spans) < MOST_SPANS:
                    spans.append(span)
            elif "event" in row:
                reboots += isinstance(row["event"], dict) and row["event"].get("topic") == "reset"
            elif "sample" in row:
                raise InputError(f"{path}: it is an export in detail", hint="export it with --step minute")
    finish()
    return found


def _in_order(spans: list[Span]) -> list[Span]:
    """Each minute once, whatever the clock did."""
    return list({one.at: one for one in sorted(spans, key=lambda one: one.at)}.values())


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise InputError(f"{where}: it is no JSON object", hint="write it with --export jsonl")
    return row


def _vm(row: dict[str, Any], where: str) -> tuple[str, str, StoredLimits | None]:
    uuid, name = row.get("uuid"), row.get("name")
    if row["dynmem-history"] != 1 or not isinstance(uuid, str) or not isinstance(name, str):
        raise InputError(f"{where}: it is no export of version 1", hint="write it with --export jsonl")
    return uuid, name, limits_of(row.get("limits"))


def _span(row: Any) -> Span | None:
    if not isinstance(row, dict):
        return None
    times: list[Any] = [row.get(name) for name in _NUMBERS]
    sizes = [row.get(name) for name in _SIZES]
    if not all(isinstance(one, int | float) and 0 <= one < 1e12 for one in times) or not could_be(*times):
        return None
    if not all(one is None or (isinstance(one, int) and 0 <= one < 1 << 50) for one in sizes):
        return None
    return Span._make((*times, *sizes, None))
