"""Memory kept free, so that a burst does not have to wait for somebody else's balloon."""

from dataclasses import dataclass
from typing import Final

INFLATE_SECONDS: Final = 1.0
"""What is kept ready covers growth for as long as a balloon needs to give way: report, decision, pages."""
HALF_LIFE: Final = 300.0
LEAST_SHARE: Final = 64
MOST_SHARE: Final = 16


def budget_bytes(all_there_is: int, kept: int, needed: int) -> int:
    """What VMs are given in sum: what is kept ready yields to whoever lacks what it needs."""
    return max(all_there_is - kept, min(all_there_is, needed), 0)


@dataclass(slots=True)
class Ready:
    """Follows how fast the host's VMs grow together; bursts are remembered with a half-life."""

    growth: float = 0.0
    """Bytes/s."""
    at: float = 0.0

    def observe(self, growth: float, now: float) -> None:
        """growth: present sum of the VMs' growth rates, bytes/s."""
        faded = self.growth * 0.5 ** (max(0.0, now - self.at) / HALF_LIFE)
        self.growth, self.at = max(growth, faded), now

    def keep_bytes(self, capacity_bytes: int, configured_bytes: int | None) -> int:
        """The configured figure, or expected growth between 1/64 and 1/16 of the capacity."""
        if configured_bytes is not None:
            return configured_bytes
        expected = int(self.growth * INFLATE_SECONDS)
        return max(capacity_bytes // LEAST_SHARE, min(capacity_bytes // MOST_SHARE, expected))
