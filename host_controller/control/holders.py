"""What a guest says of who holds its memory: a claim, believed within bounds, and compared with earlier ones.

No decision depends on it: a guest that lies here misleads whoever reads it about itself, and nobody else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent import wire
from agent.values import MOST_HOLDERS
from host_controller.units import format_size

WINDOW_SECONDS: Final = 900.0
"""Growth is told against the moment of least demand that was looked at in so long a time."""
_UNITS: Final = ((7200.0, 3600, "hours"), (120.0, 60, "minutes"))


@dataclass(frozen=True, slots=True)
class Look:
    """One answer of a guest."""

    at: float
    """Seconds of the controller's clock."""
    demand_bytes: int
    """The VM's, when it answered."""
    by: str
    """`services` or `processes`."""
    holders: tuple[tuple[str, int], ...]
    """Names and bytes, the largest first, at most MOST_HOLDERS."""
    seen: str = "all"
    """Of its processes: `all`; `cut`: there were too many; `hidden` by the kernel; `other`: a newer word."""

    @property
    def unnamed_bytes(self) -> int:
        """The most that somebody can hold who is not named here."""
        return self.holders[-1][1] if len(self.holders) == MOST_HOLDERS else 0


class Growth(NamedTuple):
    """By how much one of them has grown between two looks."""

    name: str
    size_bytes: int
    seconds: float
    at_least: bool
    """It was not among the largest before, so that it had anything up to what the least of those had."""

    def describe(self) -> str:
        """As in `php-fpm grew by 3.1 GiB in 5 minutes`."""
        bound = "at least " if self.at_least else ""
        return f"{self.name} grew by {bound}{format_size(self.size_bytes)} in {span(self.seconds)}"


def believed(untrusted: wire.Held, most_bytes: int, demand_bytes: int, now: float) -> Look | None:
    """The answer as a look; None for one that cannot be true. most_bytes: all that the VM can have.

    Names, their number and each size have been bounded where the line was read. Services do not overlap, so
    their sum is bounded, too; processes share.
    """
    sizes = [size for _, size in untrusted.holders]
    largest = sum(sizes) if untrusted.by == "services" else max(sizes, default=0)
    if untrusted.by == "other" or largest > most_bytes:
        return None
    ordered = tuple(sorted(untrusted.holders, key=lambda one: (-one[1], one[0])))
    return Look(now, demand_bytes, untrusted.by, ordered, untrusted.seen)


def base_of(looks: Iterable[Look], look: Look) -> Look | None:
    """What a look is compared with: the one of least demand in the window before it, else the last one."""
    before = [one for one in looks if one.at < look.at and (one.by, one.seen) == (look.by, look.seen)]
    recent = [one for one in before if look.at - one.at <= WINDOW_SECONDS]
    return min(recent, key=lambda one: one.demand_bytes) if recent else before[-1] if before else None


def growths(base: Look | None, look: Look) -> list[Growth]:
    """Who holds more than in `base`, the most first."""
    if base is None:
        return []
    known = dict(base.holders)
    found = [
        Growth(
            name,
            size - known.get(name, base.unnamed_bytes),
            look.at - base.at,
            name not in known and base.unnamed_bytes > 0,
        )
        for name, size in look.holders
    ]
    return sorted((one for one in found if one.size_bytes > 0), key=lambda one: -one.size_bytes)


def span(seconds: float) -> str:
    """`90 seconds`, `5 minutes`, `3 hours`: rounded, for a sentence."""
    for least, unit, name in _UNITS:
        if seconds >= least:
            return f"{round(seconds / unit)} {name}"
    return f"{max(1, round(seconds))} seconds" if seconds >= 1.5 else "a second"
