"""The last hour of every VM in memory, as fast as it came, within a bound on all of them together."""

import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from host_controller.core.policy.balance import Claims
from host_controller.core.vm.record import Phase, Vm

KEPT_SECONDS: Final = 3600.0
LARGEST_COUNT: Final = 1_000_000
"""Of all VMs together; at about 100 bytes each. Beyond it the fullest VM loses its oldest quarter."""
REPEAT_SECONDS: Final = 10.0
"""A VM whose figures stay the same is written down this often."""

_PAGE: Final = 4096
_NOTHING: Final = 0xFFFFFFFF
_PACKED: Final = struct.Struct("<d9IfBf")
_PHASES: Final = tuple(Phase)


class Sample(NamedTuple):
    """One VM at one moment. Sizes are bytes, to 4 KiB; None where there is no such figure."""

    at: float
    assigned_bytes: int | None
    demand_bytes: int | None
    need_bytes: int | None
    desired_bytes: int | None
    goal_bytes: int | None
    target_bytes: int | None
    actual_bytes: int | None
    charge_bytes: int | None
    usable_bytes: int | None
    pressure_percent: float
    phase: Phase
    report_age_seconds: float
    """Since the guest was last heard; infinite before the first time."""


STORED: Final = Sample._fields[1:9]
"""The sizes that history keeps, too. Its columns and the API's figures are called like these."""


def sample_of(vm: Vm, claims: Claims | None, goal_bytes: int | None, charge_bytes: int, now: float) -> Sample:
    """The VM as it is now. What it desires is what was asked for it, where it took part in the balance: an
    estimate knows of no block that is offline or on its way.
    """
    estimate = vm.guest.estimate
    desired = estimate.desired_bytes if estimate else None
    return Sample(
        now,
        vm.assigned_bytes,
        estimate.demand_bytes if estimate else None,
        estimate.need_bytes if estimate else None,
        desired if claims is None else claims.desired,
        goal_bytes,
        vm.balloon.target_bytes,
        vm.balloon.actual_bytes,
        charge_bytes,
        estimate.usable_bytes if estimate else None,
        estimate.pressure_percent if estimate else 0.0,
        vm.phase,
        now - vm.guest.facts.at if vm.guest.facts else float("inf"),
    )


class Samples:
    """Ring buffers of packed samples, one per VM, by UUID."""

    def __init__(self, largest_count: int = LARGEST_COUNT) -> None:
        self._rings: dict[str, deque[bytes]] = {}
        self._last: dict[str, Sample] = {}
        self._count = 0
        self._largest_count = largest_count

    def __len__(self) -> int:
        return self._count

    def add(self, uuid: str, sample: Sample) -> bool:
        """Keep the sample if it says something new; returns whether it was kept."""
        last = self._last.get(uuid)
        if last is not None and last[1:-1] == sample[1:-1] and sample.at - last.at < REPEAT_SECONDS:
            return False
        self._last[uuid] = sample
        ring = self._rings.setdefault(uuid, deque())
        ring.append(_pack(sample))
        self._count += 1
        while _time(ring[0]) < sample.at - KEPT_SECONDS:
            ring.popleft()
            self._count -= 1
        if self._count > self._largest_count:
            self._shed()
        return True

    def of(self, uuid: str, since: float = 0.0) -> list[Sample]:
        """The samples of a VM from `since` on, oldest first; also of one that has stopped lately."""
        return [unpack(one) for one in self._rings.get(uuid, ()) if _time(one) >= since]

    def packed(self, uuid: str) -> list[bytes]:
        """All samples of a VM as they are kept, for `unpack`: a long list is better unpacked in parts."""
        return list(self._rings.get(uuid, ()))

    def assigned_at(self, uuid: str, moments: Sequence[float]) -> list[int | None]:
        """What a VM had at these moments, each a time of the samples' clock: by the sample before it."""
        ring = list(self._rings.get(uuid, ()))
        found: list[int | None] = []
        for moment in moments:
            index = bisect_right(ring, moment, key=_time)
            size = _PACKED.unpack_from(ring[index - 1])[1] if index else _NOTHING
            found.append(None if size == _NOTHING else size * _PAGE)
        return found

    def last(self, uuid: str) -> Sample | None:
        """The newest sample of a VM."""
        return self._last.get(uuid)

    def forget_before(self, when: float) -> None:
        """Drop what is older, and VMs of which nothing is left; called now and then."""
        for uuid, ring in list(self._rings.items()):
            while ring and _time(ring[0]) < when:
                ring.popleft()
                self._count -= 1
            if not ring:
                del self._rings[uuid], self._last[uuid]

    def _shed(self) -> None:
        ring = max(self._rings.values(), key=len)
        for _ in range(max(1, len(ring) // 4)):
            ring.popleft()
            self._count -= 1


def _pack(sample: Sample) -> bytes:
    sizes = (_NOTHING if size is None else min(_NOTHING - 1, max(0, size) // _PAGE) for size in sample[1:10])
    phase = _PHASES.index(sample.phase)
    return _PACKED.pack(sample.at, *sizes, sample.pressure_percent, phase, sample.report_age_seconds)


def unpack(packed: bytes) -> Sample:
    """One sample of `Samples.packed`."""
    at, *sizes, pressure, phase, age = _PACKED.unpack(packed)
    known = [None if size == _NOTHING else size * _PAGE for size in sizes]
    return Sample._make([at, *known, pressure, _PHASES[phase], age])


def _time(packed: bytes) -> float:
    return float(_PACKED.unpack_from(packed)[0])
