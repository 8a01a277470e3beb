"""Hyper-V Dynamic Memory: the guest's side from Linux's hv_balloon.c, the closed host's side as documented.

Host: clamp(demand × (1 + B/100), minimum, maximum), once a second. When that is more than there is, all get
the same pressure (demand ÷ assigned) as far as their limits allow: the documentation's "memory pressure is
balanced", which is all that is public.
"""

from collections.abc import Sequence
from typing import Final

from host_controller.simulator.laws.views import GuestSight, HostSight
from host_controller.units import MIB

FIRST_REPORT_SECONDS: Final = 45.0
_FLOOR: Final = ((128, 8, 2), (512, 40, 4), (2048, 104, 8), (8192, 232, 16))
_LARGE_FLOOR: Final = (488, 32)


def floor_bytes(total: float) -> float:
    """compute_balloon_floor() of hv_balloon.c for a guest of so many bytes."""
    mib = total / MIB
    for below, fixed, divisor in _FLOOR:
        if mib < below:
            return (fixed + mib / divisor) * MIB
    fixed, divisor = _LARGE_FLOOR
    return (fixed + mib / divisor) * MIB


class HyperV:
    """With one buffer for all; None takes each guest's own."""

    period = 1.0

    def __init__(self, buffer_percent: float | None = None) -> None:
        self.buffer_percent = buffer_percent

    def wanted(self, guest: GuestSight) -> float:
        """Demand with its buffer: committed memory and the floor. The driver adds what is ballooned, which
        the host takes off again.
        """
        buffer = guest.buffer_percent if self.buffer_percent is None else self.buffer_percent
        return (guest.committed + floor_bytes(guest.maximum)) * (1.0 + buffer / 100.0)

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> dict[str, float]:
        """Inflation never asks for more than the driver gives: MemAvailable less its floor."""
        shown = [guest for guest in guests if guest.booted >= FIRST_REPORT_SECONDS]
        rest = host.total - sum(guest.current for guest in guests if guest.booted < FIRST_REPORT_SECONDS)
        wanted = [self.wanted(guest) for guest in shown]
        given = equal_pressure(shown, wanted, rest)
        found = {}
        for guest, size in zip(shown, given, strict=True):
            room = max(0.0, guest.available - floor_bytes(guest.maximum))
            found[guest.name] = max(size, guest.current - room) if size < guest.current else size
        current = {guest.name: guest.current for guest in shown}
        return dict(sorted(found.items(), key=lambda item: item[1] - current[item[0]]))


def equal_pressure(guests: Sequence[GuestSight], wanted: Sequence[float], budget: float) -> list[float]:
    """clamp(μ × wanted, minimum, maximum) with the largest μ <= 1 that the budget allows."""
    whole = [guest.within(size) for guest, size in zip(guests, wanted, strict=True)]
    if sum(whole) <= budget:
        return whole
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        total = sum(guest.within(size * middle) for guest, size in zip(guests, wanted, strict=True))
        low, high = (middle, high) if total <= budget else (low, middle)
    return [guest.within(size * low) for guest, size in zip(guests, wanted, strict=True)]
