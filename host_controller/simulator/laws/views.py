"""What a law is shown, and what it is: a pure function from sights of host and guests to balloon targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class HostSight:
    """The host at one time, bytes."""

    total: float
    """What the VMs may have in sum."""
    available: float
    """Of it not held by anybody, cache that can be dropped included: Free + Buffers + Cached."""
    unassigned: float
    """Of it in no guest's balloon size: free, if guests hold all that they are given."""


@dataclass(frozen=True, slots=True)
class GuestSight:
    """One guest at one time, bytes. Every law sees all of it at its own period, without delay."""

    name: str
    minimum: float
    maximum: float
    current: float
    """The balloon's actual size."""
    target: float
    """The last target that this law set; `current` before the first."""
    total: float
    """MemTotal; less than `current` by what the kernel reserves."""
    free: float
    """MemFree."""
    available: float
    """MemAvailable."""
    cached: float = 0.0
    """Buffers and Cached."""
    swapped: float = 0.0
    committed: float = 0.0
    """Committed_AS."""
    weight: int = 100
    buffer_percent: float = 20.0
    booted: float = 1e9
    """Seconds since its kernel came up."""

    @property
    def demand(self) -> float:
        """Current - available: what programs and kernel hold, cache that can be dropped not counted."""
        return max(0.0, self.current - self.available)

    def within(self, size: float) -> float:
        """Clamped to the guest's limits."""
        return max(self.minimum, min(self.maximum, size))


Foresight = Callable[[str, float], float]
"""What a guest will need at most, bytes, from now to that many seconds on. For clairvoyants only."""


class Law(Protocol):
    """A way to share a host. It may remember, but reads no clock, and does nothing but answer."""

    period: float
    """Seconds between two calls."""

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> Mapping[str, float]:
        """New balloon targets, bytes, by name; a guest that is not named keeps its own.

        They are given out in the order of the mapping.
        """
