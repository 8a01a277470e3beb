"""Reads the kernel's memory figures: files kept open, read with pread, parsed without regular expressions.

`root` stands for /: tests pass a directory with recorded files.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from agent import evictable
from agent.overcommit import NEVER

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_READ_BYTES = 16384
_SURELY_ALL_BYTES = PAGE_BYTES // 2
_SWAP_IN_MEMORY = (b"/zram", b"/dev/ram")


class Psi(NamedTuple):
    """/proc/pressure/memory: averages over 10 s in percent, totals in microseconds from boot."""

    some_avg10: float
    full_avg10: float
    some_total_us: int
    full_total_us: int


class Facts(NamedTuple):
    """One sample; sizes in bytes, counters from boot. The fields mean what wire.Report says."""

    total_bytes: int
    available_bytes: int
    free_bytes: int
    reclaimable_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int
    swap_cached_bytes: int
    swap_disk_used_bytes: int
    swap_disk_free_bytes: int
    swap_in_pages: int
    committed_bytes: int
    refault_pages: int
    major_faults: int
    ballooned_bytes: int
    floor_bytes: int
    commit_limit_bytes: int
    """0 where the kernel does not refuse by it."""
    uptime_seconds: float
    psi: Psi | None


def _marks(names: str, end: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Each name, and how its line starts after the end of another."""
    return tuple((name.encode(), b"\n" + name.encode() + end) for name in names.split())


_MEMINFO = _marks(
    "MemTotal MemFree MemAvailable Active(file) Inactive(file) SReclaimable Dirty Writeback "
    "SwapTotal SwapFree SwapCached Committed_AS CommitLimit",
    b":",
)
_VMSTAT = _marks(
    "nr_balloon_pages balloon_inflate balloon_deflate pswpin pgmajfault "
    "workingset_refault workingset_refault_file workingset_refault_anon",
    b" ",
)


def parse_meminfo(data: bytes) -> dict[bytes, int]:
    """Key without colon → bytes, for the keys of _MEMINFO that this kernel has."""
    return {key: value << 10 for key, value in _pick(data, _MEMINFO).items()}


def parse_vmstat(data: bytes) -> dict[bytes, int]:
    """Key → count, for the keys of _VMSTAT that this kernel has."""
    return _pick(data, _VMSTAT)


def _pick(data: bytes, marks: tuple[tuple[bytes, bytes], ...]) -> dict[bytes, int]:
    """The wanted of some hundred lines: to take all of them apart costs three times as much."""
    data = b"\n" + data
    found = {}
    for key, mark in marks:
        at = data.find(mark)
        if at >= 0:
            at += len(mark)
            found[key] = int(data[at : data.find(b"\n", at)].rstrip(b" kB"))
    return found


def parse_psi(data: bytes) -> Psi:
    """The four figures of /proc/pressure/memory. Raises ValueError or IndexError if they are not there."""
    some, full, *_ = data.split(b"\n")
    if not (some.startswith(b"some ") and full.startswith(b"full ")):
        raise ValueError("some and full are not where they should be")
    return Psi(
        float(_value(some, b" avg10=")),
        float(_value(full, b" avg10=")),
        int(_value(some, b" total=")),
        int(_value(full, b" total=")),
    )


def _value(line: bytes, mark: bytes) -> bytes:
    """The word after the mark. Raises ValueError or IndexError without one."""
    return line[line.index(mark) + len(mark) :].split(maxsplit=1)[0]


def parse_floor(data: bytes) -> int:
    """The kernel's floor in bytes: the high watermarks of /proc/zoneinfo, zones without pages left out.

    kswapd reclaims until every zone has its high watermark free, so below this a guest is never at rest.
    """
    pages = 0
    high = 0
    for line in data.splitlines():
        words = line.split()
        if len(words) != 2:
            continue
        if words[0] == b"high":
            high = int(words[1])
        elif words[0] == b"managed" and int(words[1]) > 0:
            pages += high
    return pages * PAGE_BYTES


def parse_disk_swap(data: bytes) -> tuple[int, int]:
    """Bytes used and bytes free in /proc/swaps on what is no memory again, as zram and RAM disks are."""
    used = free = 0
    for line in data.splitlines()[1:]:
        words = line.split()
        if len(words) >= 5 and not any(name in words[0] for name in _SWAP_IN_MEMORY):
            size, taken = int(words[-3]) << 10, int(words[-2]) << 10
            used += taken
            free += max(0, size - taken)
    return used, free


