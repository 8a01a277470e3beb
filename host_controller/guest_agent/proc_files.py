"""What a guest's kernel says of its memory, from the text of its files. A guest's text: nothing is believed
of it but numbers within their range.
"""

from typing import Final

from agent import disk_swap, evictable
from agent.proc_text import (
    PAGE_BYTES,
    Columns,
    Table,
    parse_disk_swap,
    parse_meminfo,
    parse_psi,
    parse_vmstat,
)
from host_controller.core.interface import GuestReading
from host_controller.guest_agent.errors import GuestAgentNonsense

MEMINFO: Final = "/proc/meminfo"
VMSTAT: Final = "/proc/vmstat"
PRESSURE: Final = "/proc/pressure/memory"
SWAPS: Final = "/proc/swaps"
ARCSTATS: Final = f"/{evictable.ARCSTATS}"
MOST_BYTES: Final = 64 << 10
"""Of one file: vmstat has about 4 KiB."""
FREE_PAGES: Final = "nr_free_pages"
PAGE_SIZES: Final = (4 << 10, 16 << 10, 64 << 10)
AGREEMENT: Final = 4
"""Free memory changes by less than this part of it between the two."""
PROMISES: Final = ("CommitLimit", "Committed_AS")
"""They have no end where nobody bounds them, and nothing here goes by them."""
LARGEST: Final = 1 << 50
"""Of a size or a counter: more is no guest's."""


def reading(
    untrusted_meminfo: bytes,
    untrusted_vmstat: bytes,
    untrusted_psi: bytes,
    untrusted_swaps: bytes,
    untrusted_arcstats: bytes = b"",
) -> GuestReading:
    """Of five files; an empty `untrusted_psi` is a kernel without PSI, and empty `untrusted_arcstats` one
    without ZFS. What is on zram or in zswap's pool is in memory, and was counted there; of empty
    `untrusted_swaps` nobody knows, and all swap counts.

    Raises:
        GuestAgentNonsense: no kernel writes such files.
    """
    try:
        memory = parse_meminfo(untrusted_meminfo)
        counters = parse_vmstat(untrusted_vmstat)
        page = _page_bytes(memory, untrusted_vmstat)
        psi = parse_psi(untrusted_psi) if untrusted_psi else None
        on_disk, _ = parse_disk_swap(untrusted_swaps)
        pool = Columns(disk_swap.LINES).parse(untrusted_meminfo)
        total = memory["MemTotal"]
        available = _available(memory, untrusted_arcstats)
        figures = (
            *(size for name, size in memory.items() if name not in PROMISES),
            *pool.values(),
            *counters.values(),
            0 if psi is None else psi.some_total_us,
        )
    except (ValueError, IndexError, KeyError, OverflowError):
        raise GuestAgentNonsense("files of /proc that no kernel writes") from None
    if not all(0 <= one <= LARGEST for one in figures) or total == 0:
        raise GuestAgentNonsense("figures of /proc that cannot be")
    cache = sum(memory.get(name, 0) for name in ("Active(file)", "Inactive(file)", "SReclaimable"))
    cache -= memory.get("Dirty", 0) + memory.get("Writeback", 0)
    swapped = max(0, memory.get("SwapTotal", 0) - memory.get("SwapFree", 0))
    on_disk = min(on_disk, swapped) if untrusted_swaps else swapped
    on_disk = disk_swap.on_disk(on_disk, pool)
    refaults = counters.get("workingset_refault_file", 0) + counters.get("workingset_refault_anon", 0)
    return GuestReading(
        total_bytes=total,
        available_bytes=available,
        free_bytes=min(memory.get("MemFree", 0), total),
        reclaimable_bytes=min(max(0, cache), total),
        swap_used_bytes=max(0, on_disk - memory.get("SwapCached", 0)),
        swap_in_bytes=counters.get("pswpin", 0) * page,
        refault_bytes=(refaults or counters.get("workingset_refault", 0)) * page,
        stall_us=None if psi is None else psi.some_total_us,
    )


def _page_bytes(memory: dict[str, int], vmstat: bytes) -> int:
    """The size of the guest's pages, which may be others than ours (arm64, POWER): of free memory one file
    tells the pages and another one, a moment earlier, the bytes. Ours where the two do not agree on any.
    """
    free = Table(FREE_PAGES, vmstat).parse(vmstat).get(FREE_PAGES, 0)
    seen = memory.get("MemFree", 0) // free if free > 0 else 0
    return next((one for one in PAGE_SIZES if abs(seen - one) * AGREEMENT <= one), PAGE_BYTES)


def _available(memory: dict[str, int], arcstats: bytes) -> int:
    """As the kernel says it, or would say it (before Linux 3.14), with what the ARC gives back.

    Raises:
        KeyError: nobody knows it.
        ValueError: there is more than all of its memory.
    """
    if memory.get("MemAvailable", 0) > memory["MemTotal"]:
        raise ValueError
    if "MemAvailable" not in memory and "MemFree" not in memory:
        raise KeyError
    return evictable.available_bytes(memory, arcstats)
