"""What dynamic memory has saved: what VMs cost, against what they would cost with their maximum each."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from host_controller.advice.sources import Recorded
from host_controller.records.tiers import HOUR, Span
from host_controller.units import GIB


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
    static_byte_hours = dynamic_byte_hours = vm_hours = 0.0
    left_out = []
    for one in recorded:
        if one.limits is None:
            left_out.append(one.name)
            continue
        maximum = one.limits.maximum_bytes
        for at, (hours, byte_hours) in _by_hour(one.spans).items():
            vm_hours += hours
            static_byte_hours += maximum * hours
            dynamic_byte_hours += byte_hours
            # An hour that a clock which was set back has come by twice is no higher peak for that.
            share = 1.0 / max(1.0, hours)
            static[at] += maximum * hours * share
            dynamic[at] += byte_hours * share
    if not static:
        return None
    peak = max(dynamic, key=lambda hour: dynamic[hour])
    return Savings(
        min(static),
        vm_hours,
        static_byte_hours / GIB,
        dynamic_byte_hours / GIB,
        peak,
        int(static[peak]),
        int(dynamic[peak]),
        tuple(left_out),
    )


def _by_hour(spans: Sequence[Span]) -> dict[float, tuple[float, float]]:
    """By the time at which an hour begins: the hours that one VM was seen in it, and what that cost it in
    byte-hours.
    """
    found: dict[float, tuple[float, float]] = {}
    for one in spans:
        if one.charge_bytes is not None:
            at, hours = one.at // HOUR * HOUR, one.seconds / HOUR
            before = found.get(at, (0.0, 0.0))
            found[at] = before[0] + hours, before[1] + one.charge_bytes * hours
    return found
