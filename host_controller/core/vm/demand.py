"""How much memory a guest's work needs: from what its own kernel says, never from how much it was given.

demand = usable - available of one reading, so the kernel, its reserved memory, its page structures and its
watermarks are part of it (MemAvailable is what is left above them), and cache that can be dropped is not.
Three things that `available` cannot show are added, each bounded and each fading when its cause is gone:

- swap that is really in use: what was swapped in lately, not what lies cold on disk;
- a working set of cache: when the kernel reads back what it just dropped, the cache is too small;
- growth that goes on, for as long as memory takes to get there.

Stalls (PSI) are no demand (`stalls.py`), and count only together with low headroom, root-level refaults or
swap-ins: a container over its own limit stalls in a guest with memory to spare (fact: container-stalls).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from host_controller.core.model import GuestFacts, Limits
from host_controller.core.vm.dips import Dips
from host_controller.core.vm.level import Level
from host_controller.core.vm.motion import Motion, blend
from host_controller.core.vm.stalls import Stalls
from host_controller.units import MIB

LOOK_AHEAD: Final = 1.0
"""Seconds of present growth that are granted ahead: report, decision and actuator take about as long."""
LOOK_AHEAD_NOISE_BYTES: Final = 8 * MIB
LEAST_MARGIN_BYTES: Final = 16 * MIB
SWAP_WINDOW: Final = 30.0
"""Swap that would be read back within so many seconds at the present rate is in use."""
SWAP_KEPT_SHARE: Final = 4
LEAST_SWAP_KEPT_BYTES: Final = 64 * MIB
"""A quarter of a guest's free swap, and this at the least, is left to its own bursts."""
SWAPPABLE_SHARE: Final = 2
"""At most half of what its programs hold is taken to be pages that can go to swap: a report does not tell."""
REFAULT_NOISE: Final = 1 * MIB
"""Refaults below this rate, bytes/s, are programs starting."""
CACHE_HALF_LIFE: Final = 600.0


class Transit(NamedTuple):
    """What is known of memory on its way to a guest or from it, bytes."""

    aside_bytes: int = 0
    """So much at most its kernel has set aside of what leaves it (fact: blocks-set-aside)."""
    ahead_bytes: int = 0
    """So much at most it has available of what comes before it counts it (fact: available-before-counted)."""


NOTHING_MOVES: Final = Transit()


class Estimate(NamedTuple):
    """What one VM needs, bytes of usable memory, with the parts that it came from."""

    at: float
    usable_bytes: int
    guest_bytes: int
    """usable - available."""
    hot_swap_bytes: int
    cache_bytes: int
    stall_bytes: int
    ahead_bytes: int
    margin_bytes: int
    demand_bytes: int
    need_bytes: int
    """Below it the guest refaults cache that it works with, or waits while it grows."""
    irreducible_bytes: int
    """Below it the guest's kernel would kill, or refuse."""
    desired_bytes: int
    """Need and the buffer that its user wants: what is beyond is only dropped, or not even used."""
    unswapped_bytes: int = 0
    """Below it, down to `irreducible_bytes`, the guest puts pages away that its programs hold."""
    eased_bytes: int = 0
    """Need and what its stalls ask for."""

    @property
    def pressure_percent(self) -> float:
        """100 × demand ÷ usable, as in Hyper-V; a 20 % buffer makes it about 83 at rest."""
        return 100.0 * self.demand_bytes / max(1, self.usable_bytes)


def margin_bytes(usable_bytes: int) -> int:
    """What is left available to a guest at the least: nothing is measured exactly, and with 8 MiB real guests
    without swap were seen to kill the program that had just been given them.
    """
    share = usable_bytes // 64
    return share if share > LEAST_MARGIN_BYTES else LEAST_MARGIN_BYTES


