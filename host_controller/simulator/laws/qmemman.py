"""Qubes OS's qmemman: algo.py, systemstate.py, and meminfo-writer.c in the guests.

Guest, every 100 ms: used = Total - Free - Buffers - Cached + swap in use; sent when it changed by more than
30,000 kB, or while it rises and is above 77 % of what the guest has, by more than 15,000 kB.

    pref = clamp(1.3 × used, 200 MiB, maximum); actual = max(current, last target)
    F = free ÷ 1.00781 - Σ max(0, last target - current) - 50 MiB;  A = F - Σ(pref - actual)
    A > 0    target = 0.999 × pref × (1 + A ÷ Σpref), clipped; what was clipped is split equally
    A <= 0   donors with at least 10 MiB too many go to pref; acceptors share F and that, by pref

Small changes are not made: 150 MiB in sum, or 15 MiB for somebody below its pref. A gift waits until the
donors have given, half a second at most, or is given up for this time.
"""

from collections.abc import Sequence
from typing import Final

from host_controller.simulator.laws.views import GuestSight, HostSight
from host_controller.units import MIB

PREF_FACTOR: Final = 1.3
LEAST_PREF_BYTES: Final = 200 * MIB
FREE_LEFT_BYTES: Final = 50 * MIB
OVERHEAD_FACTOR: Final = 1.0 / 1.00781
ROUNDING: Final = 0.999
LEAST_GIFT_BYTES: Final = 10 * MIB
TELL_BYTES: Final = 30_000 * 1024
TELL_RISING_BYTES: Final = 15_000 * 1024
FULL_SHARE: Final = 0.77
LEAST_TRANSFER_BYTES: Final = 150 * MIB
LEAST_UNDER_PREF_BYTES: Final = 15 * MIB
TRIES: Final = 5


class Qmemman:
    """pref_factor is CACHE_FACTOR: 1.3 as published."""

    period = 0.1

    def __init__(self, pref_factor: float = PREF_FACTOR) -> None:
        self.pref_factor = pref_factor
        self._told: dict[str, float] = {}
        self._gifts: list[tuple[str, float]] = []
        self._tries = 0

    def pref(self, guest: GuestSight) -> float:
        """What the guest would like to have."""
        wanted = min(self.pref_factor * self._told[guest.name], guest.maximum)
        return max(wanted, LEAST_PREF_BYTES)

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> dict[str, float]:
        """Hand on waiting gifts, or balance anew when a guest has told something."""
        told = [self._tell(guest) for guest in guests]
        free = host.unassigned * OVERHEAD_FACTOR - sum(max(0.0, g.target - g.current) for g in guests)
        by_name = {guest.name: guest for guest in guests}
        if self._gifts:
            return self._give(free, by_name)
        if not any(told):
            return {}
        wanted = self.balance(free - FREE_LEFT_BYTES, guests)
        if not self._significant(wanted, free, by_name):
            return {}
        takes = {name: size for name, size in wanted if size < _actual(by_name[name])}
        self._gifts = [(name, size) for name, size in wanted if name not in takes]
        self._tries = 0
        given = self._give(free, by_name)
        return takes | given

    def balance(self, free: float, guests: Sequence[GuestSight]) -> list[tuple[str, float]]:
        """New targets, donors first; `free` is what there is beyond the 50 MiB that stay."""
        prefs = {guest.name: self.pref(guest) for guest in guests}
        needs = {guest.name: prefs[guest.name] - _actual(guest) for guest in guests}
        left = free - sum(needs.values())
        if left > 0:
            return _plenty(guests, prefs, left)
        donors = [g for g in guests if needs[g.name] < 0 or _actual(g) >= g.maximum]
        gone = {g.name for g in donors}
        acceptors = [g for g in guests if g.name not in gone]
        wanted = [(g.name, prefs[g.name]) for g in donors if -needs[g.name] >= LEAST_GIFT_BYTES]
        pool = free - sum(needs[name] for name, _ in wanted)
        if pool < 0:
            return wanted
        whole = sum(prefs[g.name] for g in acceptors)
        for g in acceptors:
            size = ROUNDING * (_actual(g) + pool * prefs[g.name] / whole)
            wanted.append((g.name, min(size, g.maximum)))
        return wanted

    def _tell(self, guest: GuestSight) -> bool:
        used = guest.total - guest.free - guest.cached + guest.swapped
        before = self._told.get(guest.name)
        rising = before is not None and used - before > TELL_RISING_BYTES and used > FULL_SHARE * guest.total
        if before is None or abs(used - before) > TELL_BYTES or rising:
            self._told[guest.name] = used
            return True
        return False

    def _give(self, free: float, guests: dict[str, GuestSight]) -> dict[str, float]:
        given: dict[str, float] = {}
        while self._gifts:
            name, size = self._gifts[0]
            guest = guests.get(name)
            if guest is None:
                self._gifts.pop(0)
                continue
            more = size - _actual(guest)
            if free - more < 0.9 * FREE_LEFT_BYTES:
                self._tries += 1
                if self._tries >= TRIES:
                    self._gifts.clear()
                break
            given[name] = size
            free -= max(0.0, more)
            self._gifts.pop(0)
            self._tries = 0
        return given

    def _significant(
        self, wanted: Sequence[tuple[str, float]], free: float, guests: dict[str, GuestSight]
    ) -> bool:
        if FREE_LEFT_BYTES - free > LEAST_UNDER_PREF_BYTES:
            return True
        moved = 0.0
        for name, size in wanted:
            guest = guests[name]
            moved += abs(size - guest.target)
            if guest.target < self.pref(guest) and size - guest.target > LEAST_UNDER_PREF_BYTES:
                return True
        return moved + abs(free - FREE_LEFT_BYTES) > LEAST_TRANSFER_BYTES


def _actual(guest: GuestSight) -> float:
    return max(guest.current, guest.target)


def _plenty(guests: Sequence[GuestSight], prefs: dict[str, float], left: float) -> list[tuple[str, float]]:
    """Everybody above its pref, in proportion to it."""
    whole = sum(prefs.values())
    sizes = {g.name: ROUNDING * prefs[g.name] * (1.0 + left / whole) for g in guests}
    over = sum(max(0.0, sizes[g.name] - g.maximum) for g in guests)
    below = sum(sizes[g.name] <= g.maximum for g in guests)
    sizes = {g.name: min(sizes[g.name], g.maximum) for g in guests}
    while over >= 1.0 and below > 0:
        bonus = ROUNDING * over / below
        over, still = 0.0, below
        for g in guests:
            if sizes[g.name] < g.maximum:
                size = sizes[g.name] + bonus
                if size >= g.maximum:
                    over += size - g.maximum
                    size = g.maximum
                    still -= 1
                sizes[g.name] = size
        below = still
    current = {g.name: _actual(g) for g in guests}
    return sorted(sizes.items(), key=lambda item: item[1] >= current[item[0]])
