"""xapi's squeezed, from squeeze.ml: no demand, only ranges.

    S = max(0, free + Σ max(0, actual - minimum) - host target)
    γ = clamp(S ÷ Σ(maximum - minimum), 0, 1);  target = minimum + γ (maximum - minimum)

While any VM must shrink, only shrinks are issued. A VM that makes no progress for 5 s is inactive and counts
with what it has; that it is capped after 20 s (uncooperative) does not change the others' shares.
"""

from collections.abc import Sequence
from typing import Final

from host_controller.simulator.laws.views import GuestSight, HostSight
from host_controller.units import MIB

INACTIVE_SECONDS: Final = 5.0
CLOSE_BYTES: Final = 4 * MIB


class Squeezed:
    """host_target is what is to stay free. Checked every 10 s by itself; here at every step of its 1 s."""

    period = 1.0

    def __init__(self, host_target_bytes: float = 0.0) -> None:
        self.host_target_bytes = host_target_bytes
        self._moved: dict[str, tuple[float, float]] = {}
        """Actual size and when it last came closer to the target."""

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> dict[str, float]:
        """One step."""
        active = [guest for guest in guests if not self._inactive(guest, now)]
        surplus = host.unassigned + sum(max(0.0, g.current - g.minimum) for g in active)
        surplus = max(0.0, surplus - self.host_target_bytes)
        ranges = sum(g.maximum - g.minimum for g in active)
        gamma = min(1.0, surplus / ranges) if ranges else 0.0
        wanted = {g.name: g.minimum + gamma * (g.maximum - g.minimum) for g in active}
        down = {g.name: wanted[g.name] for g in active if wanted[g.name] < g.current - CLOSE_BYTES}
        if down:
            return down
        return {g.name: wanted[g.name] for g in active if wanted[g.name] > g.current + CLOSE_BYTES}

    def _inactive(self, guest: GuestSight, now: float) -> bool:
        before, since = self._moved.get(guest.name, (guest.current, now))
        there = abs(guest.current - guest.target) <= CLOSE_BYTES
        if there or abs(guest.current - before) > CLOSE_BYTES or guest.name not in self._moved:
            self._moved[guest.name] = (guest.current, now)
            return False
        return now - since > INACTIVE_SECONDS
