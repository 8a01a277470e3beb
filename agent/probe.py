"""Reads the kernel's memory figures: files kept open, and read with pread.

`root` stands for /: tests pass a directory with recorded files.
"""

from __future__ import annotations

import errno
import os

from agent import disk_swap, evictable
from agent.lean import NamedTuple
from agent.overcommit import NEVER
from agent.proc_text import (
    MEMINFO,
    PAGE_BYTES,
    VMSTAT,
    Columns,
    Psi,
    Table,
    parse_disk_swap,
    parse_floor,
    parse_meminfo,
    parse_psi,
)
from agent.protected import Protected
from agent.system import read_file
from agent.values import MAX_SIZE_BYTES

_READ_BYTES = 16384
_SURELY_ALL_BYTES = min(PAGE_BYTES, _READ_BYTES) // 2
_SETTING_BYTES = 32
_SAME_FLOOR = 16
_MOVED = "pgmigrate_success"


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


class Look(NamedTuple):
    """What tells whether a sample is worth it; sizes in bytes."""

    total_bytes: int
    available_bytes: int
    floor_bytes: int
    meminfo: bytes
    """The text that it was read from: a sample of the same instant begins with it."""


class Probe:
    """The kernel files of one machine. Raises OSError if meminfo, vmstat or uptime cannot be read.

    All others may be missing, come later and go: then their figures are absent, and the rest is told.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._meminfo = self._open("proc/meminfo")
        if "MemTotal" not in parse_meminfo(_read_all(self._meminfo)):  # a sandbox has put something before it
            raise OSError(errno.ENODATA, "it has no MemTotal", os.path.join(root, "proc/meminfo"))
        self._vmstat = self._open("proc/vmstat")
        self._uptime = self._open("proc/uptime")
        self._psi = self._try_open("proc/pressure/memory")
        self._zoneinfo = self._try_open("proc/zoneinfo")
        self._min_free = self._try_open("proc/sys/vm/min_free_kbytes")
        self._swaps = self._try_open("proc/swaps")
        self._arcstats: int | None = None
        self._glance = Columns("MemTotal MemAvailable")
        self._memory = Columns(MEMINFO)
        self._behind_swap = Columns(disk_swap.LINES)
        self._counters = Table(VMSTAT, _read_all(self._vmstat))
        self._psi_read: tuple[bytes, Psi | None] = (b"", None)
        self._floor_minimum = 0
        """min_free_kbytes as the floor was read; 0: not known."""
        self._swap_seen = self._swap_split = (0, 0)
        self._floor_bytes = 0
        self._refuses = False
        self._zswap_percent = 0
        self._groups = disk_swap.Groups(root)
        self._protected = Protected(root)
        self.swapless = False
        """Programs may put nothing into swap, whatever there is."""
        if self._psi is not None and self._read_psi() is None:
            os.close(self._psi)  # psi=0 on the command line: the file opens, and does not read
            self._psi = None
        self.refresh()

    @property
    def has_psi(self) -> bool:
        """Whether the kernel gives PSI figures."""
        return self._psi is not None

    def boot_id(self) -> str:
        """The kernel's random boot id, 36 characters; zeros if it cannot be read."""
        text = self.read_text("proc/sys/kernel/random/boot_id").lower()
        known = len(text) == 36 and set(text) <= set("0123456789abcdef-")
        return text if known else "00000000-0000-0000-0000-000000000000"

    def kernel_release(self) -> str:
        """As uname -r has it; "" if it cannot be read."""
        return self.read_text("proc/sys/kernel/osrelease")

    def read_text(self, path: str) -> str:
        """A small file below the root, stripped; "" if it is not there."""
        return read_file(os.path.join(self._root, path)).decode("ascii", "replace").strip()

    def refresh(self) -> None:
        """Watermarks, overcommit mode, ARC, swap: what hot add, sysctl and modules change, and not time."""
        self.refresh_floor()
        self._swap_seen = (0, 0)
        self._groups.refresh()
        self._protected.refresh()
        self._zswap_percent = disk_swap.pool_percent(self._root)
        self._refuses = self.read_text("proc/sys/vm/overcommit_memory") == NEVER
        if self._arcstats is None:  # pools are imported, and the module loaded, while we run
            self._arcstats = self._try_open(evictable.ARCSTATS)

    def look_around(self) -> None:
        """What no file that is read at each refresh tells of, and changes seldom."""
        self.refresh_floor(anew=True)
        self._groups.look_again()
        self._protected.look_again()

    def refresh_floor(self, *, anew: bool = False) -> None:
        """The watermarks, unless the kernel has about the same minimum as when they were read last. Then they
        are what they were, but for 0.2 % of what memory came since. To read them costs as much as six looks.
        """
        told = _read_optional(self._min_free, _SETTING_BYTES).strip()
        minimum = int(told) if told.isdigit() else 0
        if anew or not minimum or abs(minimum - self._floor_minimum) * _SAME_FLOOR > minimum:
            self._floor_bytes, self._floor_minimum = self._read_floor(), minimum

    def _read_floor(self) -> int:
        """What it was, where the file cannot be read this time."""
        data = _read_optional(self._zoneinfo)
        try:
            return parse_floor(data) if data else self._floor_bytes
        except ValueError:  # no kernel writes that
            return self._floor_bytes

    def moved_pages(self) -> int:
        """Pages that the kernel has moved since boot; 0 where it does not count them. A read of vmstat."""
        vmstat = _read_all(self._vmstat)
        return Table(_MOVED, vmstat).parse(vmstat).get(_MOVED, 0)

    def look(self) -> Look:
        """The least that tells of a change: one read, of which two lines are taken apart."""
        meminfo = _read_all(self._meminfo)
        seen = self._glance.parse(meminfo)
        total = seen["MemTotal"]
        if self._arcstats is not None or "MemAvailable" not in seen:
            seen = self._memory.parse(meminfo)
        return Look(total, min(self._available(seen), total), min(self._floor_bytes, total), meminfo)

    def sample(self, look: Look | None = None) -> Facts:
        """All figures, meminfo and vmstat back to back since the host subtracts one from the other.

        look: one that was taken just now, and is what meminfo says in this sample.

        reclaimable: file cache on the LRU lists and reclaimable slab, less dirty and written-back pages and
        what groups protect.
        Locked pages are on the unevictable list and shmem on the anonymous ones, so neither is in it.
        ballooned: what the driver holds by the kernel's own count, whatever the host believes.
        """
        meminfo = _read_all(self._meminfo) if look is None else look.meminfo
        memory = self._memory.parse(meminfo)
        counters = self._counters.parse(_read_all(self._vmstat))
        psi = self._read_psi()
        total = memory["MemTotal"]
        free = memory.get("MemFree", 0)
        cache = memory.get("Active(file)", 0) + memory.get("Inactive(file)", 0)
        cache += memory.get("SReclaimable", 0)
        cache -= memory.get("Dirty", 0) + memory.get("Writeback", 0) + self._protected.cache_bytes
        swap_total = memory.get("SwapTotal", 0)
        swap_used = max(0, swap_total - memory.get("SwapFree", 0))
        if (swap_total, swap_used) != self._swap_seen:  # else it is where it was, or was found to be none
            self._swap_seen, self._swap_split = (swap_total, swap_used), self._read_disk_swap(swap_used)
        disk_used, disk_free = self._swap_split
        if swap_total:
            behind = self._behind_swap.parse(meminfo)
            disk_used = disk_swap.on_disk(disk_used, behind)
            disk_free = 0 if self.swapless else disk_free
            kept = self._groups.kept_bytes() + self._protected.programs_bytes if disk_free else 0
            disk_free = disk_swap.room_bytes(disk_free, behind, total, self._zswap_percent, kept)
        refaults = counters.get("workingset_refault_file", 0) + counters.get("workingset_refault_anon", 0)
        ballooned = counters.get("nr_balloon_pages")  # kernels from 6.18 say it outright
        if ballooned is None:
            ballooned = counters.get("balloon_inflate", 0) - counters.get("balloon_deflate", 0)
        return Facts(
            total_bytes=total,
            available_bytes=min(self._available(memory), total),
            free_bytes=min(free, total),
            reclaimable_bytes=min(max(0, cache), total),
            swap_total_bytes=swap_total,
            swap_used_bytes=swap_used,
            swap_cached_bytes=min(memory.get("SwapCached", 0), swap_total),
            swap_disk_used_bytes=min(disk_used, swap_used),
            swap_disk_free_bytes=min(disk_free, swap_total),
            swap_in_pages=counters.get("pswpin", 0),
            # Promises have no end where nobody bounds them: any program may reserve its address space.
            committed_bytes=min(memory.get("Committed_AS", 0), MAX_SIZE_BYTES),
            refault_pages=refaults or counters.get("workingset_refault", 0),  # its name before 5.9
            major_faults=counters.get("pgmajfault", 0),
            ballooned_bytes=max(0, ballooned) * PAGE_BYTES,
            floor_bytes=min(self._floor_bytes, total),
            commit_limit_bytes=min(memory.get("CommitLimit", 0), MAX_SIZE_BYTES) if self._refuses else 0,
            uptime_seconds=float(_read_all(self._uptime).split()[0]),
            psi=psi,
        )

    def _available(self, memory: dict[str, int]) -> int:
        """MemAvailable, with what the ARC gives back and without what groups protect; worked out where the
        kernel does not tell it.
        """
        told = memory.get("MemAvailable")
        if told is None or self._arcstats is not None:
            arcstats = _read_optional(self._arcstats)
            if not arcstats and self._arcstats is not None:  # the module went, and may come again
                os.close(self._arcstats)
                self._arcstats = None
            told = evictable.available_bytes(memory, arcstats, self._floor_bytes)
        return max(0, told - self._protected.cache_bytes)

    def close(self) -> None:
        """Close every file."""
        for fd in (
            self._meminfo,
            self._vmstat,
            self._uptime,
            self._psi,
            self._zoneinfo,
            self._min_free,
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
        """None without it. While nobody waits the text stays as it is, and is not taken apart again."""
        if self._psi is None:
            return None
        try:
            data = _read_all(self._psi)
            if data != self._psi_read[0]:
                self._psi_read = data, parse_psi(data)
        except (OSError, ValueError, IndexError):
            return None
        return self._psi_read[1]

    def _read_disk_swap(self, swap_used: int) -> tuple[int, int]:
        """Where nobody knows what of it is zram, all counts as used, and none as free."""
        data = _read_optional(self._swaps)
        try:
            return parse_disk_swap(data) if data else (swap_used, 0)
        except ValueError:
            return swap_used, 0


def _read_optional(fd: int | None, size: int = _READ_BYTES) -> bytes:
    """Nothing of a file that is not there, or that the kernel does not let us read any more."""
    try:
        return b"" if fd is None else _read_all(fd, size)
    except OSError:
        return b""


def _read_all(fd: int, size: int = _READ_BYTES) -> bytes:
    """The whole file. A seq_file may give one page a time, less a line, so it is read until nothing comes.

    size: as much as it has at the most, if that is known: for a setting the kernel clears as much first.
    """
    data = os.pread(fd, size, 0)
    if len(data) < _SURELY_ALL_BYTES:
        return data
    while more := os.pread(fd, _READ_BYTES, len(data)):
        data += more
    return data
