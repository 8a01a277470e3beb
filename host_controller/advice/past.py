"""One VM's recorded past, as advice and forecasts need it: what it wanted in each slot of five minutes.

A slot has the largest demand of its minutes; one that nobody saw has None. Times are seconds since 1970.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from host_controller.records.stored_limits import StoredLimits
from host_controller.records.tiers import Span

SLOT: Final = 300.0
DAY: Final = 86400.0
LONG_GAP: Final = 600.0
"""A time that nobody saw counts as a gap from here on."""
OTHER_TIME: Final = 35 * DAY
"""What lies so far away from the rest was written by a clock that was wrong, or by another host's."""
AT_MAXIMUM: Final = 0.98
"""From this share of its maximum on a VM is taken to have all that it may."""
GROWTH_PERCENTILE: Final = 99.9


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of one VM."""

    uuid: str
    name: str
    limits: StoredLimits | None
    begin: float
    """When the first slot begins, seconds since 1970."""
    demands: tuple[int | None, ...]
    """Bytes, the largest of each slot."""
    seen_seconds: float
    known_seconds: float
    """How long its guest was heard."""
    gaps: int = 0
    gap_seconds: float = 0.0
    censored_seconds: float = 0.0
    """How long it had its maximum and nothing to spare: what it wanted beyond cannot be seen."""
    at_maximum_seconds: float = 0.0
    assigned_range: tuple[int, int] | None = None
    """The least and the most that it had, on the mean of a minute."""
    growth_percent: float | None = None
    """What it grew by within a minute, of its demand, at the 99.9th percentile."""
    reboots: int = 0

    @property
    def days(self) -> float:
        """How long its demand is known."""
        return self.known_seconds / DAY

    @property
    def end(self) -> float:
        """When the last slot ends, seconds since 1970."""
        return self.begin + SLOT * len(self.demands)

    @property
    def peak_bytes(self) -> int | None:
        """The largest demand of any slot; None where none is known."""
        return max((one for one in self.demands if one is not None), default=None)

    def percentile(self, percent: float) -> int | None:
        """Of the slots that are known."""
        known = sorted(one for one in self.demands if one is not None)
        return known[min(len(known) - 1, int(len(known) * percent / 100))] if known else None


def past_of(
    uuid: str, name: str, limits: StoredLimits | None, spans: Sequence[Span], reboots: int = 0
) -> Past | None:
    """From a VM's minutes (or hours, where there is nothing finer), oldest first; None of none.

    Of pieces that lie further apart than OTHER_TIME only the longest counts.
    """
    spans = _longest_piece(spans)
    if not spans:
        return None
    begin = spans[0].at // SLOT * SLOT
    last = spans[-1].at
    demands: list[int | None] = [None] * (int((last - begin) // SLOT) + 1)
    for one in spans:
        if one.demand_largest_bytes is not None:
            at = int((one.at - begin) // SLOT)
            demands[at] = max(demands[at] or 0, one.demand_largest_bytes)
    most = None if limits is None else AT_MAXIMUM * limits.maximum_bytes
    at_most = [one for one in spans if most is not None and (one.assigned_largest_bytes or 0) >= most]
    had = [one.assigned_bytes for one in spans if one.assigned_bytes is not None]
    gaps = list(_gaps(spans))
    return Past(
        uuid,
        name,
        limits,
        begin,
        tuple(demands),
        sum(one.seconds for one in spans),
        sum(one.known_seconds for one in spans),
        len(gaps),
        sum(gaps),
        sum(one.tight_seconds for one in at_most),
        sum(one.seconds for one in at_most),
        (min(had), max(had)) if had else None,
        _growth_percent(spans),
        reboots,
    )


def in_words(days: float) -> str:
    """How long something is known: `3.0 days`, or `1.0 hours` below a day."""
    return f"{days:.1f} days" if days >= 1 else f"{24 * days:.1f} hours"


def comparable(pasts: Sequence[Past]) -> tuple[list[Past], list[Past]]:
    """Those that lie in the time of the one that is known best, and those that do not."""
    anchor = max(pasts, key=lambda one: one.seen_seconds, default=None)
    kept: list[Past] = []
    others: list[Past] = []
    for one in pasts:
        assert anchor is not None
        near = one.begin <= anchor.end + OTHER_TIME and one.end >= anchor.begin - OTHER_TIME
        (kept if near else others).append(one)
    return kept, others


def _longest_piece(spans: Sequence[Span]) -> Sequence[Span]:
    pieces: list[list[Span]] = []
    for one in spans:
        if not pieces or one.at - pieces[-1][-1].at > OTHER_TIME:
            pieces.append([])
        pieces[-1].append(one)
    return max(pieces, key=lambda piece: sum(one.seconds for one in piece), default=[])


def _gaps(spans: Sequence[Span]) -> Iterable[float]:
    for before, after in pairwise(spans):
        missing = after.at - before.at - max(60.0, before.seconds)
        if missing >= LONG_GAP:
            yield missing


def _growth_percent(spans: Sequence[Span]) -> float | None:
    grown = sorted(
        100 * max(0, (after.demand_largest_bytes or 0) - before.demand_bytes) / before.demand_bytes
        for before, after in pairwise(spans)
        if before.demand_bytes and after.at - before.at <= SLOT
    )
    return grown[min(len(grown) - 1, int(len(grown) * GROWTH_PERCENTILE / 100))] if grown else None


def aligned(pasts: Sequence[Past]) -> tuple[float, list[list[int | None]]]:
    """The first slot's time, and for each slot what each VM wanted: None before its first and after its last.

    In between, what nobody saw is taken to be what was seen last.
    """
    begin = min(one.begin for one in pasts)
    slots = max(int((one.end - begin) // SLOT) for one in pasts)
    columns = []
    for one in pasts:
        offset = int((one.begin - begin) // SLOT)
        column: list[int | None] = [None] * offset
        held: int | None = None
        for demand in one.demands:
            held = demand if demand is not None else held
            column.append(held)
        columns.append(column + [None] * (slots - len(column)))
    return begin, [list(row) for row in zip(*columns, strict=True)]


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of sorted figures, not empty, by linear interpolation."""
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
