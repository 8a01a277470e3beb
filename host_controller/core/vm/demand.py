"""How much memory a guest's work needs: from what its own kernel says, never from how much it was given.

demand = usable - available of one reading, so the kernel, its reserved memory, its page structures and its
watermarks are part of it (MemAvailable is what is left above them), and cache that can be dropped is not.
Three things that `available` cannot show are added, each bounded and each fading when its cause is gone:

- swap that is really in use: what was swapped in lately, not what lies cold on disk;
- a working set of cache: when the kernel reads back what it just dropped, the cache is too small;
- stalls (PSI), but only together with low headroom, root-level refaults or swap-ins: a container over its
  own limit stalls in a guest with memory to spare (fact: container-stalls).
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from host_controller.core.model import GuestFacts, Limits
from host_controller.units import MIB

SLOPE_TIME: Final = 0.5
"""Time constant of the growth rate, seconds: one calm report interval."""
LOOK_AHEAD: Final = 1.0
"""Seconds of present growth that are granted ahead: report, decision and actuator take about as long."""
LOOK_AHEAD_NOISE_BYTES: Final = 8 * MIB
LEAST_MARGIN_BYTES: Final = 16 * MIB
SWAP_WINDOW: Final = 30.0
"""Swap that would be read back within so many seconds at the present rate is in use."""
REFAULT_NOISE: Final = 1 * MIB
"""Refaults below this rate, bytes/s, are programs starting."""
CACHE_HALF_LIFE: Final = 600.0
STALL_THRESHOLD: Final = 0.10
"""Share of time in which some task waits for memory."""
STALL_STEP: Final = 0.05
"""One raise, as a share of demand; at most one a second."""
STALL_LIMIT: Final = 0.25
STALL_HALF_LIFE: Final = 30.0
STALL_PATIENCE: Final = 3
"""Raises without relief after which there are no more for a while."""
STALL_REST: Final = 60.0


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
    irreducible_bytes: int
    """Need without what can be dropped and without growth: below it the guest cannot go."""
    desired_bytes: int

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


@dataclass(slots=True)
class Demand:
    """The memory of one guest's demand: feed it every reading, ask it for an estimate."""

    last: GuestFacts | None = None
    counted: GuestFacts | None = None
    """The last one with counters of its own moment."""
    slope: float = 0.0
    """Growth of usable - available, bytes/s."""
    swap_in_rate: float = 0.0
    refault_rate: float = 0.0
    stall_share: float = 0.0
    cache_bytes: float = 0.0
    stall_bytes: float = 0.0
    _raised_at: float = -math.inf
    _raises_in_vain: int = 0
    _share_when_raised: float = 0.0
    _usable_when_raised: int = 0
    _peaks: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def stalls(self) -> bool:
        """It has been waiting for memory: what it is given it takes at once."""
        return self.stall_share >= STALL_THRESHOLD

    def observe(self, facts: GuestFacts) -> None:
        """Take in a reading; one of another boot starts afresh."""
        last, self.last = self.last, facts
        if last is None or last.boot_id != facts.boot_id or last.from_agent != facts.from_agent:
            self._start_afresh()
            self.counted = facts if facts.counted else None
            return
        seconds = facts.at - last.at
        if seconds <= 0.0:
            return
        self._follow_growth(last, facts, seconds)
        if not facts.counted:
            return
        before, self.counted = self.counted, facts
        if before is None:
            return
        if before is not last:
            seconds = facts.at - before.at
        self._follow_swap(before, facts, seconds)
        self._follow_cache(before, facts, seconds)
        self._follow_stalls(before, facts, seconds)

    def estimate(self, limits: Limits, now: float) -> Estimate | None:
        """What the guest needs now; None before the first reading.

        Everything lies within the limits: minimum <= irreducible <= need <= desired <= maximum.
        """
        facts = self.last
        if facts is None:
            return None
        usable = facts.usable_bytes
        guest = facts.demand_bytes
        swapped = facts.swap_used_bytes
        hot_swap = min(swapped, int(self.swap_in_rate * SWAP_WINDOW)) if swapped else 0
        cache = int(self.cache_bytes)
        stall = int(self.stall_bytes)
        ahead = int(self.slope * LOOK_AHEAD)
        ahead = min(ahead, max(guest // 2, 64 * MIB)) if ahead > LOOK_AHEAD_NOISE_BYTES else 0
        margin = margin_bytes(usable)
        demand = guest + hot_swap + cache + stall

        # What it grows by until memory could get there it must have before anybody's buffer is filled.
        irreducible = max(guest + margin, facts.least_usable_bytes)
        need = max(irreducible, demand + margin + ahead)
        desired = need + demand * limits.buffer_percent // 100
        least, most = limits.minimum_bytes, limits.maximum_bytes
        if irreducible < least:
            irreducible, need, desired = least, max(least, need), max(least, desired)
        if desired > most:
            irreducible, need, desired = min(most, irreducible), min(most, need), most
        # By position: by keyword it takes twice as long, 1.3 % of what a step takes for each VM.
        return Estimate(
            now, usable, guest, hot_swap, cache, stall, ahead, margin, demand, need, irreducible, desired
        )

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
        self.slope = self.swap_in_rate = self.refault_rate = self.stall_share = 0.0
        self.cache_bytes = self.stall_bytes = 0.0
        self._raises_in_vain = 0
        self._peaks.clear()

    def _follow_growth(self, last: GuestFacts, facts: GuestFacts, seconds: float) -> None:
        rate = (facts.demand_bytes - last.demand_bytes) / seconds
        self.slope = max(0.0, _blend(self.slope, rate, seconds, SLOPE_TIME))

    def _follow_swap(self, last: GuestFacts, facts: GuestFacts, seconds: float) -> None:
        rate = _rate(last.swap_in_bytes, facts.swap_in_bytes, seconds)
        self.swap_in_rate = _blend(self.swap_in_rate, rate, seconds, SWAP_WINDOW)

    def _follow_cache(self, last: GuestFacts, facts: GuestFacts, seconds: float) -> None:
        refaulted = max(0, facts.refault_bytes - last.refault_bytes)
        self.refault_rate = _blend(self.refault_rate, refaulted / seconds, seconds, 1.0)
        self.cache_bytes *= 0.5 ** (seconds / CACHE_HALF_LIFE)
        if self._refaulting(facts):
            # The cache that there is was too small by at most what came back; it cannot overshoot,
            # since refaults end as soon as the working set fits.
            step = min(refaulted, facts.usable_bytes // 16)
            self.cache_bytes = max(self.cache_bytes, float(facts.reclaimable_bytes + step))

    def _follow_stalls(self, last: GuestFacts, facts: GuestFacts, seconds: float) -> None:
        if last.stall_us is None or facts.stall_us is None:
            return
        share = min(1.0, max(0, facts.stall_us - last.stall_us) / (seconds * 1e6))
        self.stall_share = _blend(self.stall_share, share, seconds, 1.0)
        self.stall_bytes *= 0.5 ** (seconds / STALL_HALF_LIFE)
        if not self.stalls:
            self._raises_in_vain = 0
            return
        if not (self._headroom_low(facts) or self._refaulting(facts) or self.swap_in_rate > REFAULT_NOISE):
            return
        if self._raises_in_vain >= STALL_PATIENCE and facts.at - self._raised_at < STALL_REST:
            return
        if facts.at - self._raised_at < 1.0:
            return
        granted = facts.usable_bytes > self._usable_when_raised
        relieved = self.stall_share < 0.8 * self._share_when_raised
        self._raises_in_vain = self._raises_in_vain + 1 if granted and not relieved else 0
        self._raised_at = facts.at
        self._share_when_raised, self._usable_when_raised = self.stall_share, facts.usable_bytes
        step = facts.demand_bytes * STALL_STEP
        self.stall_bytes = min(self.stall_bytes + step, facts.demand_bytes * STALL_LIMIT)

    def _refaulting(self, facts: GuestFacts) -> bool:
        """Root-level refaults: with plenty free, it is some container's own limit that reclaims."""
        scarce = facts.free_bytes <= max(2 * facts.floor_bytes, facts.usable_bytes // 16)
        return scarce and self.refault_rate > REFAULT_NOISE

    @staticmethod
    def _headroom_low(facts: GuestFacts) -> bool:
        return facts.available_bytes <= facts.floor_bytes + facts.usable_bytes // 16


def _rate(before: int, after: int, seconds: float) -> float:
    return max(0, after - before) / seconds


def _blend(old: float, new: float, seconds: float, time_constant: float) -> float:
    """Exponential average over unevenly spaced readings."""
    return old + (new - old) * (1.0 - math.exp(-seconds / time_constant))