class Probe:
    """The kernel files of one machine. Raises OSError if meminfo or vmstat cannot be opened."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._meminfo = self._open("proc/meminfo")
        self._vmstat = self._open("proc/vmstat")
        self._uptime = self._open("proc/uptime")
        self._psi = self._try_open("proc/pressure/memory")
        self._zoneinfo = self._try_open("proc/zoneinfo")
        self._swaps = self._try_open("proc/swaps")
        self._arcstats = self._try_open(evictable.ARCSTATS)
        self._floor_bytes = 0
        self._refuses = False
        if self._psi is not None and self._read_psi() is None:
            os.close(self._psi)  # psi=0 on the command line: the file opens, and does not read
            self._psi = None
        self.refresh_floor()

    @property
    def has_psi(self) -> bool:
        """Whether the kernel gives PSI figures."""
        return self._psi is not None

    def boot_id(self) -> str:
        """The kernel's random boot id, 36 characters; zeros if it cannot be read."""
        text = self.read_text("proc/sys/kernel/random/boot_id").lower()
        return text if len(text) == 36 else "00000000-0000-0000-0000-000000000000"

    def kernel_release(self) -> str:
        """As uname -r has it; "" if it cannot be read."""
        return self.read_text("proc/sys/kernel/osrelease")

    def read_text(self, path: str) -> str:
        """A small file below the root, stripped; "" if it is not there."""
        try:
            with open(os.path.join(self._root, path), "rb", buffering=0) as file:
                return (file.read(4096) or b"").decode("ascii", "replace").strip()
        except OSError:
            return ""

    def refresh_floor(self) -> None:
        """Read watermarks and overcommit mode: they change with hot add and sysctl, not by themselves."""
        if self._zoneinfo is not None:
            self._floor_bytes = parse_floor(_read_all(self._zoneinfo))
        self._refuses = self.read_text("proc/sys/vm/overcommit_memory") == NEVER

    def sample(self) -> Facts:
        """All figures, meminfo and vmstat back to back since the host subtracts one from the other.

        reclaimable: file cache on the LRU lists and reclaimable slab, less dirty and written-back pages.
        Locked pages are on the unevictable list and shmem on the anonymous ones, so neither is in it.
        ballooned: what the driver holds by the kernel's own count, whatever the host believes.
        """
        memory = parse_meminfo(_read_all(self._meminfo))
        counters = parse_vmstat(_read_all(self._vmstat))
        psi = self._read_psi()
        total = memory[b"MemTotal"]
        free = memory.get(b"MemFree", 0)
        cache = memory.get(b"Active(file)", 0) + memory.get(b"Inactive(file)", 0)
        cache += memory.get(b"SReclaimable", 0)
        cache -= memory.get(b"Dirty", 0) + memory.get(b"Writeback", 0)
        swap_total = memory.get(b"SwapTotal", 0)
        swap_used = max(0, swap_total - memory.get(b"SwapFree", 0))
        disk_used, disk_free = self._read_disk_swap() if swap_total else (0, 0)
        refaults = counters.get(b"workingset_refault_file", 0) + counters.get(b"workingset_refault_anon", 0)
        ballooned = counters.get(b"nr_balloon_pages")  # kernels from 6.18 say it outright
        if ballooned is None:
            ballooned = counters.get(b"balloon_inflate", 0) - counters.get(b"balloon_deflate", 0)
        return Facts(
            total_bytes=total,
            available_bytes=min(self._available(memory), total),
            free_bytes=min(free, total),
            reclaimable_bytes=min(max(0, cache), total),
            swap_total_bytes=swap_total,
            swap_used_bytes=swap_used,
            swap_cached_bytes=min(memory.get(b"SwapCached", 0), swap_total),
            swap_disk_used_bytes=min(disk_used, swap_used),
            swap_disk_free_bytes=min(disk_free, swap_total),
            swap_in_pages=counters.get(b"pswpin", 0),
            committed_bytes=memory.get(b"Committed_AS", 0),
            refault_pages=refaults or counters.get(b"workingset_refault", 0),  # its name before 5.9
            major_faults=counters.get(b"pgmajfault", 0),
            ballooned_bytes=max(0, ballooned) * PAGE_BYTES,
            floor_bytes=min(self._floor_bytes, total),
            commit_limit_bytes=memory.get(b"CommitLimit", 0) if self._refuses else 0,
            uptime_seconds=float(_read_all(self._uptime).split()[0]),
            psi=psi,
        )

    def _available(self, memory: dict[bytes, int]) -> int:
        """MemAvailable, with what the ARC gives back; worked out where the kernel does not tell it."""
        told = memory.get(b"MemAvailable")
        if told is not None and self._arcstats is None:
            return told
        arcstats = _read_all(self._arcstats) if self._arcstats is not None else b""
        named = {key.decode(): size for key, size in memory.items()}
        return evictable.available_bytes(named, arcstats, self._floor_bytes)

    def close(self) -> None:
        """Close every file."""
        for fd in (
            self._meminfo,
            self._vmstat,
            self._uptime,
            self._psi,
            self._zoneinfo,
            self._swaps,
            self._arcstats,
        ):
            if fd is not None:
                os.close(fd)

    def _open(self, path: str) -> int:
        return os.open(os.path.join(self._root, path), os.O_RDONLY | os.O_CLOEXEC)

    def _try_open(self, path: str) -> int | None:
        try:
            return self._open(path)
        except OSError:  # not every kernel has it; the figures stay absent or 0
            return None

    def _read_psi(self) -> Psi | None:
        if self._psi is None:
            return None
        try:
            return parse_psi(_read_all(self._psi))
        except (OSError, ValueError, IndexError):
            return None

    def _read_disk_swap(self) -> tuple[int, int]:
        return parse_disk_swap(_read_all(self._swaps)) if self._swaps is not None else (0, 0)


def _read_all(fd: int) -> bytes:
    """The whole file. A seq_file may give one page a time, less a line, so it is read until nothing comes."""
    data = os.pread(fd, _READ_BYTES, 0)
    if len(data) < _SURELY_ALL_BYTES:
        return data
    while more := os.pread(fd, _READ_BYTES, len(data)):
        data += more
    return data
