"""When to report: pure, it gets facts and `now` and reads no clock.

Calm: a sample every calm_seconds, a report if something moved or heartbeat_seconds have passed.
Alert: a sample every alert_seconds, until ALERT_LASTS_SECONDS went by without a cause. Causes are
a PSI event, available memory that falls, and headroom that is low and still moves. A guest that sits at
low headroom with nothing moving goes back to calm: the host has been told, and may have to keep it there
for hours. A guest that has PSI events only, as one container at its limit makes them for ever, is sampled
at the alert rate and reported at the calm one.
"""

from __future__ import annotations

from operator import itemgetter

from agent.lean import NamedTuple
from agent.probe import Facts, Look
from agent.proc_text import PAGE_BYTES, Psi
from agent.wire import Reason, Report, Welcome

MIB = 1 << 20
ALERT_LASTS_SECONDS = 2.0
HEARTBEAT_DELAYS = 0.2
"""The look after a heartbeat comes later by this share of a calm look's time."""


class Blocks(NamedTuple):
    """Totals over the memory blocks, bytes. movable is a part of online."""

    online_bytes: int = 0
    offline_bytes: int = 0
    movable_bytes: int = 0


class Cadence(NamedTuple):
    """Seconds between samples when calm, between reports at most, between samples when alert."""

    calm_seconds: float = 0.5
    heartbeat_seconds: float = 5.0
    alert_seconds: float = 0.1


def step_bytes(total_bytes: int) -> int:
    """The change of available memory worth a report: 0.5 % of total, within 2..64 MiB.

    Small on purpose: an allocation has to show at the next tick, whatever its speed; a page cache that
    breathes moves less than 2 MiB in half a second.
    """
    return min(max(total_bytes // 200, 2 * MIB), 64 * MIB)


def low_headroom_bytes(total_bytes: int) -> int:
    """Below this much above the kernel's floor, headroom is low: 1/64 of total, at least 4 MiB.

    Less than what the smallest buffer (5 %) leaves a guest at rest, or the guest would never be calm.
    """
    return max(total_bytes // 64, 4 * MIB)


_NO_PSI = (None,) * len(Psi._fields)
_TOLD = (
    *Facts._fields[:-1],
    *(f"psi_{name}" for name in Psi._fields),
    *Blocks._fields,
    *("boot_id_prefix", "sequence", "kill_percent", "page_bytes", "reason"),
)
_IN_ORDER = itemgetter(*(_TOLD.index(name) for name in Report._fields))
"""Figures as they are made → as a Report has them. By name it took three times as long."""


class Reporter:
    """Decides when a report is due, and makes it.

    Call sample_due() for the time to look next, then due() with what was seen; it returns why a report is
    due, if one is, and report() makes it. Reports count from sequence 0.
    """

    def __init__(self, boot_id: str, now: float) -> None:
        self.cadence = Cadence()
        self.kill_percent = 0
        self._boot_id_prefix = boot_id[:8]
        self._sequence = 0
        self._next_sample = now
        self._alert_until = now
        self._forced: Reason | None = "hello"
        self._sent: Facts | None = None
        self._sent_at = now
        self._sent_blocks = Blocks()
        # Available memory about one calm tick ago: falling is judged over that span, since single
        # ticks of 0.1 s show noise.
        self._anchor_at = now
        self._anchor_bytes = 0

    def alert(self, now: float) -> bool:
        """Whether samples are taken at the alert rate."""
        return now < self._alert_until

    def welcome(self, message: Welcome) -> None:
        """Report as often as this host wishes."""
        self.cadence = Cadence(message.calm_seconds, message.heartbeat_seconds, message.alert_seconds)

    def force(self, reason: Reason, now: float) -> None:
        """Report at once, whatever the facts are."""
        self._forced = reason
        self._next_sample = now

    def psi_event(self, now: float) -> None:
        """The PSI trigger fired: sample now, and go on at the alert rate.

        A report follows at once unless the last one is younger than an alert tick.
        """
        self._alert_until = now + ALERT_LASTS_SECONDS
        if now - self._sent_at >= self.cadence.alert_seconds:
            self.force("pressure", now)

    def sample_due(self) -> float:
        """The time at which due() wants to be called next."""
        return self._next_sample

    def observe(self, facts: Facts, blocks: Blocks, now: float) -> Report | None:
        """A sample that was taken whole: the report that is due, if one is."""
        reason = self.due(facts, blocks, now)
        return None if reason is None else self.report(facts, blocks, reason, now)

    def due(self, seen: Look | Facts, blocks: Blocks, now: float) -> Reason | None:
        """Take in what was seen. Returns why a report is due, if one is."""
        reason = self._reason(seen, blocks, now)
        self._next_sample = now + (
            self.cadence.alert_seconds if self.alert(now) else self.cadence.calm_seconds
        )
        if reason == "heartbeat":
            # Often the kernel wakes us once more as the host takes what was written (virtio_console's
            # out_intr()). A little later now, and a calm agent still wakes twice a second and no more.
            self._next_sample += self.cadence.calm_seconds * HEARTBEAT_DELAYS
        return reason

    def report(self, facts: Facts, blocks: Blocks, reason: Reason, now: float) -> Report:
        """The report of these facts, with the next sequence number: what comes next is measured from it."""
        self._forced = None
        self._sent, self._sent_blocks, self._sent_at = facts, blocks, now
        sequence = self._sequence
        self._sequence += 1
        own = (self._boot_id_prefix, sequence, self.kill_percent, PAGE_BYTES, reason)
        return Report._make(_IN_ORDER((*facts[:-1], *(facts.psi or _NO_PSI), *blocks, *own)))

    def _reason(self, facts: Look | Facts, blocks: Blocks, now: float) -> Reason | None:
        available = facts.available_bytes
        sent = self._sent
        if sent is None:
            self._anchor_at, self._anchor_bytes = now, available
            return self._forced or "hello"
        step = step_bytes(facts.total_bytes)
        moved = abs(available - sent.available_bytes)
        low = available - facts.floor_bytes < low_headroom_bytes(facts.total_bytes)
        falling = self._anchor_bytes - available >= step
        # At low headroom a quarter of a step counts: there is little left to fall.
        if falling or (low and moved >= step // 4):
            self._alert_until = now + ALERT_LASTS_SECONDS
        if available > self._anchor_bytes or falling or now - self._anchor_at >= self.cadence.calm_seconds:
            self._anchor_at, self._anchor_bytes = now, available
        if self._forced is not None:
            return self._forced
        if blocks != self._sent_blocks:
            return "hotplug"
        if self.alert(now) and (low or falling or moved >= step // 8):
            return "pressure"
        total_moved = abs(facts.total_bytes - sent.total_bytes) >= step // 2  # the balloon at work
        if moved >= step or total_moved or (low and moved >= step // 4):
            return "moved"
        if self.alert(now) and now - self._sent_at >= self.cadence.calm_seconds:
            return "pressure"
        if now - self._sent_at >= self.cadence.heartbeat_seconds - self.cadence.alert_seconds / 2:
            return "heartbeat"
        return None
