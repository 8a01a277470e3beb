"""oVirt's Memory Overcommitment Manager, from doc/balloon.rules.

Samples every 5 s, at most 10 of them; the policy every 10 s, every 15 s in oVirt's production.
f = avg(host Free + Buffers + Cached) ÷ Total; used = avg(current) - avg(unused), unused being MemFree.

    f < 0.20   shrink: p = f - 0.05 if f <= 0.05 else 0.20 × f/0.20;
               T = max(0.95 × current, max(minimum, used + p × current)), applied if T <= current
    else       grow, if current < maximum:
               T = min(maximum, max(1.05 × current, minimum, used + 0.20 × current))
    changes below 0.25 % are not worth it
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from host_controller.simulator.laws.views import GuestSight, HostSight

SAMPLE_SECONDS: Final = 5.0
SAMPLES: Final = 10
PRESSURE_THRESHOLD: Final = 0.20
CRITICAL_SHARE: Final = 0.05
LARGEST_STEP: Final = 0.05
DEAD_BAND: Final = 0.0025
POLICY_SECONDS: Final = 10.0
PRODUCTION_SECONDS: Final = 15.0


class Mom:
    """free_share is min_guest_free_percent: 0.20 as published."""

    period = SAMPLE_SECONDS

    def __init__(self, policy_seconds: float = POLICY_SECONDS, free_share: float = 0.20) -> None:
        self.policy_seconds = policy_seconds
        self.free_share = free_share
        self._host: deque[float] = deque(maxlen=SAMPLES)
        self._guests: dict[str, deque[tuple[float, float]]] = {}
        self._decided_at = 0.0

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> dict[str, float]:
        """Sample; decide when the policy's period is over."""
        self._host.append(host.available / host.total)
        for guest in guests:
            seen = self._guests.setdefault(guest.name, deque(maxlen=SAMPLES))
            seen.append((guest.current, guest.free))
        if now - self._decided_at < self.policy_seconds - 1e-6:
            return {}
        self._decided_at = now
        free = sum(self._host) / len(self._host)
        chosen = {guest.name: self._one(guest, free) for guest in guests}
        return {name: target for name, target in chosen.items() if target is not None}

    def _one(self, guest: GuestSight, host_free: float) -> float | None:
        seen = self._guests[guest.name]
        used = sum(current - unused for current, unused in seen) / len(seen)
        current = guest.current
        if host_free < PRESSURE_THRESHOLD:
            target = shrunk(guest, used, host_free)
            fits = target <= current
        elif current < guest.maximum:
            target = grown(guest, used, self.free_share)
            fits = True
        else:
            return None
        return target if fits and abs(target - current) > DEAD_BAND * current else None


def shrunk(guest: GuestSight, used: float, host_free: float) -> float:
    """The target on a host of which less than a fifth is free."""
    share = host_free - CRITICAL_SHARE if host_free <= CRITICAL_SHARE else host_free
    least = max(guest.minimum, used + share * guest.current)
    return max((1.0 - LARGEST_STEP) * guest.current, least)


def grown(guest: GuestSight, used: float, free_share: float = 0.20) -> float:
    """The target on a host with memory to give."""
    least = max(guest.minimum, used + free_share * guest.current)
    return min(guest.maximum, max((1.0 + LARGEST_STEP) * guest.current, least))
