"""Proxmox VE's automatic ballooning, from PVE/AutoBalloon.pm and pvestatd.pm.

Every 10 s: goal = Total × 80 % - (Total - MemAvailable), of the host; within ±10 MiB nothing is done. VMs are
idle when MemFree > 0.25 × minimum and they are not below their minimum, else pressured. Memory to grow by
goes to the pressured first, memory to shrink by comes from the idle first; to and from all when that made no
progress. desired = clamp(minimum + (Σ(balloon - minimum) + rest) × shares/Σshares, minimum, maximum), at most
100 MiB per VM and cycle.
"""

from collections.abc import Sequence
from typing import Final

from host_controller.simulator.laws.views import GuestSight, HostSight
from host_controller.units import MIB

DEAD_BAND_BYTES: Final = 10 * MIB
LARGEST_CHANGE_BYTES: Final = 100 * MIB
IDLE_SHARE: Final = 0.25


class Proxmox:
    """host_share is the part of the host that is to be in use: 0.80 as published."""

    period = 10.0

    def __init__(self, host_share: float = 0.80) -> None:
        self.host_share = host_share

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> dict[str, float]:
        """One cycle."""
        goal = host.total * self.host_share - (host.total - host.available)
        if abs(goal) <= DEAD_BAND_BYTES:
            return {}
        eligible = [guest for guest in guests if guest.weight]
        idle = [g for g in eligible if g.free > IDLE_SHARE * g.minimum and g.current >= g.minimum]
        first = [g for g in eligible if g not in idle] if goal > 0 else idle
        sizes = {g.name: g.current for g in eligible}
        rest = share_out(first, sizes, goal)
        if abs(rest) >= abs(goal):
            share_out(eligible, sizes, rest)
        return {g.name: sizes[g.name] for g in eligible if sizes[g.name] != g.current}


def share_out(guests: Sequence[GuestSight], sizes: dict[str, float], amount: float) -> float:
    """Change `sizes` by `amount` in sum, by shares; what could not be placed is returned.

    As in the original, a guest above its share gives some up even while memory is being given out, and one
    that is where it should be (or may not grow, in a shrinking round) takes no further part.
    """
    rest = amount
    left = list(guests)
    progress = True
    while abs(rest) >= 1.0 and progress and left:
        shares = sum(guest.weight for guest in left)
        above = sum(sizes[guest.name] - guest.minimum for guest in left) + rest
        changed, progress = 0.0, False
        for guest in tuple(left):
            desired = guest.within(guest.minimum + above * guest.weight / shares)
            if amount > 0 and desired > guest.current:
                size = min(desired, guest.current + LARGEST_CHANGE_BYTES)
            elif desired < guest.current:
                size = max(desired, guest.current - LARGEST_CHANGE_BYTES)
            else:
                left.remove(guest)
                continue
            step = size - sizes[guest.name]
            sizes[guest.name] = size
            changed += step
            progress = progress or abs(step) >= 1.0
        rest -= changed
    return rest
