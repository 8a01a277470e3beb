"""Where a guest's demand is, apart from noise: what comes and is gone again before memory could follow it.

Memory takes about a second to get from one guest to another. Demand that is up in one second and down in
the next is over by then: whoever follows it moves memory back and forth for nothing, and for ever. So goals
are made from the level, and what the noise adds to it is asked for beside it, before anybody's buffer. Waves
of more than five seconds are no noise, nor is a step: of them the level is the demand itself.
"""

from dataclasses import dataclass
from typing import Final

from host_controller.core.vm.motion import blend
from host_controller.units import MIB

LOOK_SECONDS: Final = 1.0
"""Demand is compared with what it was so long before: about as long as memory takes to arrive."""
LEARN_SECONDS: Final = 20.0
FORGET_SECONDS: Final = 60.0
"""Time constants of the noise, as it grows and as it goes: the estimate of noise that lasts holds still."""
PEAKS_SECONDS: Final = 240.0
"""Time constant of its peaks as they go. Goals are made from them, and would move with them."""
LEAST_TURNING: Final = 0.12
"""Below, something came and went now and then: its peaks are forgotten like its noise."""
MOST_LASTING: Final = 2.5
"""Times the noise that there is now: a guest that has become calm is not taken for a noisy one for long."""
LEVEL_SECONDS: Final = 60.0
"""Time constant of the level within the noise."""
PEAKS: Final = 3.5
"""So many times the noise its peaks are above the level: of normal noise 2.8 standard deviations.

Fewer, where it never turns by much more than on average: a saw of two seconds turns by its height each time,
and never goes farther. Normal noise turns by 2.4 times as much now and then.
"""
LEAST_PEAKS_BYTES: Final = 8 * MIB
"""Less is no noise worth speaking of."""


@dataclass(slots=True)
class Level:
    """Of one guest's demand, bytes."""

    demand_bytes: float = 0.0
    """At most `peaks_bytes` away from what it is now; 0 before the first change."""
    noise: float = 0.0
    """What one second's change takes back of the last one's, less what it adds to it, mean; 0 at the least.

    Of independent normal noise 0.8 standard deviations. A wave goes on in its direction more than it turns.
    """
    turning: float = 0.0
    """The share of looks at which demand turned, 0 to 1: of noise that comes all the time 0.4."""
    lasting_noise: float = 0.0
    """What the noise has come to, forgotten more slowly."""
    farthest: float = 0.0
    """The most that one second's change took back of the last one's, forgotten like the peaks."""
    _last: float = 0.0
    _change: float = 0.0
    _seconds: float = 0.0

    @property
    def peaks_bytes(self) -> int:
        """How far demand goes above its level and comes back; 0 without noise."""
        noise, farthest = self.lasting_noise, self.farthest
        peaks = int(min(PEAKS * noise, farthest * farthest / noise)) if noise else 0
        return peaks if peaks > LEAST_PEAKS_BYTES else 0

    def follow(self, demand_bytes: int, change_bytes: int, seconds: float) -> None:
        """Take in demand as it is now, and its change in the `seconds` (> 0) since the last word."""
        self._change += change_bytes
        self._seconds += seconds
        if self._seconds >= LOOK_SECONDS:
            self._learn()
        width = self.peaks_bytes
        level = blend(self.demand_bytes, demand_bytes, seconds, LEVEL_SECONDS)
        self.demand_bytes = min(max(level, demand_bytes - width), demand_bytes + width)

    def _learn(self) -> None:
        change, last = self._change, self._last
        # The smaller of the two, as it is when one takes back of the other, and negative when it adds to it.
        turned = (abs(change - last) - abs(change + last)) / 2
        self.farthest = max(turned, blend(self.farthest, 0.0, self._seconds, PEAKS_SECONDS))
        time_constant = LEARN_SECONDS if turned > self.noise else FORGET_SECONDS
        self.noise = max(0.0, blend(self.noise, turned, self._seconds, time_constant))
        self.turning = blend(self.turning, float(turned > self.noise / 2), self._seconds, FORGET_SECONDS)
        faded = blend(self.lasting_noise, self.noise, self._seconds, PEAKS_SECONDS)
        most = MOST_LASTING if self.turning > LEAST_TURNING else 1.0
        self.lasting_noise = min(max(self.noise, faded), most * self.noise)
        self._last, self._change, self._seconds = change, 0.0, 0.0
