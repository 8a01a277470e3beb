"""What the host's own kernel says of its memory, from /proc."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from host_controller.core.model import HostFacts
from host_controller.units import KIB, MIB

PROC: Final = Path("/proc")
MEMINFO: Final = PROC / "meminfo"
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

RESERVE_FLOOR_BYTES: Final = 512 * MIB
RESERVE_SHARE: Final = 32
RESERVE_LARGEST_SHARE: Final = 2


def default_reserve_bytes(total_bytes: int, others_bytes: int) -> int:
    """What is kept from VMs when nothing is configured.

    512 MiB for the kernel and its bursts, 1/32 of memory for page structures (1/64) and as much again
    for page tables and slabs that grow with it, and what processes other than VMs use now; half of memory at
    most, so that a small machine can still run something.
    """
    wanted = RESERVE_FLOOR_BYTES + total_bytes // RESERVE_SHARE + max(0, others_bytes)
    return min(wanted, total_bytes // RESERVE_LARGEST_SHARE)


def read_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdigit():
            found[name] = int(fields[0]) * (KIB if fields[1:] == ["kB"] else 1)
    return found


def host_facts(
    now: float, *, vm_swap_bytes: int = 0, unmanaged_bytes: int = 0, meminfo: Path = MEMINFO
) -> HostFacts:
    """The host's memory now."""
    memory = read_meminfo(meminfo.read_text())
    return HostFacts(
        at=now,
        total_bytes=memory["MemTotal"],
        available_bytes=memory["MemAvailable"],
        vm_swap_bytes=vm_swap_bytes,
        unmanaged_bytes=unmanaged_bytes,
    )


def others_bytes(vm_resident_bytes: Iterable[int], *, proc: Path = PROC) -> int:
    """What everything but the VMs uses: the host's used memory less what its QEMU processes hold."""
    memory = read_meminfo((proc / "meminfo").read_text())
    return max(0, memory["MemTotal"] - memory["MemAvailable"] - sum(vm_resident_bytes))


def physical_memory_bytes(proc: Path = PROC) -> int:
    """All memory of the host."""
    return read_meminfo((proc / "meminfo").read_text())["MemTotal"]