def is_at_end(available_bytes: int, usable_bytes: int) -> bool:
    """A guest has next to nothing left, so that it may need more than it shows.

    Half of the margin: all of it is what is left to one that has given all it had.
    """
    return available_bytes < margin_bytes(usable_bytes) // 2


def swappable_bytes(facts: GuestFacts) -> int:
    """What a guest can put into swap of its own without coming near its end.

    By its own word: who tells of swap that it does not have is squeezed for it, and harms itself only.
    """
    if not facts.swap_free_bytes:
        return 0
    held = facts.demand_bytes - facts.kernel_bytes
    return max(0, min(spendable_swap_bytes(facts), held // SWAPPABLE_SHARE))


def spendable_swap_bytes(facts: GuestFacts) -> int:
    """What of its free swap others may make it use; negative where even less is free than is left to it."""
    free = facts.swap_free_bytes
    return free - max(LEAST_SWAP_KEPT_BYTES, free // SWAP_KEPT_SHARE)


@dataclass(slots=True)
class Demand:
    """The memory of one guest's demand: feed it every reading, ask it for an estimate."""

    last: GuestFacts | None = None
    counted: GuestFacts | None = None
    """The last one with counters of its own moment."""
    motion: Motion = field(default_factory=Motion)
    """Of usable - available."""
    level: Level = field(default_factory=Level)
    """Of usable - available, too, with what is awaited back of a dip."""
    dips: Dips = field(default_factory=Dips)
    awaited_bytes: int = 0
    """What has gone in a dip of a guest that is short, and is awaited back."""
    followed_bytes: int = 0
    """Usable - available as those two follow it: without what may only be on its way out."""
    stall: Stalls = field(default_factory=Stalls)
    swap_in_rate: float = 0.0
    refault_rate: float = 0.0
    cache_bytes: float = 0.0
    _peaks: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def stalls(self) -> bool:
        """It has been waiting for memory: what it is given it takes at once."""
        return self.stall.now

    @property
    def slope(self) -> float:
        """Growth of usable - available now, bytes/s."""
        return self.motion.slope

    def observe(self, facts: GuestFacts, transit: Transit = NOTHING_MOVES) -> None:
        """Take in a reading; one of another boot starts afresh.

        What is in transit can look like demand that comes and is gone again: of a change, what that explains
        is none.
        """
        last, self.last = self.last, facts
        seen, before_bytes = facts.demand_bytes, self.followed_bytes
        self.followed_bytes = min(max(before_bytes, seen - transit.aside_bytes), seen + transit.ahead_bytes)
        if last is None or last.boot_id != facts.boot_id or last.from_agent != facts.from_agent:
            self._start_afresh()
            self.followed_bytes = seen
            self.counted = facts if facts.counted else None
            return
        seconds = facts.at - last.at
        if seconds <= 0.0:
            return
        change = self.followed_bytes - before_bytes
        self.motion.follow(change, seconds)
        at_end = is_at_end(facts.available_bytes, facts.usable_bytes)
        self.awaited_bytes = self.dips.follow(self.followed_bytes, facts.at, at_end=at_end)
        self.level.follow(self.followed_bytes + self.awaited_bytes, change, seconds)
        if not facts.counted:
            return
        before, self.counted = self.counted, facts
        if before is None:
            return
        if before is not last:
            seconds = facts.at - before.at
        self._follow_swap(before, facts, seconds)
        self._follow_cache(before, facts, seconds)
        relievable = self._headroom_low(facts) or self._refaulting(facts) or self.swap_in_rate > REFAULT_NOISE
        self.stall.follow(before, facts, seconds, relievable=relievable)

    def estimate(self, limits: Limits, now: float) -> Estimate | None:
        """What the guest needs now; None before the first reading.

        All of it lies within the limits, and irreducible <= unswapped <= need <= eased <= desired.
        """
        facts = self.last
        if facts is None:
            return None
        usable = facts.usable_bytes
        guest = facts.demand_bytes
        swapped = facts.swap_used_bytes
        hot_swap = min(swapped, int(self.swap_in_rate * SWAP_WINDOW)) if swapped else 0
        cache = int(self.cache_bytes)
        stall = int(self.stall.raise_bytes)
        margin = margin_bytes(usable)
        ahead = int(self.motion.growth * LOOK_AHEAD)
        ahead = min(ahead, max(guest // 2, 64 * MIB)) if ahead > LOOK_AHEAD_NOISE_BYTES else 0
        demand = guest + hot_swap + cache

        # What it grows by until memory could get there it must have before anybody's buffer is filled.
        unswapped, need = guest + margin, demand + margin + ahead
        irreducible = unswapped - swappable_bytes(facts)
        bound = facts.least_usable_bytes
        if irreducible < bound:
            irreducible, unswapped, need = bound, max(bound, unswapped), max(bound, need)
        buffer = demand * limits.buffer_percent // 100
        eased, desired = need + stall, need + (buffer if buffer > stall else stall)
        least, most = limits.minimum_bytes, limits.maximum_bytes
        if irreducible < least:
            irreducible, unswapped, need = least, max(least, unswapped), max(least, need)
            eased, desired = max(least, eased), max(least, desired)
        if desired > most:
            irreducible, unswapped, need = min(most, irreducible), min(most, unswapped), min(most, need)
            eased, desired = min(most, eased), most
        # By position: by keyword it takes twice as long, 1.3 % of what a step takes for each VM.
        return Estimate(
            now, usable, guest, hot_swap, cache, stall, ahead, margin,
            demand, need, irreducible, desired, unswapped, eased,
        )  # fmt: skip

    def peak(self, desired_bytes: int, window_seconds: float, now: float) -> int:
        """The largest `desired` of the last window, this one included: what an excess is measured from."""
        peaks = self._peaks
        while peaks and peaks[-1][1] <= desired_bytes:
            peaks.pop()
        peaks.append((now, desired_bytes))
        while peaks[0][0] < now - window_seconds:
            peaks.popleft()
        return peaks[0][1]

    def _start_afresh(self) -> None:
        self.motion, self.level, self.stall, self.dips = Motion(), Level(), Stalls(), Dips()
        self.awaited_bytes = 0
        self.swap_in_rate = self.refault_rate = self.cache_bytes = 0.0
        self._peaks.clear()

    def _follow_swap(self, last: GuestFacts, facts: GuestFacts, seconds: float) -> None:
        rate = _rate(last.swap_in_bytes, facts.swap_in_bytes, seconds)
        self.swap_in_rate = blend(self.swap_in_rate, rate, seconds, SWAP_WINDOW)

    def _follow_cache(self, last: GuestFacts, facts: GuestFacts, seconds: float) -> None:
        refaulted = max(0, facts.refault_bytes - last.refault_bytes)
        self.refault_rate = blend(self.refault_rate, refaulted / seconds, seconds, 1.0)
        self.cache_bytes *= 0.5 ** (seconds / CACHE_HALF_LIFE)
        if self._refaulting(facts):
            # The cache that there is was too small by at most what came back; it cannot overshoot,
            # since refaults end as soon as the working set fits.
            step = min(refaulted, facts.usable_bytes // 16)
            self.cache_bytes = max(self.cache_bytes, float(facts.reclaimable_bytes + step))

    def _refaulting(self, facts: GuestFacts) -> bool:
        """Root-level refaults: with plenty free, it is some container's own limit that reclaims."""
        scarce = facts.free_bytes <= max(2 * facts.floor_bytes, facts.usable_bytes // 16)
        return scarce and self.refault_rate > REFAULT_NOISE

    @staticmethod
    def _headroom_low(facts: GuestFacts) -> bool:
        return facts.available_bytes <= facts.floor_bytes + facts.usable_bytes // 16


def _rate(before: int, after: int, seconds: float) -> float:
    return max(0, after - before) / seconds
