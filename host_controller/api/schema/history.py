"""What was: samples, spans, events, moments and charts."""

from typing import Any, Literal

import msgspec

from host_controller.api.schema.answers import View
from host_controller.records.stored_limits import StoredLimits


class SampleView(View, frozen=True, kw_only=True, gc=False):
    """A VM's figures at one moment."""

    at: float
    assigned_bytes: int | None
    demand_bytes: int | None
    need_bytes: int | None
    desired_bytes: int | None
    goal_bytes: int | None
    target_bytes: int | None
    actual_bytes: int | None
    charge_bytes: int | None
    pressure_percent: float
    phase: str
    report_age_seconds: float | None


class SpanView(View, frozen=True, kw_only=True, gc=False):
    """A VM in one minute or one hour: means, but where it says otherwise."""

    at: float
    """When it begins."""
    seconds: float
    """How long the VM was seen in it; what is missing is a gap."""
    known_seconds: float
    """How long its demand was known."""
    tight_seconds: float
    """How long it had nothing to spare: then its demand is a lower bound."""
    assigned_bytes: int | None
    assigned_largest_bytes: int | None
    charge_bytes: int | None
    usable_bytes: int | None
    demand_bytes: int | None
    demand_largest_bytes: int | None
    need_largest_bytes: int | None
    demand_percentiles: list[int] | None = None
    """Of an hour: the 5th, 25th, 50th, 75th and 95th percentile of its minutes' largest demand."""


class HistoryView(View, frozen=True, kw_only=True, gc=False):
    """What became of one VM."""

    uuid: str
    name: str
    step: Literal["detail", "minute", "hour"] = "detail"
    limits: StoredLimits | None = None
    """As they were last; null where they are not known any more."""
    samples: list[SampleView]
    """The detail; empty where minutes or hours were asked for."""
    spans: list[SpanView] = msgspec.field(default_factory=list)
    """Minutes or hours."""
    entries: list["EntryView"]
    damaged: int = 0
    """Rows of the history file that could not be read, and were left out."""


class EntryView(View, frozen=True, kw_only=True, gc=False):
    """Something that happened. `GET /v1/events` gives one a line."""

    number: int
    at: float
    kind: Literal["notice", "decision", "command"]
    topic: str
    vm: str | None
    name: str | None
    text: str
    detail: dict[str, Any]
    mark: str | None = None
    """What it is on the curve of its VM: grown, held back, reset, by somebody …; null: it is not on it."""


class MomentVmView(View, frozen=True, kw_only=True, gc=False):
    """One VM's part in the balance at a moment."""

    uuid: str
    name: str
    seen_at: float
    """When these figures were written: up to five minutes before, if nothing moved."""
    weight: int
    """As it was last: history keeps no older one."""
    assigned_bytes: int | None
    demand_bytes: int | None
    lower_bytes: int | None
    """By the last decision about it before the moment; null: none is kept."""
    need_bytes: int | None
    eased_bytes: int | None = None
    """Need and what its noise or its stalls ask for; history keeps none."""
    desired_bytes: int | None
    """What was asked for it."""
    goal_bytes: int | None


class MomentView(View, frozen=True, kw_only=True, gc=False):
    """Who asked for what at a moment, and was to get what. `GET /v1/balance?at=…`; without `at`, now."""

    at: float
    vms: list[MomentVmView]


class ChartLine(View, frozen=True, kw_only=True, gc=False):
    """One VM in a chart."""

    uuid: str
    assigned_bytes: list[int | None]
    """At each of the chart's moments; null where it did not run, or is not known."""


class ChartView(View, frozen=True, kw_only=True, gc=False):
    """What every VM had: in the last hour those that run, in the last day, week or year (`since`) all
    that did. `GET /v1/chart`.
    """

    at: list[float]
    """The moments, oldest first."""
    vms: list[ChartLine]
