"""What the host's own kernel says of its memory, from /proc and /sys.

One reading is a `Memory`: which part can be ordinary pages (fact: huge-pages-in-total), what is available of
that (fact: arc-is-in-use), the pools of huge pages beside it, and how hard the kernel is pressed. A file that
is not there means "unknown", never an error; only /proc/meminfo must be readable.
"""

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent import evictable
from agent.protected import Protected
from host_controller.core.model import HugePool
from host_controller.host.proc import PAGE_BYTES
from host_controller.units import KIB

MEMINFO: Final = Path("/proc/meminfo")
HUGE_PAGES: Final = "sys/kernel/mm/hugepages"
TRANSPARENT_HUGE_PAGE: Final = "sys/kernel/mm/transparent_hugepage/hpage_pmd_size"
VFIO_MAPPINGS: Final = "sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
OVERCOMMIT: Final = "proc/sys/vm/overcommit_memory"
RESERVES_ALL: Final = 2
"""The kernel lets nobody map memory that is not set aside for it."""
LARGEST_FILE: Final = 1 << 18
"""Bytes of /proc/meminfo that are read: it has some 1,500."""


@dataclass(frozen=True, slots=True)
class Memory:
    """One reading of the host's memory."""

    total_bytes: int
    """MemTotal: what is online now."""
    ordinary_bytes: int
    """The part of it that can be ordinary pages: without huge pages of any size, and without broken ones."""
    available_bytes: int
    """Of the ordinary part, with what goes on demand and MemAvailable does not show, and without what control
    groups protect (fact: protected-is-available).
    """
    evictable_bytes: int = 0
    """What of it goes on demand and MemAvailable does not show."""
    pools: tuple[HugePool, ...] = ()
    default_huge_page_bytes: int | None = None
    psi_some_percent: float | None = None
    psi_full_percent: float | None = None
    swap_in_bytes: int | None = None
    swap_out_bytes: int | None = None
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0
    merged_bytes: int = 0
    """What KSM saves: counted by every process that shares it, and there once."""

    @property
    def used_bytes(self) -> int:
        """Ordinary memory that is in use and would not go on demand."""
        return max(0, self.ordinary_bytes - self.available_bytes)


def read_memory(root: Path = Path("/"), meminfo: Path | None = None) -> Memory:
    """Read it now. `root` stands for /; `meminfo` replaces its /proc/meminfo (rehearsals).

    Raises:
        OSError, KeyError: /proc/meminfo cannot be read, or has no MemTotal.
    """
    memory = read_meminfo(_text(meminfo or root / "proc/meminfo"))
    total = memory["MemTotal"]
    arcstats = _bytes(root / evictable.ARCSTATS)
    pools = read_pools(root / HUGE_PAGES)
    # Broken pages were taken out of use for good, and MemTotal still counts them.
    ordinary = max(0, total - _huge_bytes(memory, pools) - memory.get("HardwareCorrupted", 0))
    shown = max(0, evictable.available_bytes(memory) - Protected(str(root)).cache_bytes)
    more = min(evictable.arc_evictable_bytes(arcstats), _unexplained(memory, total - ordinary))
    available = min(shown + more, ordinary)
    some, full = read_pressure(kernel_text(root / "proc/pressure/memory"))
    swap = _counters(_bytes(root / "proc/vmstat"), ("pswpin", "pswpout"))
    merged = _number(root / "sys/kernel/mm/ksm/pages_sharing")
    return Memory(
        total_bytes=total,
        ordinary_bytes=ordinary,
        available_bytes=available,
        evictable_bytes=max(0, available - shown),
        pools=pools,
        default_huge_page_bytes=memory.get("Hugepagesize"),
        psi_some_percent=some,
        psi_full_percent=full,
        swap_in_bytes=None if swap[0] is None else swap[0] * PAGE_BYTES,
        swap_out_bytes=None if swap[1] is None else swap[1] * PAGE_BYTES,
        swap_total_bytes=memory.get("SwapTotal", 0),
        swap_free_bytes=memory.get("SwapFree", 0),
        merged_bytes=merged * PAGE_BYTES,
    )


