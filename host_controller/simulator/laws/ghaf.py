"""ghaf-mem-manager: every second, p = (actual - available) ÷ actual; below 70 % T = used ÷ 0.70, above 80 %
T = used ÷ 0.78, and at least 3 s between two changes of a VM. It knows of no host.
"""

from collections.abc import Sequence
from typing import Final

from host_controller.simulator.laws.views import GuestSight, HostSight

LOW: Final = 0.70
HIGH: Final = 0.80
HIGH_AIM: Final = 0.78
REST_SECONDS: Final = 3.0


class Ghaf:
    """scale multiplies the three shares: 1 as published; less leaves guests more."""

    period = 1.0

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self._changed: dict[str, float] = {}

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> dict[str, float]:
        """What one turn gives, once a second: targets in bytes by name, of those that change."""
        chosen = {}
        for guest in guests:
            share = guest.demand / guest.current
            if share < LOW * self.scale:
                size = guest.demand / (LOW * self.scale)
            elif share > HIGH * self.scale:
                size = guest.demand / (HIGH_AIM * self.scale)
            else:
                continue
            target = guest.within(size)
            if target == guest.target or now - self._changed.get(guest.name, -REST_SECONDS) < REST_SECONDS:
                continue
            self._changed[guest.name] = now
            chosen[guest.name] = target
        return chosen
