"""Who gives what lies within its dead band, since that and what is free make the whole DIMM that another VM
waits for; and who needs all of a DIMM, since it lacks a part of one.

A DIMM is paid for at full size. So differences that are not worth a command of their own could keep a VM from
its next DIMM for as long as memory is short. And a guest without swap that has run out is seen to need a
margin more, however much it waits for: nobody would ever be asked for a whole DIMM. Sizes are bytes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from host_controller.core.policy.dead_band import SMALLEST_DEAD_BAND
from host_controller.core.policy.spare import heard_lately, spare_bytes
from host_controller.core.vm.record import Vm
from host_controller.units import MIB

PATIENCE_SECONDS: Final = 1.0
"""What is on its way already, or is given by whoever has much too much, comes within that."""
WHOLE_SECONDS: Final = 2.0
"""Noise and bursts are over, and a guest that was squeezed for the DIMM before goes on (`squeeze.py`)."""
BEYOND_BYTES: Final = 8 * MIB
"""What others cost changes a little until the DIMM is paid for."""
LEAST_PARTS: Final = 4
"""Nobody is asked for a DIMM of more than a quarter of what its VM has, as where its slots are few."""


class Candidate(NamedTuple):
    """A VM that may be moved now."""

    vm: Vm
    guest_charge: int
    """The part of its charge that a balloon target changes."""
    granted_bytes: int
    goal_bytes: int
    """What the balance gives it."""

    @property
    def excess_bytes(self) -> int:
        """What it has beyond its goal; negative below that."""
        return self.granted_bytes - self.goal_bytes


@dataclass(slots=True)
class DimmsWanted:
    """Who waits for a DIMM only since so much is not free."""

    _wanted: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Since when, and of what size, by UUID."""

    def note(self, wanted: Mapping[str, int], now: float) -> None:
        """All who wait after this round, and the smallest DIMM that would help each."""
        if wanted or self._wanted:
            self._wanted = {
                uuid: (self._wanted.get(uuid, (now, 0))[0], size) for uuid, size in wanted.items()
            }

    def lasting(self, now: float) -> dict[str, int]:
        """Who has waited for long, and the smallest DIMM that would help each, by UUID."""
        return {uuid: size for uuid, (since, size) in self._wanted.items() if now - since >= WHOLE_SECONDS}

    def givers(self, candidates: Collection[Candidate], headroom_bytes: int, now: float) -> frozenset[str]:
        """The UUIDs of those who together make the smallest of these DIMMs, as few as will do; nobody where
        all of them do not, or where nobody has waited for long.
        """
        behind = {one.vm.config.uuid for one in candidates if one.excess_bytes < 0}
        sizes = [
            size
            for uuid, (since, size) in self._wanted.items()
            if uuid in behind and now - since >= PATIENCE_SECONDS
        ]
        if not sizes:
            return frozenset()
        return _givers(candidates, min(sizes) - max(0, headroom_bytes), now)

    def __bool__(self) -> bool:
        return bool(self._wanted)


def _givers(candidates: Collection[Candidate], short_bytes: int, now: float) -> frozenset[str]:
    """Counted is what a guest has beyond its goal and can spare at once, and what was asked of it already."""
    offers: list[tuple[int, str]] = []
    for one in candidates:
        vm, excess = one.vm, one.excess_bytes
        short_bytes -= max(0, one.guest_charge - vm.entitled_bytes)
        if excess < SMALLEST_DEAD_BAND or vm.progress.stuck(now) or not heard_lately(vm, now):
            continue
        excess = min(excess, spare_bytes(vm))
        if excess >= SMALLEST_DEAD_BAND:
            offers.append((excess, vm.config.uuid))
    chosen = set()
    for excess, uuid in sorted(offers, reverse=True):
        if short_bytes <= 0:
            break
        short_bytes -= excess
        chosen.add(uuid)
    return frozenset(chosen) if short_bytes <= 0 else frozenset()
