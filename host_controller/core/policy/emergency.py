"""When the host itself runs out: then growth stops, and what exceeds need is taken from all by weight.

It should never come to this, since charges stay within the capacity. It does when something beside the VMs
grows past the reserve. That pages of VMs go to the host's swap is an alarm, and an emergency only where the
host is low on memory as well: a large VM that boots makes it swap for a moment, and has gigabytes free then.
What is available may be told too high, so tasks that wait for memory (PSI) have twice as much count as low.
They are no evidence by themselves: a container that is held at its own limit waits on a host with memory to
spare (fact: container-stalls), and nothing that VMs could give would help it.
"""

import math
from dataclasses import dataclass
from typing import Final

from host_controller.core.model import HostFacts
from host_controller.units import MIB, format_size

START_SHARE: Final = 0.5
END_SHARE: Final = 0.75
"""Of what should stay available: it starts when less than the one is, and ends above the other."""
LOW_SHARE: Final = 64
"""Of all memory: where less should stay available, less than this is low all the same."""
STALL_PERCENT: Final = 10.0
"""Of the time some task of the host waits for memory (PSI, 10 s)."""
STALL_END_PERCENT: Final = 5.0
NEAR_FACTOR: Final = 2
"""Of what should stay available: where tasks wait, no more than this is too little for a host that swaps."""
SWAP_NOISE_BYTES: Final = 1 * MIB
SWAP_CALM_SECONDS: Final = 60.0
"""VM pages that went to swap stay there until they are touched; only fresh ones are an emergency."""


@dataclass(slots=True)
class Emergency:
    """Follows the host's own memory; `cause` is None while all is well."""

    cause: str | None = None
    since: float = -math.inf
    _swapped_bytes: int | None = None
    _swapped_at: float = -math.inf

    def observe(self, facts: HostFacts, spare_bytes: int) -> bool:
        """Take in a reading of the host; True when an emergency began or ended with it.

        `spare_bytes` is what should stay available for the host's own bursts (`Capacity.spare_bytes`).
        """
        if self._swapped_bytes is not None and facts.vm_swap_bytes > self._swapped_bytes + SWAP_NOISE_BYTES:
            self._swapped_at = facts.at
        self._swapped_bytes = facts.vm_swap_bytes
        share = END_SHARE if self.cause else START_SHARE
        found = None
        should_stay = max(spare_bytes, facts.total_bytes // LOW_SHARE)
        low = facts.available_bytes < END_SHARE * should_stay
        near = facts.available_bytes <= NEAR_FACTOR * should_stay
        stalls = (facts.psi_some_percent or 0.0) >= (STALL_END_PERCENT if self.cause else STALL_PERCENT)
        if (low or (near and stalls)) and facts.at - self._swapped_at < SWAP_CALM_SECONDS:
            why = "is low on memory" if low else "waits for memory"
            found = f"the host {why}, and {format_size(facts.vm_swap_bytes)} of VMs are in its swap"
        elif facts.available_bytes < share * spare_bytes:
            found = (
                f"only {format_size(facts.available_bytes)} are available on the host, "
                f"less than {share:.0%} of the {format_size(spare_bytes)} that should stay so"
            )
        changed = (found is None) != (self.cause is None)
        if changed:
            self.since = facts.at
        self.cause = found if changed or self.cause is None else self.cause
        return changed
