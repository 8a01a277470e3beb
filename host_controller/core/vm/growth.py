"""What is paid for and on its way to a VM, and when growth or unplug that failed may be tried again."""

import math
from dataclasses import dataclass
from typing import Final

LATE_PLUG_SECONDS: Final = 10.0
"""For so long a QEMU that answers may still be plugging a DIMM."""
LONGEST_REST: Final = 3600.0
"""The rest after a failure doubles each time, up to this."""
MOST_DOUBLINGS: Final = 64
"""More make no difference; a float holds 1,023, which an hour each are six weeks."""


@dataclass(slots=True)
class Rest:
    """One kind of operation on one VM rests after it failed; success ends that at once."""

    until: float = -math.inf
    failures: int = 0
    kept_bytes: int = 0
    """What did not leave when it failed, where all else could: only that rests. 0: all does."""

    def failed(self, rest_seconds: float, now: float, kept_bytes: int = 0) -> None:
        """Once more; `rest_seconds` is the first rest."""
        self.failures += 1
        self.kept_bytes = kept_bytes
        doublings = min(self.failures - 1, MOST_DOUBLINGS)
        self.until = now + min(LONGEST_REST, rest_seconds * 2.0**doublings)

    def succeeded(self) -> None:
        """The next failure is the first again. A rest that has begun goes on."""
        self.failures = 0

    def forgive(self) -> None:
        """Another kernel, whose drivers are new: the last one's failures say nothing of it."""
        if self.until < math.inf:
            self.until, self.failures, self.kept_bytes = -math.inf, 0, 0

    def hold(self, until: float) -> None:
        """Not before that, for another reason: all of it."""
        self.until, self.kept_bytes = until, 0

    def after_failure(self, now: float) -> float:
        """Seconds for which it still rests because it failed. 0: it does not, or for another reason."""
        rests = self.failures > 0 and now < self.until < math.inf
        return self.until - now if rests else 0.0


@dataclass(slots=True)
class PaidPlug:
    """A DIMM on its way counts whole before it is asked for."""

    pending_bytes: int = 0
    awaited_until: float = math.inf
    """Finite: a controller before us asked for that DIMM; it may come until QEMU answers after this."""

    def pay(self, size_bytes: int) -> None:
        """From now on it is charged."""
        self.pending_bytes = size_bytes

    def settle(self) -> None:
        """It is there and counts as RAM, or it will not come."""
        self.pending_bytes = 0

    def inherit(self, size_bytes: int, now: float) -> None:
        """Somebody before us asked for it: it is paid for until it comes or QEMU, which may hang, goes on
        without it.
        """
        self.pending_bytes, self.awaited_until = size_bytes, now + LATE_PLUG_SECONDS

    @property
    def awaited(self) -> bool:
        """Somebody before us asked for it."""
        return self.awaited_until < math.inf

    def arrived(self) -> None:
        """The inherited one is there, or will not come any more."""
        self.pending_bytes, self.awaited_until = 0, math.inf
