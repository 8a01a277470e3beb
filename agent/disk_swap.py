"""What swap on a disk is worth to a host: what lies there, and how much memory can still go there.

zswap keeps what goes to swap in memory, compressed, while a pool for it has room (fact: zswap-is-memory).
Each of its pages has its place on the disk all the same, so /proc/swaps does not tell the two apart. And only
what programs hold and have not locked can go there: no kernel's memory, and no huge page.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from agent.system import read_file

ZSWAP = "sys/module/zswap/parameters"
LINES = "Active(anon) Inactive(anon) Zswap Zswapped"
"""Of /proc/meminfo. Since Linux 5.19: what zswap's pool takes, and what lies in it."""
_USUAL_PERCENT = 20
_ENOUGH_BYTES = 16 << 20
"""Of what lies in the pool tells how it is compressed; with less it is taken to be by half."""


def pool_percent(root: str) -> int:
    """How much of MemTotal zswap's pool may take; 0 where zswap is off."""
    directory = os.path.join(root, ZSWAP)
    if read_file(os.path.join(directory, "enabled")).strip() not in (b"Y", b"1"):
        return 0
    told = read_file(os.path.join(directory, "max_pool_percent")).strip()
    return min(int(told), 100) if told.isdigit() else _USUAL_PERCENT


def on_disk(used_bytes: int, memory: Mapping[str, int]) -> int:
    """What of used swap is not in zswap's pool. memory: LINES, in bytes, as far as they are there."""
    return max(0, used_bytes - memory.get("Zswapped", 0))


def room_bytes(free_bytes: int, memory: Mapping[str, int], total_bytes: int, percent: int) -> int:
    """How much less memory free swap can leave in use. percent: of `pool_percent`."""
    if "Active(anon)" in memory:
        free_bytes = min(free_bytes, memory["Active(anon)"] + memory.get("Inactive(anon)", 0))
    pool, pages = memory.get("Zswap", 0), memory.get("Zswapped", 0)
    grows_by = max(0, total_bytes * percent // 100 - pool)
    stays = free_bytes * min(pool, pages) // pages if pages >= _ENOUGH_BYTES else free_bytes // 2
    return free_bytes - min(stays, grows_by)
