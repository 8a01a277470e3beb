"""How large a VM is for the engine: its floor and an eighth, up at once, down slowly.

What is booked of a running VM changes nothing by itself (`publication`). It decides where the VM fits when it
is started or moved, so it should be neither stale nor nervous.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from host_controller.fleet.core.model import mib_up

MARGIN: Final = 9 / 8
LOW_SHARE: Final = 3 / 4
"""Below this share of what is booked a VM counts as low."""
LOW_SECONDS: Final = 600.0
"""It is low for so long before its booking follows."""
HOUR: Final = 3600.0
KEPT_HOURS: Final = 7 * 24
"""Counted, and not by the clock: one that jumps would leave nothing of them."""
PERCENTILE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Booking:
    """What is booked for one VM."""

    size_mib: int
    low_since: float | None = None
    low_peak_mib: int = 0
    """The most that was wanted since then."""
    hours: tuple[tuple[int, int], ...] = ()
    """The largest booking of each of the last hours in which it ran: (hour of the clock, MiB)."""


def wanted_mib(floor_bytes: int) -> int:
    """What is booked for a VM that cannot do without so much: that and a margin, in MiB."""
    return mib_up(math.ceil(floor_bytes * MARGIN))


def rebook(before: Booking, floor_bytes: int, now: float) -> Booking:
    """The booking of a running VM with this floor. `now`: seconds of a clock that outlives the arbiter."""
    wanted = wanted_mib(floor_bytes)
    if wanted >= before.size_mib:
        after = replace(before, size_mib=wanted, low_since=None, low_peak_mib=0)
    elif wanted >= LOW_SHARE * before.size_mib:
        after = replace(before, low_since=None, low_peak_mib=0)
    else:
        # A clock that was set back counts from now on.
        since = now if before.low_since is None or before.low_since > now else before.low_since
        peak = max(wanted, before.low_peak_mib)
        low = replace(before, low_since=since, low_peak_mib=peak)
        over = now - since >= LOW_SECONDS
        after = replace(before, size_mib=peak, low_since=None, low_peak_mib=0) if over else low
    return _remember(after, now)


def go_on(kept: Mapping[str, Booking], published: Mapping[str, int | None]) -> dict[str, Booking]:
    """What an arbiter that starts goes on from: what is kept where it runs, if that is published, too.

    Else another arbiter has published since, and that is booked. What a VM used to need is worth keeping.
    """
    known = {name: published.get(name) for name in kept}
    return {
        name: one if known[name] in (None, one.size_mib) else Booking(known[name] or 0, hours=one.hours)
        for name, one in kept.items()
    }


def follow_others(
    kept: Mapping[str, Booking], left: Mapping[str, int | None], published: Mapping[str, int | None]
) -> tuple[Mapping[str, Booking], tuple[str, ...]]:
    """What is gone on from beside another arbiter, and the VMs whose sizes it has published meanwhile.

    `left`: what was published when we looked last. Two that hold to their own publish in turns for ever.
    """
    theirs = {name: size for name, size in published.items() if name in left and size != left[name]}
    return (go_on(kept, theirs), tuple(theirs)) if theirs else (kept, ())


def stopped_mib(before: Booking | None, startup_mib: int) -> int:
    """The size of a stopped VM: what it starts with, or what it used to need if that is more."""
    return max(startup_mib, 0 if before is None else usual_mib(before))


def usual_mib(booking: Booking) -> int:
    """The 95th percentile of its hours; 0 while none is known."""
    sizes = sorted(size for _, size in booking.hours)
    return sizes[math.ceil(PERCENTILE * len(sizes)) - 1] if sizes else 0


def _remember(booking: Booking, now: float) -> Booking:
    hour = int(now // HOUR)
    # An hour that comes again, by a clock that was set back, is one hour.
    most = max([booking.size_mib, *(size for at, size in booking.hours if at == hour)])
    kept = [*(one for one in booking.hours if one[0] != hour), (hour, most)]
    return replace(booking, hours=tuple(kept[-KEPT_HOURS:]))
