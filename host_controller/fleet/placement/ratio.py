"""The allocation ratio of a host's memory, by which Placement counts what still fits there. Pure.

Nova charges an instance its flavor's whole memory. A host that gives its VMs less can take more than that,
so what may be allocated there is what is allocated, and what a start would truly be given. Only the ratio is
set: Nova writes all the rest of an inventory itself.

While an instance moves, Nova has it allocated twice: at its destination under its own UUID, and at its source
under the migration's, which is no domain's. So the source counts it once more, as one that is coming, and
offers less by so much until Nova takes that allocation away: after a live migration at once, after a resize
when it is confirmed, and one that is reverted does come back there. Placement does not say of an allocation
which of both it is. Too little is offered for that time, at a host that is being left, and never too much.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from host_controller.fleet.core.model import HostFigures, mib_down

DECIMALS: Final = 4
SMALLEST: Final = 10**-DECIMALS
"""Placement wants more than zero."""
LARGEST: Final = 16.0
"""Beyond it something is wrong with the figures."""
BAND: Final = 0.01
"""A ratio that changes by less is not written: it would be one request a host and turn."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Memory as Placement has it for one host, in MiB."""

    total_mib: int
    reserved_mib: int
    ratio: float
    allocated: Mapping[str, int]
    """MiB by the instance's UUID, which is its domain's."""

    @property
    def used_mib(self) -> int:
        """The sum of what is allocated, MiB."""
        return sum(self.allocated.values())


def ratio_of(inventory: Inventory, figures: HostFigures | None) -> float | None:
    """The ratio that should be set; None: the one that is set is near enough, or none can be worked out.

    A host that does not answer offers nothing beside what it has.
    """
    base = inventory.total_mib - inventory.reserved_mib
    if base <= 0:
        return None
    free = 0
    if figures is not None:
        here = {vm.uuid for vm in figures.running}
        coming = sum(size for uuid, size in inventory.allocated.items() if uuid not in here)
        free = max(0, mib_down(figures.admits_bytes) - coming)
    # Upwards: what is allocated already must fit.
    wanted = math.ceil((inventory.used_mib + free) / base / SMALLEST) * SMALLEST
    wanted = round(min(LARGEST, max(SMALLEST, wanted)), DECIMALS)
    if free == 0:  # a band would be offered all the same
        return None if wanted == inventory.ratio else wanted
    near = abs(wanted - inventory.ratio) <= BAND * inventory.ratio
    fits = int(base * inventory.ratio) >= inventory.used_mib
    return None if near and fits else wanted
