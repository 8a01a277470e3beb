"""Qubes OS's qmemman as its source does it: algo.py and systemstate.py (qubes-core-admin, August 2026), and
meminfo-writer.c in the guests (qubes-linux-utils).

Guest, every 100 ms: used = what it has - Free - Buffers - Cached + swap in use; sent when it changed by more
than 30,000 kB, or while it rises and is above 10/13 of what the guest has, by more than 15,000 kB.

    pref = clamp(1.3 × used, 200 MiB, maximum); actual = max(current, last target)
    F = free ÷ 1.00781 - Σ max(0, last target - current) - 50 MiB;  A = F - Σ(pref - actual)
    A > 0    target = 0.999 × pref × (1 + A ÷ Σpref), clipped; what was clipped is split equally
    A <= 0   donors with at least 10 MiB too many go to pref; acceptors share F and that, by pref

Small changes are not made: 150 MiB in sum, or 15 MiB for somebody below its pref. Each guest's word sets off
a balance of all, one after the other. While a gift waits for donors nobody else is heard: half a second
at most. Then the waiting guest gets what there is, and the balance ends. Donors that did not move at all are
left out until they have done what they were told, or want more than they have.

Not here: dom0 and its boost, and the memory that a starting VM is lent.
"""

from collections import deque
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
FULL_SHARE: Final = 10 / 13
LEAST_TRANSFER_BYTES: Final = 150 * MIB
LEAST_UNDER_PREF_BYTES: Final = 15 * MIB
TRIES: Final = 5

Requests = list[tuple[str, float]]


