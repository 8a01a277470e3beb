"""A VM's DIMMs as they are known."""

import math
from dataclasses import dataclass, field

from host_controller.core.model import Dimm


@dataclass(slots=True)
class Dimms:
    """What is plugged, and since when something could be done without. Sizes are bytes."""

    plugged: tuple[Dimm, ...] = ()
    bytes: int = field(init=False)
    """Of all that is plugged."""
    changed_at: float = -math.inf
    survivors: frozenset[str] = frozenset()
    """Aliases that were plugged when the VM was last reset: its new kernel has never used them."""
    roomy_since: float = math.inf
    """Since when the last one could have been done without."""

    def __post_init__(self) -> None:
        self.bytes = sum(dimm.size_bytes for dimm in self.plugged)

    def change(self, plugged: tuple[Dimm, ...], now: float) -> tuple[int, int]:
        """Take in the whole list; returns how much has come and how much has gone, bytes."""
        before = {dimm.alias: dimm.size_bytes for dimm in self.plugged}
        after = {dimm.alias: dimm.size_bytes for dimm in plugged}
        added = sum(size for alias, size in after.items() if alias not in before)
        removed = sum(size for alias, size in before.items() if alias not in after)
        self.plugged, self.bytes = plugged, sum(after.values())
        if added or removed:
            self.changed_at = now
        return added, removed

    def survive(self) -> None:
        """A new kernel starts, with all of them plugged and offline."""
        self.survivors = frozenset(dimm.alias for dimm in self.plugged)

    def spare_since(self, now: float) -> float:
        """The last one could be done without; returns since when that has been so."""
        self.roomy_since = min(self.roomy_since, now)
        return self.roomy_since

    def needed(self) -> None:
        """The last one is of use again."""
        self.roomy_since = math.inf
