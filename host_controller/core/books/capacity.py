"""What all VMs of a host may cost in sum, from what its kernel says now and what the operator has set.

    capacity = ordinary memory − reserve − what QEMUs of others hold; or what is configured; or what a limit
               above the VMs leaves them, if that is less
    reserve  = what everything but VMs uses + what should stay available for bursts

It is worked out anew from every reading, since all of it changes while VMs run: a nested host's balloon, hot
added memory, huge pages, containers, limits. Unmanaged VMs of the same libvirt are taken off by the ledger.
"""

from dataclasses import dataclass
from typing import Final

from host_controller.core.model import HostFacts, Settings
from host_controller.units import MIB, format_size

SPARE_FLOOR_BYTES: Final = 512 * MIB
SPARE_SHARE: Final = 32
SPARE_LARGEST_SHARE: Final = 2
LEAST_SPARE_SHARE: Final = 256


@dataclass(frozen=True, slots=True)
class Capacity:
    """What VMs may cost, managed or not, and how it comes about."""

    size_bytes: int
    reserve_bytes: int
    """Kept from VMs: what others use, and the spare."""
    spare_bytes: int
    """What should be available while VMs cost all that they may: an emergency is measured by it."""
    bound: str
    """What decides, for people."""
    limited: bool = False
    """It is less than the formula or the configuration would give."""


def default_spare_bytes(ordinary_bytes: int) -> int:
    """What should stay available for the host's own bursts when nothing is configured.

    512 MiB for the kernel and whoever needs something suddenly, and 1/32 of memory for page tables and slabs
    that grow with it; half of memory at most, so that a small machine can still run something.
    """
    wanted = SPARE_FLOOR_BYTES + ordinary_bytes // SPARE_SHARE
    return min(wanted, ordinary_bytes // SPARE_LARGEST_SHARE)


def capacity_of(settings: Settings, facts: HostFacts | None) -> Capacity:
    """The capacity by the latest reading; by the settings alone before the first one."""
    if facts is None or facts.ordinary_bytes is None:
        return Capacity(
            settings.capacity_bytes, settings.reserve_bytes, settings.reserve_bytes, "the settings"
        )
    ordinary = facts.ordinary_bytes
    spare = default_spare_bytes(ordinary)
    reserve = facts.others_bytes + spare if settings.reserve_follows else settings.reserve_bytes
    if settings.capacity_follows:
        size = ordinary - reserve - facts.foreign_bytes
        bound = "the host's memory less the reserve"
        if not settings.reserve_follows:
            bound = "the host's memory less the configured reserve"
    elif settings.capacity_bytes > ordinary:
        size, bound = ordinary, "the host's memory, which is less than the configured capacity"
    else:
        size, bound = settings.capacity_bytes, "the configured capacity"
        reserve = min(reserve, ordinary - size)
    # A reserve that others have used up already leaves nothing available by itself.
    spare = max(reserve - facts.others_bytes, min(reserve, spare), ordinary // LEAST_SPARE_SHARE)
    limited = not settings.capacity_follows and settings.capacity_bytes > ordinary
    if facts.limit_bytes is not None and facts.limit_bytes < size:
        size, bound, limited = facts.limit_bytes, facts.limited_by, True
    return Capacity(max(0, size), reserve, spare, bound, limited)


def left_over_bytes(capacity: Capacity, facts: HostFacts) -> int:
    """Ordinary memory that a configured capacity leaves to nobody: huge pages that are made of it cost VMs
    nothing.
    """
    if facts.ordinary_bytes is None or capacity.limited:
        return 0
    kept = max(capacity.reserve_bytes, facts.others_bytes) + facts.foreign_bytes
    return max(0, facts.ordinary_bytes - kept - capacity.size_bytes)


def why_smaller(before: HostFacts | None, after: HostFacts) -> str:
    """Why the capacity fell between two readings: the largest change for the worse, as a sentence."""
    if before is None:
        return "the host's memory was looked at for the first time"
    huge = sum(pool.total_bytes for pool in after.pools) - sum(pool.total_bytes for pool in before.pools)
    limited = 0
    if after.limit_bytes is not None:
        limited = (
            before.total_bytes if before.limit_bytes is None else before.limit_bytes
        ) - after.limit_bytes
    changes = (
        (after.foreign_bytes - before.foreign_bytes, "QEMUs that are not this libvirt's hold {} more"),
        (after.unmanaged_bytes - before.unmanaged_bytes, "unmanaged VMs hold {} more"),
        (before.total_bytes - after.total_bytes, "the host has {} of memory less"),
        (huge, "{} more were reserved as huge pages"),
        (after.others_bytes - before.others_bytes, "the host's own processes use {} more"),
        (limited, f"{after.limited_by or 'a limit above the VMs'} leaves {{}} less"),
    )
    size, text = max(changes, key=lambda change: change[0])
    return text.format(format_size(size)) if size > 0 else "the host has less memory for VMs"
