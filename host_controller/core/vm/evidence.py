"""What the host's own kernel says of a VM, and whether the guest's claims agree with it."""

import math
from dataclasses import dataclass
from typing import Final

from host_controller.core.vm.virtio_mem import LATE_SECONDS, VirtioMem
from host_controller.units import MIB

REFILL_BYTES: Final = 16 * MIB
REFILL_SECONDS: Final = 10.0
"""The host's khugepaged makes whole huge pages of those that a balloon has punched holes into, and fills them
with memory: by default it scans so much at once, so often."""

OVERHEAD_SECONDS: Final = 600.0
"""What QEMU took for a migration, a backup or a DIMM that was not known yet is charged for so long, and
for twice as long at most: one reading becomes no lasting charge."""


@dataclass(slots=True)
class Evidence:
    """What the host's own count says of one VM. Sizes are bytes, times those of the controller's clock."""

    resident_bytes: int = 0
    resident_at: float = -math.inf
    huge_bytes: int = 0
    """The part of resident_bytes in huge pages of the host."""
    overhead_bytes: int = 0
    """The most that QEMU was seen to take for itself in the last 10 to 20 minutes."""
    _overhead_recent_bytes: int = 0
    """The most since `_overhead_since`; what was seen before that is in overhead_bytes only."""
    _overhead_earlier_bytes: int = 0
    _overhead_since: float = -math.inf
    refilled_bytes: int = 0
    """What the host itself had filled in by `borne_out_at`, the tolerance aside."""
    borne_out_at: float = -math.inf
    """When resident memory last agreed with the claim, `refilled_bytes` aside."""
    excess_bytes: int = 0
    """What it surely held beyond its claim, its virtio-mem aside, when that could last be told."""
    _excess_maybe: tuple[int, float, int] | None = None
    """What a count showed above the claim, its time, and the largest size of its device told since."""
    contradiction: str | None = None
    contradicted_at: float = -math.inf
    agreed_at: float = -math.inf

    def count(self, guest_bytes: int, overhead_bytes: int, huge_bytes: int, now: float) -> None:
        """Take in the host's count of the VM's resident memory."""
        self.resident_bytes, self.resident_at, self.huge_bytes = guest_bytes, now, huge_bytes
        if now - self._overhead_since >= OVERHEAD_SECONDS:
            self._overhead_earlier_bytes, self._overhead_recent_bytes = self._overhead_recent_bytes, 0
            self._overhead_since = now
        self._overhead_recent_bytes = max(self._overhead_recent_bytes, overhead_bytes)
        self.overhead_bytes = max(self._overhead_earlier_bytes, self._overhead_recent_bytes)

    def set_apart(self, claim_bytes: int, device: VirtioMem, now: float) -> None:
        """Tell what the last count shows beside the virtio-mem device; called after each.

        While a device may grow, all above the claim may lie in it. So the excess is known only once QEMU has
        surely told what the device was when that was counted.
        """
        if not device.may_hold_bytes:
            # Nothing of it can lie in the device: it is beside what is asked for next.
            self.excess_bytes, self._excess_maybe = max(0, self.resident_bytes - claim_bytes), None
            return
        above, current = self.resident_bytes - claim_bytes, device.current_bytes
        if device.steady(now):
            self.excess_bytes, self._excess_maybe = max(0, above - current), None
            return
        before, at, largest = self._excess_maybe or (above, now, current)
        largest = max(largest, current)
        if now - at > LATE_SECONDS:
            # All that could lie in its device then has been told since, though it has not stopped moving.
            self.excess_bytes = max(0, before - largest)
            before, at, largest = above, now, current
        self._excess_maybe = before, at, largest

    def overhead_of(self, before: "Evidence") -> None:
        """The same QEMU, seen again."""
        self.overhead_bytes = self._overhead_recent_bytes = before.overhead_bytes

    def agrees(self) -> None:
        """Resident memory is not above the claim, and the host has filled nothing in."""
        self.borne_out_at = self.resident_at

    def bears_out(self, excess_bytes: int, tolerance_bytes: int, hole_bytes: int) -> bool:
        """Whether resident memory may lie so far above the claim: what the host filled in by itself is
        charged, and no lie of the guest's.

        A guest that grows for a while hides it. It is still there, as long as there are holes and huge pages
        to hold it, and shows again when the guest shrinks.
        """
        seconds = self.resident_at - self.borne_out_at
        filled = self.refilled_bytes + REFILL_BYTES * (1.0 + seconds / REFILL_SECONDS)
        if excess_bytes > tolerance_bytes + min(self.huge_bytes, filled):
            return False
        beyond = max(0, excess_bytes - tolerance_bytes)
        kept = min(self.refilled_bytes, self.huge_bytes, hole_bytes)
        if seconds >= REFILL_SECONDS or beyond <= kept:
            self.refilled_bytes, self.borne_out_at = max(beyond, kept), self.resident_at
        return True

    def find(self, contradiction: str | None, now: float) -> None:
        """What the comparison of all claims has found; None where they agree."""
        if contradiction is None:
            if self.contradiction is not None:
                self.agreed_at = now
            self.contradiction = None
        elif self.contradiction is None:
            self.contradiction, self.contradicted_at = contradiction, now
