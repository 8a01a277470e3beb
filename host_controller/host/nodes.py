"""The host's NUMA nodes: what those have that a control group holds its programs to.

A slice with AllowedMemoryNodes= never gets the memory of other nodes, however much of it is free.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from host_controller.host.memory import kernel_text, read_meminfo, read_pools

NODES: Final = "sys/devices/system/node"
_MOST_NODES: Final = 1024
_ON_DEMAND: Final = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")


def with_memory(root: Path = Path("/")) -> frozenset[int]:
    """The nodes that have any; none where the kernel does not say."""
    return listed(kernel_text(root / NODES / "has_memory"))


def listed(text: str) -> frozenset[int]:
    """The nodes of a list like `0-1,3`; none of what is no such list."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()) or max(len(first), len(last)) > 4:
            return frozenset()
        found.update(range(int(first), min(int(last), _MOST_NODES) + 1))
    return frozenset(found)


def ordinary_and_used(nodes: Iterable[int], root: Path = Path("/")) -> tuple[int, int]:
    """Of these nodes together: bytes that can be ordinary pages, and what of that would not go on demand."""
    ordinary = used = 0
    for node in nodes:
        directory = root / NODES / f"node{node}"
        # `Node 0 MemTotal:  1024 kB`, and the rest is as in /proc/meminfo
        lines = [line.split(maxsplit=2) for line in kernel_text(directory / "meminfo").splitlines()]
        memory = read_meminfo("\n".join(words[2] for words in lines if len(words) == 3))
        huge = sum(pool.total_bytes for pool in read_pools(directory / "hugepages"))
        size = max(0, memory.get("MemTotal", 0) - huge)
        ordinary += size
        used += max(0, size - sum(memory.get(name, 0) for name in _ON_DEMAND))
    return ordinary, used
