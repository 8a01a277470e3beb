"""What a VM's samples come to by the minute, and its minutes by the hour. Pure.

A sample holds until the next one, or for `holds` seconds if nobody looks any more: what follows is a gap, and
a gap is in no sum. So each span says for how long it was seen. Spans of the same minute are merged (a
controller that was restarted, a clock that was set back): nothing that was seen replaces anything.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from host_controller.records.samples import Sample

MINUTE: Final = 60.0
HOUR: Final = 3600.0
LIVE_HOLDS: Final = 30.0
"""Samples come every ten seconds at least, whatever happens."""
LONGEST_SEEN: Final = 86400.0
"""Seconds in all that one minute or hour was seen: more is no clock's, but a damaged figure."""
LATEST: Final = 2.5e11
"""Seconds since 1970: what lies beyond is no date, since those end with the year 9999."""
PERCENTS: Final = (5, 25, 50, 75, 95)
TIGHT_PERCENT: Final = 95.0
"""From this pressure on a guest has nothing to spare: what it would have needed beyond cannot be seen."""


class Span(NamedTuple):
    """One VM in one minute, or in one hour. Sizes are bytes; None where there was no such figure."""

    at: float
    """When it begins, seconds since 1970."""
    seconds: float
    """How long the VM was seen in it."""
    known_seconds: float
    """How long its demand was known."""
    tight_seconds: float
    """How long it had nothing to spare: there demand is a lower bound."""
    assigned_bytes: int | None
    """The mean, like all that is not called the largest."""
    assigned_largest_bytes: int | None
    charge_bytes: int | None
    usable_bytes: int | None
    demand_bytes: int | None
    demand_largest_bytes: int | None
    need_largest_bytes: int | None
    demand_percentiles: tuple[int, ...] | None = None
    """Of an hour: PERCENTS of the largest demand of its minutes."""

    def sizes(self) -> tuple[int | None, ...]:
        """All sizes but the percentiles, in the order of the fields."""
        return self[4:11]


def could_be(at: float, seconds: float, known_seconds: float, tight_seconds: float) -> bool:
    """Whether a minute or an hour may have been seen then, and for so long. That may be longer than it is: a
    clock that was set back comes by it again.
    """
    return 0 <= at <= LATEST and 0 <= tight_seconds <= known_seconds <= seconds <= LONGEST_SEEN


class Minutes:
    """Adds one VM's samples up."""

    __slots__ = ("_at", "_holds", "_known", "_largest", "_last", "_minute", "_seen", "_sums", "_tight")

    def __init__(self, holds: float = LIVE_HOLDS) -> None:
        self._holds = holds
        self._at = 0.0
        self._last: Sample | None = None
        self._begin(0)

    def add(self, at: float, sample: Sample) -> list[Span]:
        """Take in a sample of `at`, seconds since 1970; returns the minutes that are over with it."""
        done = self._run_to(at)
        if at < self._at or int(at // MINUTE) != self._minute:
            done += self._finish(int(at // MINUTE))
        self._at, self._last = at, sample
        self._note(sample)
        return done

    def close(self) -> list[Span]:
        """The minute that is not over yet."""
        done = self._finish(0)
        self._last = None
        return done

    def _begin(self, minute: int) -> None:
        self._minute = minute
        self._seen = self._known = self._tight = 0.0
        self._sums = [0.0, 0.0, 0.0, 0.0]
        self._largest: list[int | None] = [None, None, None]

    def _run_to(self, at: float) -> list[Span]:
        """Let the last sample last until then."""
        if self._last is None or at <= self._at:
            return []
        done: list[Span] = []
        end = min(at, self._at + self._holds)
        begin = self._at
        while begin < end:
            minute = int(begin // MINUTE)
            if minute != self._minute:
                done += self._finish(minute)
                self._note(self._last)
            until = min(end, (minute + 1) * MINUTE)
            self._add(self._last, until - begin)
            begin = until
        return done

    def _add(self, sample: Sample, seconds: float) -> None:
        self._seen += seconds
        sums = self._sums
        sums[0] += (sample.assigned_bytes or 0) * seconds
        sums[1] += (sample.charge_bytes or 0) * seconds
        if sample.demand_bytes is not None:
            self._known += seconds
            sums[2] += (sample.usable_bytes or sample.assigned_bytes or 0) * seconds
            sums[3] += sample.demand_bytes * seconds
            if sample.pressure_percent >= TIGHT_PERCENT:
                self._tight += seconds

    def _note(self, sample: Sample) -> None:
        figures = (sample.assigned_bytes, sample.demand_bytes, sample.need_bytes)
        for place, figure in enumerate(figures):
            before = self._largest[place]
            if figure is not None and (before is None or figure > before):
                self._largest[place] = figure

    def _finish(self, minute: int) -> list[Span]:
        seen, known = self._seen, self._known
        had, cost, usable, demand = (
            int(one / seconds) if seconds else None
            for one, seconds in zip(self._sums, (seen, seen, known, known), strict=True)
        )
        most, demand_most, need_most = self._largest
        span = Span(
            self._minute * MINUTE,
            seen,
            known,
            self._tight,
            had,
            most,
            cost,
            usable,
            demand,
            demand_most,
            need_most,
        )
        self._begin(minute)
        return [span] if seen else []


def hour_of(minutes: Sequence[Span]) -> Span | None:
    """The hour that these minutes lie in; None of none. Of an hour seen in part it tells that part."""
    seen = sum(one.seconds for one in minutes)
    if not seen:
        return None
    known = [one for one in minutes if one.known_seconds and one.demand_bytes is not None]
    largest = sorted(
        (one.demand_largest_bytes, one.known_seconds) for one in known if one.demand_largest_bytes is not None
    )
    return Span(
        minutes[0].at // HOUR * HOUR,
        seen,
        sum(one.known_seconds for one in known),
        sum(one.tight_seconds for one in known),
        _mean([(one.assigned_bytes, one.seconds) for one in minutes]),
        _most(one.assigned_largest_bytes for one in minutes),
        _mean([(one.charge_bytes, one.seconds) for one in minutes]),
        _mean([(one.usable_bytes, one.known_seconds) for one in known]),
        _mean([(one.demand_bytes, one.known_seconds) for one in known]),
        _most(one.demand_largest_bytes for one in known),
        _most(one.need_largest_bytes for one in known),
        tuple(weighted_percentile(largest, one) for one in PERCENTS) if largest else None,
    )


def weighted_percentile(sorted_pairs: Sequence[tuple[int, float]], percent: float) -> int:
    """The figure that `percent` of the weight does not exceed. Pairs are (figure, weight), by figure."""
    left = sum(weight for _, weight in sorted_pairs) * percent / 100
    for figure, weight in sorted_pairs:
        left -= weight
        if left <= 1e-9:
            return figure
    return sorted_pairs[-1][0]


def _mean(pairs: Sequence[tuple[int | None, float]]) -> int | None:
    known = [(figure, weight) for figure, weight in pairs if figure is not None and weight]
    if not known:
        return None
    return int(sum(figure * weight for figure, weight in known) / sum(weight for _, weight in known))


def _most(figures: Iterable[int | None]) -> int | None:
    return max((one for one in figures if one is not None), default=None)
