"""Virtual time: an agenda of things to be done, in an order that depends on nothing but itself."""

import heapq
import math
from collections.abc import Callable
from typing import Final

Action = Callable[[], None]

LAST: Final = 1
"""Order within one instant: the controller decides when all that happened at that time is known."""


class Agenda:
    """Runs actions at their virtual time.

    Times are rounded up to whole multiples of `resolution` seconds, so that what happens almost
    together is handled together; within one instant the order is that of being scheduled.
    """

    def __init__(self, resolution: float = 0.01) -> None:
        if resolution <= 0:
            raise ValueError(f"a resolution of {resolution} s; more than 0 is needed")
        self.resolution = resolution
        self.now = 0.0
        self._tick = 0
        self._made = 0
        self._heap: list[tuple[int, int, int, Action]] = []

    def at(self, when: float, action: Action, order: int = 0) -> None:
        """Do the action at a time, seconds; now, if the time has passed."""
        tick = max(self._tick, math.ceil(when / self.resolution - 1e-6))
        self._made += 1
        heapq.heappush(self._heap, (tick, order, self._made, action))

    def after(self, seconds: float, action: Action, order: int = 0) -> None:
        """Do the action that many seconds from now."""
        self.at(self.now + seconds, action, order)

    def run_until(self, when: float) -> None:
        """Do everything that is due up to and including a time."""
        last = math.floor(when / self.resolution + 1e-6)
        heap = self._heap
        while heap and heap[0][0] <= last:
            tick, _, _, action = heapq.heappop(heap)
            if tick != self._tick:
                self._tick = tick
                self.now = tick * self.resolution
            action()
        self._tick = last
        self.now = last * self.resolution
