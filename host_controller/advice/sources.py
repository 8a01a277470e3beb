"""Recorded pasts from where they lie: the history file, or exports of other hosts' VMs as JSON lines.
Blocking.
"""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from host_controller.advice.past import Past, past_of
from host_controller.errors import InputError
from host_controller.records.history_reading import Reading
from host_controller.records.stored_limits import StoredLimits, read_limits
from host_controller.records.tiers import Span

LONGEST_LINE: Final = 1 << 20
MOST_SPANS: Final = 2_000_000
_NUMBERS: Final = ("at", "seconds", "known_seconds", "tight_seconds")
_SIZES: Final = (
    "assigned_bytes", "assigned_largest_bytes", "charge_bytes", "usable_bytes", "demand_bytes",
    "demand_largest_bytes", "need_largest_bytes",
)  # fmt: skip


def pasts_in(paths: Sequence[Path], since: float) -> list[Past]:
    """Every VM in these files from `since` (seconds since 1970) on; the first one of a UUID counts.

    Raises:
        InputError: a file is neither a history nor an export, with what is wrong.
    """
    found: dict[str, Past] = {}
    for path in paths:
        for past in _pasts(path, since):
            found.setdefault(past.uuid, past)
    return list(found.values())


def _pasts(path: Path, since: float) -> list[Past]:
    try:
        with path.open("rb") as stream:
            begin = stream.read(16)
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}", hint="the history is for its owner: ask as root"
        ) from None
    return _from_file(path, since) if begin.startswith(b"SQLite format 3") else _from_export(path, since)


def _from_file(path: Path, since: float) -> list[Past]:
    try:
        reading = Reading(path)
    except sqlite3.Error as error:
        raise InputError(f"{path}: {error}", hint="name a history file, or an export") from None
    try:
        found = []
        for vm in reading.vms():
            spans = reading.minutes(vm.uuid, since) or reading.hours(vm.uuid, since)
            reboots = sum(one.topic == "reset" for one in reading.entries(vm.uuid, since))
            past = past_of(vm.uuid, vm.name, vm.limits, spans, reboots)
            if past is not None:
                found.append(past)
        return found
    finally:
        reading.close()


def _from_export(path: Path, since: float) -> list[Past]:
    """One VM, or several one after the other."""
    found: list[Past] = []
    vm: tuple[str, str, StoredLimits | None] | None = None
    spans: list[Span] = []
    reboots = 0

    def finish() -> None:
        past = None if vm is None else past_of(*vm, _in_order(spans), reboots)
        if past is not None:
            found.append(past)

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
    return uuid, name, read_limits(msgspec.json.encode(row.get("limits")))


def _span(row: Any) -> Span | None:
    if not isinstance(row, dict):
        return None
    times = [row.get(name) for name in _NUMBERS]
    sizes = [row.get(name) for name in _SIZES]
    if not all(isinstance(one, int | float) and 0 <= one < 1e12 for one in times):
        return None
    if not all(one is None or (isinstance(one, int) and 0 <= one < 1 << 50) for one in sizes):
        return None
    return Span._make((*times, *sizes, None))
