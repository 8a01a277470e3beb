"""What the metrics count over time: a sink of the journal that adds up instead of writing down.

Prometheus scrapes now and then; what happened in between must be in counters, and the pressure's extremes in
a window of a minute.
"""

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args

from host_controller.records.entries import Entry
from host_controller.records.samples import Sample

WINDOW_SECONDS: Final = 60.0
BUCKET_SECONDS: Final = 5.0
End = Literal["done", "failed", "timeout"]
ENDS: Final[tuple[End, ...]] = get_args(End)
LATENCY_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Pressure(NamedTuple):
    """A VM's pressure over the last minute, as ratios: 1.0 is demand = usable."""

    now: float
    average: float
    lowest: float
    highest: float


@dataclass(slots=True)
class _Bucket:
    begins: float
    seconds: float = 0.0
    area: float = 0.0
    lowest: float = float("inf")
    highest: float = float("-inf")


class Window:
    """A step function over the last minute, in buckets of five seconds."""

    __slots__ = ("_at", "_buckets", "_value")

    def __init__(self) -> None:
        self._buckets: deque[_Bucket] = deque()
        self._at = 0.0
        self._value: float | None = None

    def add(self, value: float, now: float) -> None:
        """From now on it has this value."""
        self._run_to(now)
        self._value = value
        self._bucket(now).lowest = min(self._bucket(now).lowest, value)
        self._bucket(now).highest = max(self._bucket(now).highest, value)

    def read(self, now: float) -> Pressure | None:
        """The last minute; None before the first value."""
        if self._value is None:
            return None
        self._run_to(now)
        seconds = sum(one.seconds for one in self._buckets)
        area = sum(one.area for one in self._buckets)
        return Pressure(
            self._value,
            area / seconds if seconds > 0 else self._value,
            min(one.lowest for one in self._buckets),
            max(one.highest for one in self._buckets),
        )

    def _run_to(self, now: float) -> None:
        """Let the present value last until now."""
        if self._value is None:
            self._at = now
            return
        at = max(self._at, now - WINDOW_SECONDS)
        while at < now:
            bucket = self._bucket(at)
            step = min(now, bucket.begins + BUCKET_SECONDS) - at
            if step <= 0:
                break
            bucket.seconds += step
            bucket.area += step * self._value
            bucket.lowest = min(bucket.lowest, self._value)
            bucket.highest = max(bucket.highest, self._value)
            at += step
        self._at = now
        while len(self._buckets) > 1 and self._buckets[0].begins < now - WINDOW_SECONDS:
            self._buckets.popleft()

    def _bucket(self, at: float) -> _Bucket:
        if not self._buckets or at >= self._buckets[-1].begins + BUCKET_SECONDS:
            self._buckets.append(_Bucket(at))
        return self._buckets[-1]


@dataclass(slots=True)
class VmTally:
    """Of one VM, since the controller started."""

    added_bytes: int = 0
    removed_bytes: int = 0
    operations: dict[str, Counter[End]] = field(default_factory=lambda: defaultdict(Counter))
    """By command: how often it ended how."""
    decisions: Counter[str] = field(default_factory=Counter)
    pressure: Window = field(default_factory=Window)
    assigned_bytes: int | None = None


class Histogram:
    """Counts of durations below growing bounds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one answer that took so many seconds."""
        self.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self.total += seconds


class Tally:
    """The journal's sink for the metrics. Kept for VMs that run; their counters go with them."""

    problem: Final = None
    """Nothing keeps it from counting."""

    def __init__(self) -> None:
        self.vms: dict[str, VmTally] = {}
        self.latencies: dict[str, Histogram] = {}
        """By command."""
        self.notices: Counter[str] = Counter()
        """By topic."""

    def of(self, uuid: str) -> VmTally:
        """What is counted of one VM."""
        return self.vms.setdefault(uuid, VmTally())

    def entry(self, entry: Entry) -> None:
        """Count what happened."""
        if entry.kind == "notice":
            self.notices[entry.topic] += 1
            if entry.topic == "gone" and entry.vm is not None:
                self.vms.pop(entry.vm, None)
            return
        if entry.vm is None:
            return
        if entry.kind == "decision":
            self.of(entry.vm).decisions[entry.topic] += 1
        elif isinstance(seconds := entry.detail.get("seconds"), float):
            detail = entry.detail
            ended: End = "timeout" if detail["timed_out"] else "failed" if detail["error"] else "done"
            # A command may end after its VM is gone: then nobody asks for that VM's counters any more.
            if (tally := self.vms.get(entry.vm)) is not None:
                tally.operations[entry.topic][ended] += 1
            self.latencies.setdefault(entry.topic, Histogram()).observe(seconds)

    def sample(self, uuid: str, name: str, sample: Sample) -> None:
        """Note a VM's figures, which have changed."""
        tally = self.of(uuid)
        if sample.assigned_bytes is not None:
            if tally.assigned_bytes is not None:
                moved = sample.assigned_bytes - tally.assigned_bytes
                tally.added_bytes += max(0, moved)
                tally.removed_bytes += max(0, -moved)
            tally.assigned_bytes = sample.assigned_bytes
        if sample.demand_bytes is not None:
            tally.pressure.add(sample.pressure_percent / 100, sample.at)

    def close(self) -> None:
        """Nothing to close."""
