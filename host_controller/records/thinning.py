"""What of a VM's figures is worth a row on disk: changes that one would see in a plot, within a budget."""

from typing import Final

from host_controller.records.samples import Sample

APART_SECONDS: Final = 20.0
"""Ordinary changes are written at most this often: 4,320 rows of 45 bytes a day at worst."""
REPEAT_SECONDS: Final = 300.0
"""A VM at rest is written this often, so that a gap means that nobody looked."""
SEEN_SHARE: Final = 100
SEEN_BYTES: Final = 4 << 20
"""A change below 1/100 or 4 MiB cannot be seen in a plot."""
JUMP_SHARE: Final = 20


class Allowance:
    """A token bucket. Times are seconds of the caller's clock."""

    __slots__ = ("_at", "_burst", "_per_second", "_tokens", "refused")

    def __init__(self, burst: int, per_hour: float) -> None:
        self.refused = 0
        """Since the last one that was let through was told."""
        self._burst = self._tokens = float(burst)
        self._per_second = per_hour / 3600
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more is within the budget."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        return True


class Thinner:
    """Chooses the samples of one VM."""

    __slots__ = ("_jumps", "_last")

    def __init__(self) -> None:
        self._last: Sample | None = None
        self._jumps = Allowance(60, 40)

    def wanted(self, sample: Sample) -> bool:
        """Whether to write this one."""
        last = self._last
        if last is not None:
            age = sample.at - last.at
            if age < REPEAT_SECONDS and not _moved(last, sample, SEEN_SHARE):
                return False
            jumped = last.phase is not sample.phase or _moved(last, sample, JUMP_SHARE)
            if age < APART_SECONDS and not (jumped and self._jumps.take(sample.at)):
                return False
        self._last = sample
        return True


def _moved(last: Sample, sample: Sample, share: int) -> bool:
    if last.phase is not sample.phase:
        return True
    for before, after in zip(last[1:10], sample[1:10], strict=True):
        if before is None or after is None:
            if before is not after:
                return True
        elif abs(after - before) > max(SEEN_BYTES, before // share):
            return True
    return False
