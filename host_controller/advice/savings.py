"""What dynamic memory has saved: what VMs cost, against what they would cost with their maximum each."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from host_controller.advice.sources import Recorded
from host_controller.units import GIB

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Savings:
    """Since a time, seconds since 1970."""

    since: float
    hours: float
    """Of VMs that ran, added up."""
    static_gib_hours: float
    dynamic_gib_hours: float
    peak_at: float
    """The hour in which all VMs cost most."""
    peak_static_bytes: int
    peak_dynamic_bytes: int
    left_out: tuple[str, ...]
    """VMs whose limits are not known."""

    @property
    def saved_gib_hours(self) -> float:
        """Negative where VMs cost more than their maximum: QEMU's own memory is in it."""
        return self.static_gib_hours - self.dynamic_gib_hours

    def as_json(self, price: float) -> dict[str, Any]:
        """For --json. price: of a GiB for an hour."""
        return {
            "since": self.since,
            "vm_hours": round(self.hours, 2),
            "static_gib_hours": round(self.static_gib_hours, 3),
            "dynamic_gib_hours": round(self.dynamic_gib_hours, 3),
            "saved_gib_hours": round(self.saved_gib_hours, 3),
            "saved_bytes_at_peak": self.peak_static_bytes - self.peak_dynamic_bytes,
            "peak_at": self.peak_at,
            "peak_static_bytes": self.peak_static_bytes,
            "peak_dynamic_bytes": self.peak_dynamic_bytes,
            "saved_money": round(self.saved_gib_hours * price, 2) if price else None,
            "left_out": list(self.left_out),
        }


def savings(recorded: Sequence[Recorded]) -> Savings | None:
    """By the limits that each VM had last; None where nothing is known."""
    static: defaultdict[float, float] = defaultdict(float)
    dynamic: defaultdict[float, float] = defaultdict(float)
    seconds = 0.0
    left_out = []
    for one in recorded:
        if one.limits is None:
            left_out.append(one.name)
            continue
        for span in one.spans:
            if span.charge_bytes is not None:
                hour = span.at // HOUR * HOUR
                static[hour] += one.limits.maximum_bytes * span.seconds / HOUR
                dynamic[hour] += span.charge_bytes * span.seconds / HOUR
                seconds += span.seconds
    if not static:
        return None
    peak = max(dynamic, key=lambda hour: dynamic[hour])
    return Savings(
        min(static),
        seconds / HOUR,
        sum(static.values()) / GIB,
        sum(dynamic.values()) / GIB,
        peak,
        int(static[peak]),
        int(dynamic[peak]),
        tuple(left_out),
    )
