"""Answers about what is longer ago than memory reaches, from the history file. Blocking."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from host_controller.api.schema.history import (
    ChartLine,
    ChartView,
    EntryView,
    HistoryView,
    MomentView,
    MomentVmView,
    SpanView,
)
from host_controller.api.views import sample_view
from host_controller.records.history_reading import Reading, StoredEntry, StoredVm, Table
from host_controller.records.history_schema import UNREADABLE
from host_controller.records.marks import mark_of
from host_controller.records.samples import Sample
from host_controller.records.tier_file import STORED_HOLDS
from host_controller.records.tiers import HOUR, MINUTE, Span

Step = Literal["detail", "minute", "hour"]
STEPS: Final[dict[str, Step | None]] = {"auto": None, "detail": "detail", "minute": "minute", "hour": "hour"}
"""What may be asked for; None is the finest one in which so long a time is kept."""
_DAY: Final = 86400.0
DETAIL_SECONDS: Final = 7 * _DAY
MOST_ROWS: Final = 200_000
"""Of one answer, which is some 60 MB. What is kept by default, as finely as `auto` tells it, is half of that;
years of detail would be all of the controller's memory.
"""
MINUTES_SECONDS: Final = 35 * _DAY


class TooMuch(Exception):  # noqa: N818 # read as what happened
    """An answer would be too large."""


def step_for(seconds: float) -> Step:
    """The finest step in which so long a time is kept by default."""
    if seconds <= DETAIL_SECONDS:
        return "detail"
    return "minute" if seconds <= MINUTES_SECONDS else "hour"


def one_in(seconds: float, step: Step, points: int) -> int:
    """Of how many minutes or hours one is told: so many seconds have no more than `points`; 0: all."""
    unit = {"detail": seconds, "minute": MINUTE, "hour": HOUR}[step]
    return max(1, math.ceil(seconds / unit / points)) if points and unit else 1


def read_stored(
    path: Path, wanted: str, since: float, step: Step = "detail", one_in: int = 1
) -> bytes | None:
    """A HistoryView in JSON of a VM by name or UUID, from `since` (seconds since 1970) on; None: nothing is
    known of it, or the file cannot be read.

    one_in: of so many minutes or hours only the one in which it had most.

    Raises:
        TooMuch
    """

    def view(reading: Reading) -> HistoryView | None:
        found = reading.find(wanted)
        if found is None:
            return None
        uuid, name = found
        tables: dict[Step, Table] = {"detail": "samples", "minute": "minutes", "hour": "hours"}
        rows = reading.count(tables[step], uuid, since) // one_in + reading.count("entries", uuid, since)
        if rows > MOST_ROWS:
            raise TooMuch(f"that is {rows} figures and events, and no answer has more than {MOST_ROWS}")
        samples = reading.samples(uuid, since) if step == "detail" else []
        spans = _spans(reading, uuid, since, step, one_in)
        entries = [_entry(one, reading) for one in reading.entries(uuid, since)]
        return HistoryView(
            uuid=uuid,
            name=name,
            step=step,
            limits=next((one.limits for one in reading.vms() if one.uuid == uuid), None),
            samples=[sample_view(sample, sample.at) for sample in samples],
            spans=[span_view(one) for one in spans],
            entries=entries,
            damaged=reading.damaged,
        )

    return _answer(path, view)


def _answer(path: Path, view: Callable[[Reading], msgspec.Struct | None]) -> bytes | None:
    """A view of the file in JSON; None where there is none. A file that cannot be read is no error: history
    is never worth that.
    """
    try:
        reading = Reading(path)
    except UNREADABLE:
        return None
    try:
        found = view(reading)
    except UNREADABLE:
        return None
    finally:
        reading.close()
    return None if found is None else msgspec.json.encode(found) + b"\n"


class Spread(NamedTuple):
    """How a long time is told in a chart: so many buckets of so many minutes or hours."""

    tier: Literal["minutes", "hours"]
    buckets: int
    units: int


CHARTS: Final = {
    "1d": Spread("minutes", 96, 15),
    "7d": Spread("hours", 84, 2),
    "365d": Spread("hours", 73, 120),
}
"""The hour is not among them: memory has it, and finer."""


def read_chart(path: Path, spread: Spread, now: float) -> bytes | None:
    """A ChartView in JSON of what every VM had, up to `now` (seconds since 1970); None: it cannot be read."""
    unit = MINUTE if spread.tier == "minutes" else HOUR
    first = int(now // unit) + 1 - spread.buckets * spread.units
    at = [unit * (first + spread.units * (one + 0.5)) for one in range(spread.buckets)]

    def view(reading: Reading) -> ChartView:
        found = reading.assigned(spread.tier, first, spread.buckets, spread.units)
        return ChartView(at=at, vms=[ChartLine(uuid=uuid, assigned_bytes=had) for uuid, had in found.items()])

    return _answer(path, view)


def read_moment(path: Path, at: float) -> bytes | None:
    """A MomentView in JSON of a time, seconds since 1970; None if the file cannot be read."""

    def view(reading: Reading) -> MomentView:
        return MomentView(at=at, vms=[_moment_vm(*one) for one in reading.at_moment(at, STORED_HOLDS)])

    return _answer(path, view)


def _moment_vm(vm: StoredVm, sample: Sample, irreducible: int | None) -> MomentVmView:
    return MomentVmView(
        uuid=vm.uuid,
        name=vm.name,
        seen_at=sample.at,
        weight=100 if vm.limits is None else vm.limits.weight,
        assigned_bytes=sample.assigned_bytes,
        demand_bytes=sample.demand_bytes,
        lower_bytes=irreducible,
        need_bytes=sample.need_bytes,
        desired_bytes=sample.desired_bytes,
        goal_bytes=sample.goal_bytes,
    )


def span_view(span: Span) -> SpanView:
    """The view of a minute or an hour."""
    percentiles = span.demand_percentiles
    figures = span._asdict() | {"demand_percentiles": None if percentiles is None else list(percentiles)}
    return SpanView(**figures)


def _spans(reading: Reading, uuid: str, since: float, step: Step, one_in: int) -> list[Span]:
    match step:
        case "detail":
            return []
        case "minute":
            return reading.minutes(uuid, since, one_in)
        case "hour":
            return reading.hours(uuid, since, one_in)


def _entry(one: StoredEntry, reading: Reading) -> EntryView:
    try:
        detail = msgspec.json.decode(one.detail, type=dict[str, Any]) if one.detail else {}
    except (ValueError, msgspec.DecodeError, RecursionError):
        reading.damaged += 1
        detail = {}
    return EntryView(
        number=one.number,
        at=one.at,
        kind=one.kind,  # type: ignore[arg-type] # looked at by the reading
        topic=one.topic,
        vm=one.vm,
        name=one.name,
        text=one.text,
        detail=detail,
        mark=mark_of(one.kind, one.topic, one.text),
    )
