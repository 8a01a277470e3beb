"""Reads the kernel's memory figures: files kept open, read with pread, parsed without regular expressions.

`root` stands for /: tests pass a directory with recorded files.
"""

from __future__ import annotations

import errno
import os

from agent import evictable
from agent.lean import NamedTuple
from agent.overcommit import NEVER
from agent.system import read_file
from agent.values import MAX_SIZE_BYTES

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_READ_BYTES = 16384
_SURELY_ALL_BYTES = min(PAGE_BYTES, _READ_BYTES) // 2
_DRIFT_BYTES = 64
_SETTING_BYTES = 32
_SAME_FLOOR = 16
_DISKS_IN_MEMORY = (b"zram", b"ram")


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


class Look(NamedTuple):
    """What tells whether a sample is worth it; sizes in bytes."""

    total_bytes: int
    available_bytes: int
    floor_bytes: int
    meminfo: bytes
    """The text that it was read from: a sample of the same instant begins with it."""


_MEMINFO = (
    "MemTotal MemFree MemAvailable SwapCached Active(file) Inactive(file) SwapTotal SwapFree Dirty Writeback "
    "SReclaimable CommitLimit Committed_AS"
)
_VMSTAT = (
    "nr_balloon_pages workingset_refault workingset_refault_anon workingset_refault_file "
    "pswpin pgmajfault balloon_inflate balloon_deflate"
)
_MOVED = "pgmigrate_success"
_KB = b" kB"


class Columns:
    """Sizes in /proc/meminfo. It has columns: where the last line begins and ends tells where all stand."""

    def __init__(self, names: str) -> None:
        """names: what is wanted of it."""
        self._wanted = names.split()
        self._last, self._last_at = b"?", slice(0)
        self._kb_at = slice(0)
        self._spans: list[tuple[str, slice]] = []

    def parse(self, data: bytes) -> dict[str, int]:
        """Name → bytes, of what is there. Raises ValueError for what is no size."""
        if data[self._last_at] != self._last or data[self._kb_at] != _KB:
            self._learn(data)
        try:
            return {name: int(data[span]) << 10 for name, span in self._spans}
        except ValueError:  # a line grew and another one shrank: of 100 GiB there are nine digits
            self._learn(data)
            return {name: int(data[span]) << 10 for name, span in self._spans}

    def _learn(self, data: bytes) -> None:
        self._spans = []
        self._last, self._last_at = b"?", slice(0)
        for name in self._wanted:
            mark = name.encode() + b":"
            at = 0 if data.startswith(mark) else data.find(b"\n" + mark) + 1
            if at or data.startswith(mark):
                begin, end = at + len(mark), data.find(_KB, at)
                if begin >= self._last_at.stop:
                    self._last, self._last_at = mark, slice(at, begin)
                    self._kb_at = slice(end, end + len(_KB))
                # With what stands behind: a figure that comes to have a digit more is not cut, should
                # lines behind it that nobody wants make up for that.
                self._spans.append((name, slice(begin, end + 1)))


class Table:
    """Counters in /proc/vmstat: one to a line, and lines that move as counters come to have more digits."""

    def __init__(self, names: str, first: bytes) -> None:
        """names: what is wanted. first: the file as it is now; what is not in it will not come."""
        self._lines = [(name, b"\n%b " % name.encode(), b"?", 0) for name in names.split()]
        self._counts: dict[str, int] = {}
        self.parse(first)
        self._lines = [line for line in self._lines if line[0] in self._counts]

    def parse(self, data: bytes) -> dict[str, int]:
        """Name → count, until it is called again. Raises ValueError for what is none."""
        moved = 0  # most say what they said, and stand where they stood, or have moved with the line before
        for number, (name, mark, line, was_at) in enumerate(self._lines):
            at = was_at + moved
            if not data.startswith(line, at):
                at = self._find(mark, was_at, data)
                end = data.find(b"\n", at + 1) + 1 or len(data)
                if not data.startswith(mark[1:], at + 1):
                    self._counts.pop(name, None)
                    continue
                line = data[max(0, at) : end]
                self._counts[name] = int(data[at + len(mark) : end])
            elif not moved:
                continue
            moved = at - was_at
            self._lines[number] = name, mark, line, at
        return self._counts

    def _find(self, mark: bytes, last: int, data: bytes) -> int:
        """Where the line before it ends, -1 if there is none: not far from where it was."""
        at = data.find(mark, max(0, last - _DRIFT_BYTES))
        return at if at >= 0 else data.find(mark)


def parse_meminfo(data: bytes) -> dict[str, int]:
    """Name → bytes, of what is wanted and there. Raises ValueError for what no kernel writes."""
    return Columns(_MEMINFO).parse(data)


def parse_vmstat(data: bytes) -> dict[str, int]:
    """Name → count, likewise."""
    return Table(_VMSTAT, data).parse(data)


