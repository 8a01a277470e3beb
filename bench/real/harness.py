"""What every benchmark here shares: medians with their spread, tables, goals, and ratios that are kept."""

import json
import math
import mmap
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from host_controller.units import GIB

RESULTS: Final = Path(__file__).resolve().parents[1] / "results" / "real"
TOLERANCE: Final = 0.25
"""By so much a ratio may be worse than the committed one."""
WARM_BYTES: Final = 10 * GIB
"""More than any benchmark gives its guests."""
COLD: Final = 0.5
"""Seconds to touch a GiB: memory that is there takes a tenth of it, or less."""
COOLING_SECONDS: Final = 5.0
_BEGAN: Final = time.monotonic()


def warm_up() -> None:
    """Touch the memory of this host, and say so if it does not stay.

    A host that is a virtual machine itself gets a page from beneath when it first touches it, which was seen
    to take forty times as long as usual: it would count against whoever happens to be given such pages.
    """
    size = min(WARM_BYTES, psutil.virtual_memory().available * 3 // 4)
    _touch(size)
    time.sleep(COOLING_SECONDS)
    if (seconds := _touch(size)) > COLD * size / GIB:
        tell(
            f"free memory of this host is cold again after {COOLING_SECONDS:g} s ({seconds:.0f} s to touch "
            f"{size / GIB:.0f} GiB): it gives it away, so figures will be noisy. Where that is allowed, "
            "`echo 11 > /sys/module/page_reporting/parameters/page_reporting_order` ends it."
        )


def _touch(size: int) -> float:
    """Seconds."""
    began = time.monotonic()
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1
    return time.monotonic() - began


def processor_seconds(pid: int) -> float:
    """What a process has had of processors, without its children."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def tell(text: str) -> None:
    """How far it is, for whoever waits for it."""
    print(f"{time.monotonic() - _BEGAN:6.0f} s  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and what lies around it."""

    median: float
    least: float
    most: float
    count: int

    def __str__(self) -> str:
        if self.count == 1:
            return number(self.median)
        return f"{number(self.median)} ({number(self.least)}–{number(self.most)})"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value; its ends are the smallest and the largest, or p10 and p90 of ten and more."""
    if len(values) >= 10:
        deciles = statistics.quantiles(values, n=10, method="inclusive")
        return Spread(statistics.median(values), deciles[0], deciles[-1], len(values))
    return Spread(statistics.median(values), min(values), max(values), len(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def number(value: float) -> str:
    """Three figures, as people write them."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


@dataclass(frozen=True, slots=True)
class Goal:
    """Something promised: `found` may be at most (or, with `least`, must be at least) `bound`."""

    text: str
    found: float
    bound: float
    least: bool = False

    @property
    def reached(self) -> bool:
        """Whether the promise is kept."""
        return self.found >= self.bound if self.least else self.found <= self.bound

    def __str__(self) -> str:
        sign = "≥" if self.least else "≤"
        verdict = "reached" if self.reached else "MISSED"
        return f"{self.text} {sign} {number(self.bound)}: {number(self.found)}, {verdict}"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours against a floor of the same run: the only kind of timing that means something elsewhere."""

    value: float
    high_is_good: bool = False

    def worse_by(self, committed: "Ratio") -> float:
        """By which share this is worse than the committed one; below 0 when it is better."""
        if self.high_is_good:
            return committed.value / self.value - 1
        return self.value / committed.value - 1


@dataclass(slots=True)
class Result:
    """What one benchmark found."""

    name: str
    title: str
    columns: Sequence[str]
    rows: list[Sequence[str | float | Spread]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    series: dict[str, Any] = field(default_factory=dict)
    """For the plots, and whatever else is worth keeping; JSON."""
    seconds: float = 0.0

    def table(self) -> str:
        """As Markdown."""
        head = [f"| {' | '.join(self.columns)} |", "|" + "---|" * len(self.columns)]
        return "\n".join([*head, *(f"| {' | '.join(map(_cell, row))} |" for row in self.rows)])

    def text(self) -> str:
        """All of it, for people."""
        goals = "\n".join(f"- {goal}" for goal in self.goals)
        return f"{self.title} [{self.seconds:.0f} s]\n\n{self.table()}\n\n{goals}\n"

    def save(self, directory: Path = RESULTS) -> None:
        """Write it to NAME.json."""
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (directory / f"{self.name}.json").write_text(text + "\n")


def ratios_of(path: Path) -> dict[str, Ratio]:
    """What is kept in a results file."""
    told: Mapping[str, Any] = json.loads(path.read_text())
    return {name: Ratio(**fields) for name, fields in told["ratios"].items()}


def _cell(value: str | float | Spread) -> str:
    return number(value) if isinstance(value, int | float) else str(value)
