"""What swap on a disk is worth to a host: what lies there, and how much memory can still go there.

zswap keeps what goes to swap in memory, compressed, while a pool for it has room (fact: zswap-is-memory).
Each of its pages has its place on the disk all the same, so /proc/swaps does not tell the two apart. And only
what programs hold and have not locked can go there: no kernel's memory, no huge page, and of a control group
no more than it may swap (memory.swap.max: MemorySwapMax= of a service, --memory-swap of a container).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from agent.system import group_bytes, groups_beneath, read_file

ZSWAP = "sys/module/zswap/parameters"
LINES = "Active(anon) Inactive(anon) Zswap Zswapped"
"""Of /proc/meminfo. Since Linux 5.19: what zswap's pool takes, and what lies in it."""
_GROUPS = "sys/fs/cgroup"
_MOST_GROUPS = 1024
_DEEPEST = 8
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


def room_bytes(
    free_bytes: int, memory: Mapping[str, int], total_bytes: int, percent: int, kept_bytes: int = 0
) -> int:
    """How much less memory free swap can leave in use. percent: of `pool_percent`. kept_bytes: what of
    programs' memory may not go there.
    """
    if "Active(anon)" in memory:
        programs = memory["Active(anon)"] + memory.get("Inactive(anon)", 0)
        free_bytes = min(free_bytes, max(0, programs - kept_bytes))
    pool, pages = memory.get("Zswap", 0), memory.get("Zswapped", 0)
    grows_by = max(0, total_bytes * percent // 100 - pool)
    stays = free_bytes * min(pool, pages) // pages if pages >= _ENOUGH_BYTES else free_bytes // 2
    return free_bytes - min(stays, grows_by)


class Groups:
    """What control groups (v2) keep out of swap. Who has a limit is looked for now and then: a file for each
    group. What they hold is read more often.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, _GROUPS)
        self._limited: list[tuple[str, int]] | None = None
        self._kept_bytes: int | None = None

    def look_again(self) -> None:
        """Services and containers come and go."""
        self._limited = self._kept_bytes = None

    def refresh(self) -> None:
        """What they hold changes."""
        self._kept_bytes = None

    def kept_bytes(self) -> int:
        """What may not go to swap of what their programs hold."""
        if self._limited is None:
            self._limited = _limited(self._root)
        if self._kept_bytes is None:
            # The last one is what the groups keep that lie in no other; whoever is in one comes after it.
            kept = [0] * (len(self._limited) + 1)
            for index in range(len(self._limited) - 1, -1, -1):
                path, around = self._limited[index]
                kept[around] += max(kept[index], _kept(path))
            self._kept_bytes = kept[-1]
        return self._kept_bytes


def _limited(root: str) -> list[tuple[str, int]]:
    """The groups that may not swap as they like, each with the place here of the one around it; -1: none."""
    found: list[tuple[str, int]] = []
    waiting, count = [(0, root, -1)], 0
    while waiting and count < _MOST_GROUPS:
        depth, directory, around = waiting.pop()
        beneath = groups_beneath(directory)
        count += len(beneath)
        for path in beneath:
            most, inner = read_file(f"{path}/memory.swap.max").strip(), around
            if most.isdigit():
                inner = len(found)
                found.append((path, around))
            if most not in (b"", b"0") and depth < _DEEPEST:
                waiting.append((depth + 1, path, inner))
    return found


def _kept(path: str) -> int:
    most, now = (read_file(f"{path}/memory.swap.{name}").strip() for name in ("max", "current"))
    may_go = int(most) - int(now) if most.isdigit() and now.isdigit() else 0
    return max(0, group_bytes(path, (b"active_anon", b"inactive_anon")) - max(0, may_go))