def read_meminfo(text: str) -> dict[str, int]:
    """What /proc/meminfo says, by name: bytes, or a count where the kernel gives no unit."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdecimal():
            found[name] = int(fields[0]) * (KIB if fields[1:] == ["kB"] else 1)
    return found


def default_huge_page_bytes(meminfo: Path = MEMINFO) -> int | None:
    """The huge pages that whoever names no size gets; None where this kernel has none."""
    try:
        return read_meminfo(_text(meminfo)).get("Hugepagesize")
    except OSError:
        return None


def transparent_huge_page_bytes(root: Path = Path("/")) -> int | None:
    """The size of huge pages that the kernel makes by itself; None where it makes none, or does not say."""
    return _number(root / TRANSPARENT_HUGE_PAGE) or None


def vfio_mappings(root: Path = Path("/")) -> int | None:
    """How many pieces of memory a VFIO device may map; None where no module for that is loaded."""
    return _number(root / VFIO_MAPPINGS) or None


def overcommit_memory(root: Path = Path("/")) -> int:
    """vm.overcommit_memory: 0 heuristic, 1 always, RESERVES_ALL."""
    return _number(root / OVERCOMMIT)


def kernel_text(path: Path) -> str:
    """What a file of the kernel's says; empty where it cannot be read."""
    return _bytes(path).decode(errors="replace")


def read_pools(directory: Path = Path("/") / HUGE_PAGES) -> tuple[HugePool, ...]:
    """The pools of huge pages that have pages or may grow some, the smallest pages first: of the host, or of
    one of its NUMA nodes, which has a directory of the same form.
    """
    try:
        directories = sorted(directory.iterdir())
    except OSError:
        return ()
    found = []
    for one in directories:
        size = one.name.removeprefix("hugepages-").removesuffix("kB")
        if not size.isdecimal():
            continue
        page = int(size) * KIB
        pages = _number(one / "nr_hugepages")
        surplus = _number(one / "surplus_hugepages")
        growable = max(0, _number(one / "nr_overcommit_hugepages") - surplus)
        if pages or growable:
            free = _number(one / "free_hugepages") - _number(one / "resv_hugepages")
            found.append(HugePool(page, pages * page, max(0, free) * page, growable * page))
    return tuple(sorted(found, key=lambda pool: pool.page_bytes))


def read_pressure(text: str) -> tuple[float | None, float | None]:
    """`some` and `full` of a pressure file: percent of the last 10 s; None where it does not say."""
    found: dict[str, float] = {}
    for line in filter(str.strip, text.splitlines()):
        kind, *figures = line.split()
        for figure in figures:
            name, _, value = figure.partition("=")
            if name == "avg10":
                with suppress(ValueError):
                    found[kind] = _percent(value)
    return found.get("some"), found.get("full")


def _percent(text: str) -> float:
    found = float(text)
    if not 0 <= found <= 100:
        raise ValueError(f"{text} is no share of time")
    return found


def _unexplained(memory: dict[str, int], taken_out: int) -> int:
    """What is in use and may be ZFS's cache, as no other line explains it.

    In a container /proc/meminfo tells of the container (lxcfs), and ZFS of all of the machine: its cache may
    be larger than all that the container has.
    """
    explained = taken_out + memory.get("AnonPages", 0) + memory.get("Shmem", 0)
    return max(0, memory["MemTotal"] - evictable.available_bytes(memory) - explained)


def _huge_bytes(memory: dict[str, int], pools: tuple[HugePool, ...]) -> int:
    """Memory in huge pages of any size. Before Linux 4.20 meminfo tells only the default size's number."""
    told = memory.get("Hugetlb")
    if told is not None:
        return told
    default = memory.get("HugePages_Total", 0) * memory.get("Hugepagesize", 0)
    return max(default, sum(pool.total_bytes for pool in pools))


def _counters(vmstat: bytes, names: tuple[str, ...]) -> list[int | None]:
    found = dict(
        line.split(maxsplit=1) for line in vmstat.decode(errors="replace").splitlines() if " " in line
    )
    return [int(found[name]) if found.get(name, "").isdecimal() else None for name in names]


def _text(path: Path) -> str:
    """All of a file as the kernel's are: no pipe or device, which could keep us for ever, and not large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(LARGEST_FILE).decode(errors="replace")
    finally:
        os.close(descriptor)


def _number(path: Path) -> int:
    text = _bytes(path).strip()
    return int(text) if text.isdigit() else 0


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
