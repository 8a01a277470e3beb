"""Memory that goes on demand and that MemAvailable does not show. One formula for guest and host.

The ZFS ARC is a cache like the page cache, and lies in the kernel's own pages: to MemAvailable it is in use.
It shrinks down to `c_min` when somebody wants memory [OpenZFS, arc_os.c: arc_evictable_memory].
Standard library only, and no regular expressions: the agent's daemon imports it.
"""

from __future__ import annotations

from collections.abc import Mapping

ARCSTATS = "proc/spl/kstat/zfs/arcstats"
"""Below the root; it is there while ZFS's module is loaded."""
_LOW_WATERMARK_SHARE = 64
"""A stand-in for the sum of the zones' low watermarks, which meminfo does not tell."""


def arc_evictable_bytes(arcstats: bytes) -> int:
    """What the ARC gives back on demand: its size above `c_min`, bytes.

    Never negative. 0 for text that does not say both: what may not go counts as in use.
    """
    size = floor = -1
    for line in arcstats.splitlines():
        fields = line.split()  # name, type, value
        if len(fields) != 3 or not fields[2].isdigit():
            continue
        if fields[0] == b"size":
            size = int(fields[2])
        elif fields[0] == b"c_min":
            floor = int(fields[2])
    return size - floor if size > floor >= 0 else 0


def available_bytes(
    memory: Mapping[str, int], arcstats: bytes = b"", watermarks_bytes: int | None = None
) -> int:
    """What a new program can be given without swapping, bytes: MemAvailable, and what the ARC gives back.

    memory: /proc/meminfo in bytes. Kernels before 3.14 have no MemAvailable: theirs is worked out as later
    ones do [mm/page_alloc.c: si_mem_available], with 1/64 of memory in the place of watermarks that nobody
    has read. Between 0 and MemTotal, whatever the files say.
    """
    available = memory.get("MemAvailable")
    if available is None:
        spared = watermarks_bytes
        if spared is None:
            spared = memory.get("MemTotal", 0) // _LOW_WATERMARK_SHARE
        available = max(0, memory.get("MemFree", 0) - spared)
        for cache in (
            memory.get("Active(file)", 0) + memory.get("Inactive(file)", 0),
            memory.get("SReclaimable", 0),
        ):
            available += cache - min(cache // 2, spared)
    return max(0, min(available + arc_evictable_bytes(arcstats), memory.get("MemTotal", 0)))