class Qmemman:
    """pref_factor is CACHE_FACTOR: 1.3 as published."""

    period = 0.1

    def __init__(self, pref_factor: float = PREF_FACTOR) -> None:
        self.pref_factor = pref_factor
        self._written: dict[str, float] = {}
        """What each guest last sent, whether the daemon has read it or not."""
        self._used: dict[str, float] = {}
        """What the daemon knows of it."""
        self._unread: deque[str] = deque()
        self._last_target: dict[str, float] = {}
        self._stuck: set[str] = set()
        self._requests: Requests = []
        """The balance under way: whoever is first waits until there is enough."""
        self._tries = 0
        self._before: dict[str, float] = {}
        """actual of each as that balance began."""
        self._asked: Requests = []
        """All that it asked for."""

    def pref(self, guest: GuestSight) -> float:
        """What the guest would like to have."""
        wanted = min(self.pref_factor * self._used[guest.name], guest.maximum)
        return max(wanted, LEAST_PREF_BYTES)

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> dict[str, float]:
        """A tenth of a second: guests write, the balance under way goes on, and others follow it."""
        by_name = {guest.name: guest for guest in guests}
        for guest in guests:
            self._last_target.setdefault(guest.name, guest.target)
            self._write(guest)
        set_to: dict[str, float] = {}
        if self._requests:
            self._tries -= 1
            if self._tries <= 0:
                self._give_up(host, by_name, set_to)
            else:
                self._go_on(host, by_name, set_to)
        while not self._requests and self._unread:
            name = self._unread.popleft()
            if name in by_name:
                self._used[name] = self._written[name]
                self._begin(host, by_name, set_to)
        return set_to

    def balance(self, free: float, guests: Sequence[GuestSight]) -> Requests:
        """New targets, donors first; `free` is what there is beyond the 50 MiB that stay."""
        prefs = {guest.name: self.pref(guest) for guest in guests}
        needs = {guest.name: prefs[guest.name] - self._actual(guest) for guest in guests}
        left = free - sum(needs.values())
        if left > 0:
            return self._plenty(guests, prefs, left)
        donors = [g for g in guests if needs[g.name] < 0 or self._actual(g) >= g.maximum]
        gone = {g.name for g in donors}
        acceptors = [g for g in guests if g.name not in gone]
        wanted = [(g.name, prefs[g.name]) for g in donors if -needs[g.name] >= LEAST_GIFT_BYTES]
        pool = free - sum(needs[name] for name, _ in wanted)
        if pool < 0:
            return wanted
        whole = sum(prefs[g.name] for g in acceptors)
        for g in acceptors:
            size = ROUNDING * (self._actual(g) + pool * prefs[g.name] / whole)
            wanted.append((g.name, min(size, g.maximum)))
        return wanted

    def heard(self, guests: Sequence[GuestSight]) -> None:
        """Everybody has been heard, and nothing has come of it yet."""
        for guest in guests:
            self._last_target.setdefault(guest.name, guest.target)
            self._write(guest)
        self._used.update(self._written)
        self._unread.clear()

    # --- guests -------------------------------------------------------------------------------------

    def _write(self, guest: GuestSight) -> None:
        used = guest.current - guest.free - guest.cached + guest.swapped
        before = self._written.get(guest.name)
        more = 0.0 if before is None else used - before
        rising = more > TELL_RISING_BYTES and used > FULL_SHARE * guest.current
        if before is None or abs(more) > TELL_BYTES or rising:
            self._written[guest.name] = used
            self._unread.append(guest.name)

    # --- the daemon ---------------------------------------------------------------------------------

    def _actual(self, guest: GuestSight) -> float:
        return max(guest.current, self._last_target[guest.name])

    def _free(self, host: HostSight, guests: dict[str, GuestSight]) -> float:
        owed = sum(max(0.0, self._last_target[name] - guest.current) for name, guest in guests.items())
        return host.unassigned * OVERHEAD_FACTOR - owed

    def _set(self, name: str, size: float, set_to: dict[str, float]) -> None:
        set_to.pop(name, None)  # given out in the order of the last word
        set_to[name] = self._last_target[name] = size

    def _begin(self, host: HostSight, guests: dict[str, GuestSight], set_to: dict[str, float]) -> None:
        known = [guest for name, guest in guests.items() if name in self._used]
        for guest in known:
            actual = self._actual(guest)
            if actual <= self._last_target[guest.name] + FREE_LEFT_BYTES / 2 or actual < self.pref(guest):
                self._stuck.discard(guest.name)
        free = self._free(host, guests)
        wanted = self.balance(free - FREE_LEFT_BYTES, [g for g in known if g.name not in self._stuck])
        if not self._significant(wanted, free, guests):
            return
        self._before = {name: self._actual(guest) for name, guest in guests.items()}
        self._asked, self._requests, self._tries = wanted, list(wanted), TRIES
        self._go_on(host, guests, set_to)

    def _go_on(self, host: HostSight, guests: dict[str, GuestSight], set_to: dict[str, float]) -> None:
        while self._requests:
            name, size = self._requests[0]
            guest = guests.get(name)
            if guest is not None:
                if self._free(host, guests) - (size - self._actual(guest)) < 0.9 * FREE_LEFT_BYTES:
                    return
                self._set(name, size, set_to)
            self._requests.pop(0)
            self._tries = TRIES

    def _give_up(self, host: HostSight, guests: dict[str, GuestSight], set_to: dict[str, float]) -> None:
        """Whoever waits gets what there is; who had to give and did not move is stuck."""
        waiting = self._requests[0][0]
        self._requests = []
        for name, _ in self._asked:
            if name == waiting:
                break
            guest = guests.get(name)
            still = self._before.get(name) if guest is not None else None
            if guest is None or still != self._actual(guest):
                continue
            if still > self._last_target[name] + FREE_LEFT_BYTES / 4:
                self._stuck.add(name)
        if waiting in guests:
            there = self._free(host, guests) + self._actual(guests[waiting]) - FREE_LEFT_BYTES
            self._set(waiting, there, set_to)

    def _significant(self, wanted: Requests, free: float, guests: dict[str, GuestSight]) -> bool:
        if FREE_LEFT_BYTES - free > LEAST_UNDER_PREF_BYTES:
            return True
        moved = 0.0
        for name, size in wanted:
            last = self._last_target[name]
            moved += abs(size - last)
            if last < self.pref(guests[name]) and size - last > LEAST_UNDER_PREF_BYTES:
                return True
        return moved + abs(free - FREE_LEFT_BYTES) > LEAST_TRANSFER_BYTES

    def _plenty(self, guests: Sequence[GuestSight], prefs: dict[str, float], left: float) -> Requests:
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
        donors = [(g.name, sizes[g.name]) for g in guests if sizes[g.name] < self._actual(g)]
        gone = {name for name, _ in donors}
        return donors + [(g.name, sizes[g.name]) for g in guests if g.name not in gone]
