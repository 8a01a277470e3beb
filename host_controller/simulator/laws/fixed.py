"""Laws that never move anything: what most hosts do today."""

from collections.abc import Mapping, Sequence
from typing import Final

from host_controller.simulator.laws.views import GuestSight, HostSight

CALM_SECONDS: Final = 10.0


class Static:
    """Everybody has its maximum from the start: a plain VM without a balloon."""

    period = CALM_SECONDS

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> dict[str, float]:
        """The maximum."""
        return {guest.name: guest.maximum for guest in guests}


class Peak:
    """Everybody has its own peak and a buffer, as if each had been measured for a month and sized anew."""

    period = CALM_SECONDS

    def __init__(self, peaks: Mapping[str, float], buffer_percent: float = 20.0) -> None:
        self.peaks = peaks
        """The most that each VM will ever need, bytes."""
        self.buffer_percent = buffer_percent

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> dict[str, float]:
        """Peak × (1 + B/100), never below the minimum nor above the maximum."""
        factor = 1.0 + self.buffer_percent / 100.0
        return {guest.name: guest.within(self.peaks[guest.name] * factor) for guest in guests}
