"""A VM's balloon as it is known: what its driver claims, what it was told, and what may still be in force."""

import math
from dataclasses import dataclass, field
from typing import Final

from host_controller.units import KIB

SETTLING: Final = 2.0
"""Seconds after a target of ours for which a balloon may still follow the one before."""
RETRY_SECONDS: Final = 1.0
"""After a command failed; a VM that timed out is probed by the adapter at its own pace."""
RATE_WINDOW: Final = (0.05, 2.0)
"""Seconds between two readings of a moving balloon from which its speed is worked out."""
FASTEST_INFLATION: Final = 1 << 30
"""Bytes/s: no balloon of 4 KiB pages is faster, whatever a guest makes its figures say."""

PAGE_BYTES: Final = 64 * KIB
"""A balloon moves by whole pages of its guest: no Linux has larger ones (fact: guest-pages-move-whole)."""

Followed = tuple[tuple[float, int], ...]


@dataclass(slots=True)
class Balloon:
    """Sizes are bytes in QEMU's terms: RAM less what the balloon holds, offline DIMMs counted as given."""

    actual_bytes: int = 0
    """Its size as the guest last claimed it."""
    actual_at: float = -math.inf
    claim_bytes: int = 0
    """`actual` as far as it may be spent: it falls only when resident memory, looked at later, agrees."""
    moved: bool = False
    """It was seen to move since the guest last booted."""
    target_bytes: int | None = None
    """The last target that we sent; None before the first."""
    ceiling_bytes: int = 0
    """The largest target that may still be in force: a command that failed may have been carried out."""
    sent: dict[int, int] = field(default_factory=dict)
    """Targets sent and not yet answered, by ticket."""
    followed: Followed = ()
    """Targets that it may be following, and since when: the last one, and who else held lately."""
    ours: bool = False
    """A target of ours has been in force: what a controller before us told it is not any more."""
    resend: bool = False
    """QEMU recomputed the target behind our back (a DIMM came or went), or a command failed."""
    retry_at: float = -math.inf
    """After a command failed, nothing is sent before this."""
    inflate_rate: float = 0.0
    """Measured, bytes/s; 0 before the first."""

    # --- what the guest's driver says ---

    def read(self, actual_bytes: int, now: float) -> None:
        """Take in a reading of `actual`: the claim rises at once, and falls only once it is confirmed."""
        self.actual_bytes, self.actual_at = actual_bytes, now
        if actual_bytes > self.claim_bytes:
            self.claim_bytes = actual_bytes

    def seen_moving(self) -> None:
        """The driver of the kernel that runs now wrote `actual`."""
        self.moved = True

    def confirm(self, now: float) -> None:
        """The host has counted resident memory: a claim made before may be spent."""
        if self.actual_at <= now:
            self.claim_bytes = self.actual_bytes

    def measure(self, actual_bytes: int, now: float) -> None:
        """Learn from a reading at rest how fast it inflates; called before `read`."""
        seconds, inflated = now - self.actual_at, self.actual_bytes - actual_bytes
        if inflated > 0 and RATE_WINDOW[0] <= seconds <= RATE_WINDOW[1]:
            rate = min(inflated / seconds, FASTEST_INFLATION)
            self.inflate_rate = rate if self.inflate_rate == 0 else 0.7 * self.inflate_rate + 0.3 * rate

    def ram_changed(self, change_bytes: int, added_bytes: int) -> None:
        """DIMMs came or went. QEMU keeps the ballooned amount, so what is in force moves with the RAM."""
        self.actual_bytes = max(0, self.actual_bytes + change_bytes)
        self.claim_bytes += added_bytes
        self.ceiling_bytes = max(0, self.ceiling_bytes + change_bytes)
        if self.target_bytes is not None:
            self.target_bytes = max(0, self.target_bytes + change_bytes)
        self.followed = tuple((since, max(0, size + change_bytes)) for since, size in self.followed)
        self.resend = True

    def presume(self, actual_bytes: int) -> None:
        """What the hypervisor's own description says, which is not its driver's word."""
        self.read(actual_bytes, -math.inf)

    # --- what it is told ---

    def starts_with(self, target_bytes: int) -> None:
        """The hypervisor starts it with this target."""
        self.target_bytes, self.ours = target_bytes, True

    def start_anew(self, ram_bytes: int, target_bytes: int) -> None:
        """The guest's kernel starts again: nothing that its driver once said holds, and it is told this."""
        self.moved = False
        self.claim_bytes = ram_bytes
        self.target_bytes, self.resend = target_bytes, True

    def forget_target(self) -> None:
        """We do not know what it was last told."""
        self.target_bytes = None

    def send(self, ticket: int, target_bytes: int, entitled_bytes: int, now: float) -> None:
        """A target is on its way; `entitled_bytes` was in force. It may come to that from now on."""
        before = self.still_followed(now) or ((-math.inf, entitled_bytes),)
        self.followed = (*before, (now, target_bytes))
        self.target_bytes = target_bytes
        if target_bytes > self.ceiling_bytes:
            self.ceiling_bytes = target_bytes
        self.sent[ticket] = target_bytes
        self.resend = False

    def answered(self, ticket: int, error: str | None, now: float) -> None:
        """The hypervisor answered a command; one that is no target is passed over."""
        target = self.sent.pop(ticket, None)
        if target is None:
            return
        if error is not None:
            self.resend, self.retry_at = True, now + RETRY_SECONDS
            return
        self.ours = True
        if not self.sent:
            # Commands to one VM are carried out in order, so this one is in force.
            self.ceiling_bytes = target

    def aim(self, target_bytes: int) -> None:
        """Another target is to be sent when it may be."""
        self.target_bytes, self.resend = target_bytes, True

    def say_again(self) -> None:
        """The target is to be sent once more: QEMU may have another."""
        self.resend = True

    def unsend(self, ticket: int, before: "Balloon") -> None:
        """That target was never sent (a dry run): what it was told is what it was before."""
        self.sent.pop(ticket, None)
        self.target_bytes, self.ceiling_bytes = before.target_bytes, before.ceiling_bytes
        self.followed, self.resend = before.followed, before.resend

    def still_followed(self, now: float) -> Followed:
        """The targets that it may be following: the last, and those that were replaced only lately."""
        followed = self.followed
        if followed and now - followed[-1][0] > SETTLING:
            return followed[-1:]  # most of them
        first = 0
        while first + 1 < len(followed) and now - followed[first + 1][0] > SETTLING:
            first += 1
        return followed[first:]
