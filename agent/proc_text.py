"""What the kernel's memory files say: their text taken apart, without regular expressions. It opens none.

The host, too, takes the texts of its guests apart with it.
"""

from __future__ import annotations

import os

from agent.lean import NamedTuple

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_DRIFT_BYTES = 64
_DISKS_IN_MEMORY = (b"zram", b"ram")

MEMINFO = (
    "MemTotal MemFree MemAvailable SwapCached Active(file) Inactive(file) SwapTotal SwapFree Dirty Writeback "
    "SReclaimable CommitLimit Committed_AS"
)
VMSTAT = (
    "nr_balloon_pages workingset_refault workingset_refault_anon workingset_refault_file "
    "pswpin pgmajfault balloon_inflate balloon_deflate"
)
_KB = b" kB"


class Psi(NamedTuple):
    """/proc/pressure/memory: averages over 10 s in percent, totals in microseconds from boot."""

    some_avg10: float
    full_avg10: float
    some_total_us: int
    full_total_us: int


class Columns:
    """Sizes in /proc/meminfo. It has columns: where the last line begins and ends tells where all stand."""

    def __init__(self, names: str) -> None:
        """names: the lines that are wanted, separated by spaces."""
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
    return Columns(MEMINFO).parse(data)


def parse_vmstat(data: bytes) -> dict[str, int]:
    """The counters of VMSTAT in /proc/vmstat, by name."""
    return Table(VMSTAT, data).parse(data)


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