def parse_psi(data: bytes) -> Psi:
    """The four figures of /proc/pressure/memory. Raises ValueError or IndexError if they are not there.

    No share of time is above 100, also where the clock of a guest that stood still made it so.
    """
    words = data.split()
    marks = (words[0], words[1][:6], words[4][:6], words[5], words[6][:6], words[9][:6])
    if marks != (b"some", b"avg10=", b"total=", b"full", b"avg10=", b"total="):
        raise ValueError("some and full are not where they should be")
    some, full = (min(float(words[at][6:]), 100.0) for at in (1, 6))
    return Psi(some, full, int(words[4][6:]), int(words[9][6:]))


def parse_floor(data: bytes) -> int:
    """The kernel's floor in bytes: the high watermarks of /proc/zoneinfo, zones without pages left out.

    kswapd reclaims until every zone has its high watermark free, so below this a guest is never at rest.
    """
    pages = at = 0
    while (at := data.find(b" high ", at)) >= 0:
        at += 6
        managed = data.find(b" managed ", at)
        if managed < 0:
            break
        if int(data[managed + 9 : data.find(b"\n", managed)]) > 0:
            pages += int(data[at : data.find(b"\n", at)])
    return pages * PAGE_BYTES


def is_swap_in_memory(line: bytes) -> bool:
    """Whether a line of /proc/swaps is of a zram device or a RAM disk: their swap is memory again.

    The kernel calls a device a partition, by the path at which it was opened (/dev/zram0; Android has it in
    /dev/block). A file may be called anything.
    """
    words = line.split()
    if words[1:2] != [b"partition"]:
        return False
    name = words[0].rpartition(b"/")[2]
    return any(name.startswith(kind) and name[len(kind) :][:1].isdigit() for kind in _DISKS_IN_MEMORY)


def parse_disk_swap(data: bytes) -> tuple[int, int]:
    """Bytes used and bytes free in /proc/swaps on what is no memory again, as zram and RAM disks are."""
    used = free = 0
    for line in data.splitlines()[1:]:
        words = line.split()
        if len(words) >= 5 and not is_swap_in_memory(line):
            size, taken = int(words[-3]) << 10, int(words[-2]) << 10
            used += taken
            free += max(0, size - taken)
    return used, free


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
        self._memory = Columns(_MEMINFO)
        self._counters = Table(_VMSTAT, _read_all(self._vmstat))
        self._psi_read: tuple[bytes, Psi | None] = (b"", None)
        self._floor_minimum = 0
        """min_free_kbytes as the floor was read; 0: not known."""
        self._swap_seen = self._swap_split = (0, 0)
        self._floor_bytes = 0
        self._refuses = False
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
        self._refuses = self.read_text("proc/sys/vm/overcommit_memory") == NEVER
        if self._arcstats is None:  # pools are imported, and the module loaded, while we run
            self._arcstats = self._try_open(evictable.ARCSTATS)

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
        told = seen.get("MemAvailable")
        if told is None or self._arcstats is not None:
            told = self._available(self._memory.parse(meminfo))
        return Look(total, min(told, total), min(self._floor_bytes, total), meminfo)

    def sample(self, look: Look | None = None) -> Facts:
        """All figures, meminfo and vmstat back to back since the host subtracts one from the other.

        look: one that was taken just now, and is what meminfo says in this sample.

        reclaimable: file cache on the LRU lists and reclaimable slab, less dirty and written-back pages.
        Locked pages are on the unevictable list and shmem on the anonymous ones, so neither is in it.
        ballooned: what the driver holds by the kernel's own count, whatever the host believes.
        """
        memory = self._memory.parse(_read_all(self._meminfo) if look is None else look.meminfo)
        counters = self._counters.parse(_read_all(self._vmstat))
        psi = self._read_psi()
        total = memory["MemTotal"]
        free = memory.get("MemFree", 0)
        cache = memory.get("Active(file)", 0) + memory.get("Inactive(file)", 0)
        cache += memory.get("SReclaimable", 0)
        cache -= memory.get("Dirty", 0) + memory.get("Writeback", 0)
        swap_total = memory.get("SwapTotal", 0)
        swap_used = max(0, swap_total - memory.get("SwapFree", 0))
        if (swap_total, swap_used) != self._swap_seen:  # else it is where it was, or was found to be none
            self._swap_seen, self._swap_split = (swap_total, swap_used), self._read_disk_swap(swap_used)
        disk_used, disk_free = self._swap_split
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
        """MemAvailable, with what the ARC gives back; worked out where the kernel does not tell it."""
        told = memory.get("MemAvailable")
        if told is not None and self._arcstats is None:
            return told
        arcstats = _read_optional(self._arcstats)
        if not arcstats and self._arcstats is not None:  # the module went, and may come again
            os.close(self._arcstats)
            self._arcstats = None
        return evictable.available_bytes(memory, arcstats, self._floor_bytes)

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
