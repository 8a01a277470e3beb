"""How a guest's demand moves: growth that goes on, told apart from what comes and goes."""

import math
from dataclasses import dataclass
from typing import Final

SLOPE_SECONDS: Final = 0.5
"""Time constant of the growth rate: one calm report interval."""
RETURN_SECONDS: Final = 2.0
"""What is back where it was within about so long came and went: memory takes half of that to arrive."""
FLUTTER_SECONDS: Final = 10.0
"""Time constant of the flutter: one step up or down is none."""
FLUTTER_SHARE: Final = 8.0
"""Growth within so many times the flutter is part of it: of noise hardly one step in a day is larger."""


@dataclass(slots=True)
class Motion:
    """Of one guest's demand. Rates are bytes/s."""

    slope: float = 0.0
    """Growth now; 0 while it falls."""
    flutter: float = 0.0
    """What goes up and comes down again, mean: the way that demand goes in a second less the way it gets."""
    growth: float = 0.0
    """Growth now, so far as it is no flutter."""
    _path: float = 0.0
    _net: float = 0.0

    def follow(self, change_bytes: int, seconds: float) -> None:
        """Take in a change of demand, `seconds` (> 0) after the last one."""
        rate = change_bytes / seconds
        self.slope = max(0.0, blend(self.slope, rate, seconds, SLOPE_SECONDS))
        self._path = blend(self._path, abs(rate), seconds, RETURN_SECONDS)
        self._net = blend(self._net, rate, seconds, RETURN_SECONDS)
        self.flutter = blend(self.flutter, self._path - abs(self._net), seconds, FLUTTER_SECONDS)
        self.growth = max(0.0, self.slope - FLUTTER_SHARE * self.flutter)


def blend(old: float, new: float, seconds: float, time_constant: float) -> float:
    """Exponential average over unevenly spaced readings."""
    return old + (new - old) * (1.0 - math.exp(-seconds / time_constant))
