"""zswap: what goes to swap stays in memory, compressed, while a pool for it has room (fact: zswap-is-memory).

Each of its pages has its place on the disk all the same, so /proc/swaps tells neither of the two apart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from agent.system import read_file

PARAMETERS = "sys/module/zswap/parameters"
LINES = "Zswap Zswapped"
"""Of /proc/meminfo since Linux 5.19: what the pool takes, and what lies in it."""
_USUAL_PERCENT = 20
_ENOUGH_BYTES = 16 << 20
"""Of what lies there tells how it is compressed; with less it is taken to be by half."""


def pool_percent(root: str) -> int:
    """How much of MemTotal the pool may take; 0 where zswap is off."""
    directory = os.path.join(root, PARAMETERS)
    if read_file(os.path.join(directory, "enabled")).strip() not in (b"Y", b"1"):
        return 0
    told = read_file(os.path.join(directory, "max_pool_percent")).strip()
    return min(int(told), 100) if told.isdigit() else _USUAL_PERCENT


def on_disk(
    used_bytes: int, free_bytes: int, memory: Mapping[str, int], total_bytes: int, percent: int
) -> tuple[int, int]:
    """What of used swap is not in the pool, and how much less memory free swap can leave in use.

    memory: LINES, in bytes, as far as they are there.
    """
    pool, pages = memory.get("Zswap", 0), memory.get("Zswapped", 0)
    room = max(0, total_bytes * percent // 100 - pool)
    stays = free_bytes * min(pool, pages) // pages if pages >= _ENOUGH_BYTES else free_bytes // 2
    return max(0, used_bytes - pages), free_bytes - min(stays, room)
