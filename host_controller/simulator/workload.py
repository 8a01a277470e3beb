"""What a guest's programs want, over time: curves of bytes, and the generators that make them."""

import bisect
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from host_controller.units import MIB

DAY: Final = 86400.0
DIURNAL_STEP: Final = 60.0
"""A day's curve is made of plateaus this long, so that nothing has to be computed in between."""

SINE_PIECES: Final = 48
"""Straight lines to a period of a sine; none is shorter than a second where there are more than 8."""


MOST_PIECES: Final = 1_000_000
"""Of a wave, or seconds of noise: a month has 2.6 million seconds, and nobody waits for the end of more."""


class Curve:
    """Bytes over seconds: straight lines between points, constant before the first and after the last."""

    __slots__ = ("_at", "_times", "_values")

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        if not points:
            raise ValueError("a curve needs at least one point")
        self._times = [float(t) for t, _ in points]
        self._values = [float(v) for _, v in points]
        self._at = 0
        if any(b < a for a, b in zip(self._times, self._times[1:], strict=False)):
            raise ValueError("the points of a curve go forward in time")

    def at(self, now: float) -> float:
        """The value at a time; of two points at one time the later counts."""
        i = self._find(now)
        if i == 0:
            return self._values[0]
        if i == len(self._times):
            return self._values[-1]
        t0, t1 = self._times[i - 1], self._times[i]
        v0, v1 = self._values[i - 1], self._values[i]
        return v0 if v0 == v1 else v0 + (v1 - v0) * (now - t0) / (t1 - t0)

    def constant_until(self, now: float) -> float:
        """The time up to which the value stays as it is; `now` when it is moving, infinity at the end."""
        i = self._find(now)
        values, times = self._values, self._times
        while i < len(times) and (i == 0 or values[i] == values[i - 1]):
            i += 1
        if i == len(times):
            return math.inf
        return max(now, times[i - 1])

    def end(self) -> float:
        """The time of the last point."""
        return self._times[-1]

    def _find(self, now: float) -> int:
        """The number of points at or before `now`; time mostly goes on by a little, so look there first."""
        times, i = self._times, self._at
        if i and times[i - 1] > now:
            i = bisect.bisect_right(times, now)
        else:
            while i < len(times) and times[i] <= now:
                i += 1
        self._at = i
        return i


def steady(level: float) -> Curve:
    """The same for ever."""
    return Curve([(0.0, level)])


def ramp(low: float, high: float, start: float, seconds: float) -> Curve:
    """From low to high in a straight line."""
    return Curve([(start, low), (start + seconds, high)])


def burst(
    base: float, peak: float, every: float, hold: float, until: float, rise: float = 0.0, first: float = 0.0
) -> Curve:
    """Up to the peak and back, again and again. `rise` is the time that going up takes; down is at once."""
    _not_too_many(until, every)
    points = [(0.0, base)]
    start = first or every
    while start < until:
        points += [(start, base), (start + rise, peak)]
        points += [(start + rise + hold, peak), (start + rise + hold, base)]
        start += every
    return Curve(points)


def sine(low: float, high: float, period: float, until: float, phase: float = 0.0) -> Curve:
    """A sine of so many seconds between low and high, in straight lines. phase: 0 to 1, where it begins;
    0 is low.
    """
    pieces = max(8, min(SINE_PIECES, int(period)))
    _not_too_many(until, period / pieces)
    points = []
    for i in range(math.ceil(until / period * pieces) + 1):
        share = i / pieces
        level = low + (high - low) * (1 - math.cos(2 * math.pi * (share + phase))) / 2
        points.append((share * period, level))
    return Curve(points)


def saw(low: float, high: float, period: float, until: float, phase: float = 0.0) -> Curve:
    """Up in a straight line for so many seconds, and down at once. phase: 0 to 1, where it begins."""
    _not_too_many(until, period)
    points = [(0.0, low + (high - low) * (phase % 1.0))]
    at = (1.0 - phase % 1.0) * period
    while at < until + period:
        points += [(at, high), (at, low)]
        at += period
    return Curve(points)


def square(low: float, high: float, period: float, until: float, phase: float = 0.0) -> Curve:
    """Half of the period low, then half of it high. phase: 0 to 1, where it begins."""
    half = period / 2
    _not_too_many(until, half)
    steps = [(0.0, high if phase % 1.0 >= 0.5 else low)]
    beat = math.floor(phase * 2) + 1
    while (at := beat * half - phase * period) < until:
        steps.append((at, high if beat % 2 else low))
        beat += 1
    return plateaus(steps)


def noisy(level: float, noise: float, until: float, seed: str) -> Curve:
    """A level that each second departs from by another random share; noise is its standard deviation."""
    _not_too_many(until, 1.0)
    rng = random.Random(f"noisy {seed}")
    return plateaus(
        [(float(t), max(0.0, level * (1 + rng.gauss(0, noise)))) for t in range(max(1, math.ceil(until)))]
    )


def diurnal(
    low: float, high: float, until: float, seed: int = 0, noise: float = 0.02, period: float = DAY
) -> Curve:
    """A day's sine between low (at its start) and high, in plateaus of a minute, with relative noise."""
    _not_too_many(until, DIURNAL_STEP)
    rng = random.Random(f"diurnal {seed}")
    steps = []
    for i in range(max(1, math.ceil(until / DIURNAL_STEP))):
        t = i * DIURNAL_STEP
        level = low + (high - low) * (1 - math.cos(2 * math.pi * t / period)) / 2
        steps.append((t, max(0.0, level * (1 + rng.gauss(0, noise)))))
    return plateaus(steps)


def leak(base: float, per_hour: float, until: float, restart_at: float) -> Curve:
    """Grows without end, until a restart at `restart_at` bytes takes it back to base."""
    if per_hour <= 0 or restart_at <= base:
        raise ValueError("a leak grows, from base to a larger restart_at")
    seconds = (restart_at - base) / per_hour * 3600
    _not_too_many(until, seconds)
    points = []
    start = 0.0
    while start < until:
        points += [(start, base), (start + seconds, restart_at)]
        start += seconds
    return Curve(points)


def _not_too_many(until: float, each: float) -> None:
    """Raises ValueError: a curve of pieces of so many seconds each does not come to its end."""
    if not until < MOST_PIECES * each:
        raise ValueError(f"{until:g} s in pieces of {each:g} s are more than {MOST_PIECES} of them")


def plateaus(steps: Sequence[tuple[float, float]]) -> Curve:
    """A staircase: each value holds from its time until the next one's."""
    points = [steps[0]]
    for t, value in steps[1:]:
        points += [(t, points[-1][1]), (t, value)]
    return Curve(points)


@dataclass(frozen=True, slots=True)
class Workload:
    """What the programs of one guest do with memory."""

    anonymous: Curve = field(default_factory=lambda: steady(64 * MIB))
    """Heap and the like, bytes that are wanted at a time."""
    working_set: Curve = field(default_factory=lambda: steady(0))
    """File cache that is used again and again, bytes."""
    stream_bytes_per_second: float = 0.0
    """Files read once: fills free memory with cache that nobody misses."""
    cold_share: float = 0.3
    """Share of anonymous memory that is hardly ever touched: what may lie in swap without harm."""
    cache_period: float = 2.0
    """Seconds in which the whole working set is used once."""
    container_stall: float = 0.0
    """Share of time that a container at its own limit stalls, in a guest with memory to spare
    (fact: container-stalls)."""

    def constant_until(self, now: float) -> float:
        """The time up to which nothing of it changes."""
        return min(self.anonymous.constant_until(now), self.working_set.constant_until(now))
