"""When a host is full: the sum of its VMs' needs, hour by hour of the coming weeks, as a range.

The middle is the median of the same hour of the weeks that are known, moved by their trend. The trend is
the median change from week to week, and the fewer weeks there are the less of it is believed. The range
holds four in five of the errors that the same rule made on this host's weeks: each week was forecast from
the ones before it. It is as wide to both sides, as split conformal prediction has it: few weeks tell how far
a host goes from its habits, and not whether up or down (Vovk, Gammerman, Shafer: Algorithmic Learning in a
Random World, 2005). Further ahead it widens with the root of the weeks. bench/forecast.py says how often
it holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

from host_controller.advice.past import DAY, SLOT, Past, aligned, in_words, quantile
from host_controller.core.vm.demand import margin_bytes
from host_controller.errors import InputError

HOURS: Final = 168
"""In a week."""
SLOTS: Final = int(3600 / SLOT)
TREND_WEEKS: Final = 6
"""Of the trend of n weeks (n − 1) ÷ (n − 1 + 6) is believed: a quarter after three weeks."""
MOST_WEEKS: Final = 26
HOLDS: Final = 0.8
"""The share of hours that the range is to hold."""
ONE_WEEK_SPREAD: Final = 0.35
"""From a single week no error can be seen: a range of ± so much, as logarithm."""
NEXT_WEEKS: Final = 4


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes: 80 % of the hours are meant to lie between low and high."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one host's VMs will need, hour by hour of a week, and how that grows."""

    begin: float
    """Of the first hour that is forecast, seconds since 1970."""
    weeks_seen: int
    trend_per_week: float
    """As a share; what is believed of it is in the ranges."""
    profile: tuple[float, ...]
    """The middle of each of 168 hours, from `begin` on, without the trend."""
    spread: float
    """The logarithm by which the range of the first week goes up and down."""

    @property
    def trust(self) -> float:
        """The share of the trend that is believed."""
        return (self.weeks_seen - 1) / (self.weeks_seen - 1 + TREND_WEEKS)

    def at(self, hour: int) -> Range:
        """So many hours after `begin`."""
        week = hour // HOURS
        believed = math.log1p(self.trend_per_week) * self.trust
        middle = self.profile[hour % HOURS] * math.exp(believed * (week + (self.weeks_seen + 1) / 2))
        factor = math.exp(self.spread * math.sqrt(week + 1))
        return Range(middle / factor, middle, middle * factor)

    def peak(self, weeks: int = NEXT_WEEKS) -> Range:
        """The largest hour of the coming weeks."""
        hours = [self.at(hour) for hour in range(weeks * HOURS)]
        return Range(*(max(getattr(one, name) for one in hours) for name in ("low", "middle", "high")))

    def full_at(self, capacity_bytes: float) -> tuple[float | None, float | None, float | None]:
        """When the capacity is reached at the earliest, likely, and at the latest; None: not within 26
        weeks.
        """
        found: list[float | None] = [None, None, None]
        for hour in range(MOST_WEEKS * HOURS):
            one = self.at(hour)
            for place, figure in enumerate((one.high, one.middle, one.low)):
                if found[place] is None and figure >= capacity_bytes:
                    found[place] = self.begin + hour * 3600.0
        return found[0], found[1], found[2]


def hourly_needs(pasts: Sequence[Past]) -> tuple[float, list[float]]:
    """When the first whole hour begins, and the largest sum of needs in each, bytes.

    A VM needs what it wants and its margin, its minimum at the least. One that has ended counts no more.
    """
    begin, rows = aligned(pasts)
    least = [0 if one.limits is None else one.limits.minimum_bytes for one in pasts]
    skip = int((-begin // SLOT) % SLOTS)
    sums = [
        sum(max(low, one + margin_bytes(one)) for low, one in zip(least, row, strict=True) if one is not None)
        for row in rows[skip:]
    ]
    hours = [float(max(sums[at : at + SLOTS])) for at in range(0, len(sums) - SLOTS + 1, SLOTS)]
    return begin + skip * SLOT, hours


def forecast(begin: float, hours: Sequence[float]) -> Forecast:
    """From the sums of needs of whole hours, the last of which has just passed.

    Raises:
        InputError: it is less than a week.
    """
    weeks = len(hours) // HOURS
    if not weeks:
        days = len(hours) / 24
        raise InputError(
            f"{in_words(days)} are known", hint="a forecast wants a week: the hours of a week differ"
        )
    recent = [max(1.0, one) for one in hours[-weeks * HOURS :]]
    rows = [recent[week * HOURS : (week + 1) * HOURS] for week in range(weeks)]
    errors: list[float] = []
    for known in range(1, weeks):
        earlier = _fit(rows[:known], 0.0, 0.0)
        errors += [abs(math.log(one / earlier.at(hour).middle)) for hour, one in enumerate(rows[known])]
    spread = quantile(sorted(errors), HOLDS) if errors else ONE_WEEK_SPREAD
    return _fit(rows, spread, begin + len(hours) * 3600.0)


def _fit(rows: Sequence[Sequence[float]], spread: float, begin: float) -> Forecast:
    profile = tuple(median(week[hour] for week in rows) for hour in range(HOURS))
    levels = [math.log(median(week)) for week in rows]
    slopes = [
        (levels[later] - levels[earlier]) / (later - earlier)
        for earlier, later in combinations(range(len(levels)), 2)
    ]
    trend = math.expm1(median(slopes)) if slopes else 0.0
    return Forecast(begin, len(rows), trend, profile, spread)


@dataclass(frozen=True, slots=True)
class Room:
    """How many more VMs of a shape fit."""

    by_demand: int
    """If they want of their maximum what the host's VMs do: at the upper end of the next four weeks' peak."""
    safely: int
    """If every VM that was seen in the last day of this history took its maximum at once."""


def room_for(maximum_bytes: int, found: Forecast, pasts: Sequence[Past], capacity_bytes: int) -> Room:
    """VMs of this maximum."""
    known = [one for one in pasts if one.limits is not None and one.peak_bytes is not None]
    gone = max((one.end for one in known), default=0.0) - DAY
    promised = sum(one.limits.maximum_bytes for one in known if one.limits is not None and one.end > gone)
    shares = sorted(
        (one.percentile(95.0) or 0) / max(1, one.limits.maximum_bytes)
        for one in known
        if one.limits is not None
    )
    wants = maximum_bytes * quantile(shares, 0.5) if shares else maximum_bytes
    free = capacity_bytes - found.peak().high
    return Room(max(0, int(free // max(1.0, wants))), max(0, (capacity_bytes - promised) // maximum_bytes))
