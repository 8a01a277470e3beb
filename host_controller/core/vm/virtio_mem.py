"""A VM's virtio-mem device as it is known: what is plugged, what was asked for, and what may still come.

QEMU plugs nothing by itself. The guest's driver asks for blocks until the requested size is reached, and
gives back those that it can empty: the two sizes may differ for as long as the guest likes, and the driver
may close the gap at any moment. So the larger one is what the device costs.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from host_controller.core.interface import ResizeVirtioMem
from host_controller.units import MIB

LARGEST_SHRINK_RATE: Final = 1024.0 * MIB
"""Bytes/s: as fast as the fastest balloon (rule: small-steps)."""
LATE_SECONDS: Final = 2.0
"""QEMU tells a device's size once a second at most, so what it tells may be as old as this."""
PATIENCE: Final = 5.0
"""Seconds without a change after which the guest has given or taken what it can: moving the pages of a
memory block takes up to 4 s under TCG, and QEMU tells sizes once a second."""


@dataclass(slots=True)
class VirtioMem:
    """Of one VM; all zero where there is no such device. Sizes are bytes."""

    current_bytes: int = 0
    """Plugged. QEMU tells a change up to a second late."""
    requested_bytes: int = 0
    """The size last asked for, by us or by somebody else."""
    ceiling_bytes: int = 0
    """The largest size that may still be asked for: paid before it is asked, or of a command that failed."""
    unsure: bool = False
    """A command failed, or somebody else asked while one of ours was unanswered: nobody knows which size is
    asked for."""
    confirmed_bytes: int = 0
    """The last size of which it is sure that it was asked for."""
    shrink_rate: float = 0.0
    """What its guest has shown to give back in a second, bytes; 0 before the first time."""
    _before_bytes: int = 0
    """What it was asked for before it was asked for less: QEMU may not have told yet that it came to that."""
    _before_at: float = -math.inf
    """When that was last in doubt."""
    raised_at: float = -math.inf
    """When it last began to rise, as far as is known: it was asked for more, started anew or was met."""
    moved_at: float = -math.inf
    """When the current size last changed."""
    asked_at: float = -math.inf
    _met_another: bool = False
    """Somebody else asked for a size while a command of ours was unanswered."""
    _ours: set[int] = field(default_factory=set)
    """The sizes that may be in force while commands are unanswered, if nobody else asks for another."""
    _sent: dict[int, float] = field(default_factory=dict)
    """When the commands were given that are not yet answered, by ticket."""

    @property
    def may_hold_bytes(self) -> int:
        """The most that it can come to without another word of ours."""
        sizes = self.current_bytes, self.requested_bytes, self.ceiling_bytes, self._before_bytes
        return max(sizes) if any(sizes) else 0

    @property
    def unanswered(self) -> bool:
        """A command of ours may still be carried out."""
        return bool(self._sent)

    @property
    def under_way(self) -> bool:
        """It may come to, or have come to, a size that QEMU does not tell yet."""
        told = max(self.current_bytes, self.requested_bytes)
        return bool(self._sent) or self.unsure or self.may_hold_bytes > told

    @property
    def settled(self) -> bool:
        """The guest has what was asked for, no more and no less."""
        return self.current_bytes == self.requested_bytes and not self._sent and not self.unsure

    def quiet_seconds(self, now: float) -> float:
        """Since it was last asked for a size, or moved, by QEMU's word."""
        return now - max(self.moved_at, self.asked_at)

    def steady(self, now: float) -> bool:
        """What QEMU last told is what the guest has."""
        return self.settled and self.quiet_seconds(now) > LATE_SECONDS

    def rests(self, now: float) -> bool:
        """What QEMU last told is what the guest has: for long, or it came down to what was asked for."""
        came_down = self.moved_at > self.asked_at and not self._rising(now)
        return self.settled and (came_down or self.steady(now))

    def came_bytes(self, now: float) -> int:
        """What has come of what was asked for: all of it, until QEMU has surely told that it was less."""
        told = self.quiet_seconds(now) > LATE_SECONDS
        return min(self.requested_bytes, self.current_bytes) if told else self.requested_bytes

    def catch_up(self, now: float) -> None:
        """Time passes: by now QEMU has told what came of earlier sizes."""
        if not self._sent and now - self._before_at > LATE_SECONDS:
            self._before_bytes = 0

    def starts_anew(self, now: float) -> None:
        """A reset: QEMU has unplugged all, and the new kernel's driver plugs what is asked for."""
        self._may_have_risen(now)
        self.raised_at = now

    def promise(self, size_bytes: int) -> None:
        """Pay for a size that is about to be asked for."""
        self.ceiling_bytes = max(self.ceiling_bytes, size_bytes)

    def gave_back(self, size_bytes: int, at: float) -> None:
        """All that was asked for had left by then: the next time it may be twice as much.

        QEMU tells a size once a second at most: how much faster than that it went nobody can tell. What took
        less than a second was less than a second's work, so it says nothing against what was shown before.
        """
        seconds = at - self.asked_at
        before = self.shrink_rate if seconds < 1.0 else self.shrink_rate / 2
        self.shrink_rate = min(LARGEST_SHRINK_RATE, max(size_bytes * 2 / max(1.0, seconds), before))

    def release(self) -> None:
        """What was promised is not going to be asked for."""
        if not self._sent and not self.unsure:
            self.ceiling_bytes = self.requested_bytes

    def go_on_from(self, before: "VirtioMem") -> None:
        """The same device, seen again after a reconnection. What it was asked for in a command that nobody
        has answered may still come, and what it came to untold may still be there, so it stays paid until it
        is asked for a size anew.
        """
        if before.under_way:
            self.inherit(before.may_hold_bytes)

    def inherit(self, size_bytes: int) -> None:
        """It may have been asked for so much, and nobody knows what became of that."""
        self.unsure = True
        self.ceiling_bytes = max(self.ceiling_bytes, size_bytes)

    def ask(self, vm: str, ticket: int, size_bytes: int, now: float) -> ResizeVirtioMem:
        """The command for another size; from now on the guest may come to hold that much."""
        self.promise(max(size_bytes, self.requested_bytes))
        doubtful = bool(self._sent) or self.unsure
        if doubtful or (size_bytes < self.requested_bytes and self._rising(now)):
            self._may_have_risen(now)
        if doubtful or size_bytes > self.requested_bytes:
            self.raised_at = now
        if not self._sent:
            self._ours = {self.requested_bytes, self.confirmed_bytes}
        self._ours.add(size_bytes)
        self.requested_bytes, self.asked_at = size_bytes, now
        self._sent[ticket] = now
        return ResizeVirtioMem(vm, ticket, size_bytes)

    def answered(self, ticket: int, error: str | None, now: float) -> None:
        """The hypervisor answered a command; one that is not ours is passed over.

        The size before may have been in force until now, and what the command lets rise may only begin to.
        """
        given_at = self._sent.pop(ticket, None)
        if given_at is None:
            return
        if self._before_at >= given_at:
            self._before_at = now
        if self.raised_at >= given_at:
            self.raised_at = now
        self.unsure = error is not None or self._met_another
        if self._sent:
            return
        if self._met_another:
            # Whose size came last, ours or theirs, nobody knows; it may have come to either. None before is.
            self._may_have_risen(now)
            self._met_another = False
            if error is None:
                self.confirmed_bytes = self.requested_bytes
        elif error is None:
            # Commands to one VM are carried out in order, so this one is in force.
            self.ceiling_bytes = self.confirmed_bytes = self.requested_bytes

    def observe(self, current_bytes: int, requested_bytes: int | None, now: float) -> bool:
        """Take in what the hypervisor says; None: nothing was said of the request.

        Returns whether somebody else has asked for another size.
        """
        if current_bytes != self.current_bytes:
            self.current_bytes, self.moved_at = current_bytes, now
        if requested_bytes is None:
            return False
        if self._sent:
            return self._meets_another(requested_bytes, now)
        self.confirmed_bytes = requested_bytes
        if requested_bytes == self.requested_bytes:
            return False
        foreign = not self.unsure
        if requested_bytes > self.requested_bytes:
            self.raised_at = now
        elif self._rising(now):
            self._may_have_risen(now)
        self.requested_bytes = requested_bytes
        self.promise(requested_bytes)
        return foreign

    def _meets_another(self, requested_bytes: int, now: float) -> bool:
        self.confirmed_bytes = requested_bytes
        if requested_bytes in self._ours:
            return False  # carried out, though the answer is not there yet
        self.promise(requested_bytes)
        self.raised_at, self._met_another = now, True
        return True

    def _rising(self, now: float) -> bool:
        """Whether it may have come to more than QEMU last told.

        What had come to all that was asked for, and was asked for no more lately, has only fallen since.
        """
        return self.current_bytes < self.requested_bytes or now - self.raised_at <= LATE_SECONDS

    def _may_have_risen(self, now: float) -> None:
        """To all that it may have been asked for: that stays charged until QEMU has surely told."""
        self._before_bytes, self._before_at = max(self._before_bytes, self.ceiling_bytes), now
