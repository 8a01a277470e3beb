"""What a QEMU process really uses: guest memory apart from everything else, from /proc.

The exact figures are in /proc/PID/smaps, but the kernel walks every page for them: some 20 ms for a guest of
512 MiB, ten times that on a busy machine. So a thread reads them for one guest after the other, about once a
second each, and between two readings the process's count of anonymous pages, which costs nothing, tells how
guest memory moved.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

_SMALLEST_RAM = 64 << 20  # video, firmware and option ROMs are smaller than any guest RAM
_PAUSE = 0.2  # seconds between two readings of smaps


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """`resident_bytes`: guest RAM in use (Pss and swapped); `overhead_bytes`: Pss of all else."""

    resident_bytes: int
    overhead_bytes: int


def read_smaps(pid: int) -> ProcessMemory:
    """Sum up one process. Raises OSError when it is gone.

    Guest RAM is a private mapping `rw-p`, at least 64 MiB, that QEMU has advised not to dump (`dd`: libvirt's
    dump-guest-core=off) and not to fork (`dc`). TCG's code buffer is `rwxp`, malloc's arenas are dumped. The
    kernel may join two neighbouring RAM blocks into one mapping: which of them a page belongs to does not
    matter here.
    """
    resident = overhead = 0
    candidate = False
    pss = swap = 0
    for line in Path(f"/proc/{pid}/smaps").read_bytes().splitlines():
        if line.startswith(b"Pss:"):
            pss = int(line.split()[1])
        elif line.startswith(b"Swap:"):
            swap = int(line.split()[1])
        elif line.startswith(b"VmFlags:"):
            flags = line.split()
            if candidate and b"dd" in flags and b"dc" in flags:
                resident += pss + swap
            else:
                overhead += pss
        elif line[:1] in b"0123456789abcdef":
            addresses, permissions = line.split(None, 2)[:2]
            start, _, end = addresses.partition(b"-")
            candidate = permissions == b"rw-p" and int(end, 16) - int(start, 16) >= _SMALLEST_RAM
    return ProcessMemory(resident * 1024, overhead * 1024)


def huge_share(pid: int) -> float:
    """The part of a process's anonymous memory that is in huge pages of the host, 0 to 1."""
    kib = {"Anonymous": 0, "AnonHugePages": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        if name in kib:
            kib[name] = int(value.split()[0])
    return kib["AnonHugePages"] / kib["Anonymous"] if kib["Anonymous"] else 0.0


def read_anonymous(pid: int) -> int:
    """Bytes of anonymous pages, in memory or swapped: counters, no walk. Raises OSError when gone."""
    total = 0
    for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
        if line.startswith((b"RssAnon:", b"VmSwap:")):
            total += int(line.split()[1]) * 1024
    return total


class MemoryReader:
    """Figures of some processes, fresh at every call of `now`, exact about once a second.

    In between, what anonymous memory grew or shrank by is booked on guest memory. While it moves during a
    reading the error is at most half of that movement, until the next reading.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exact: dict[int, tuple[ProcessMemory, int]] = {}  # pid -> (figures, anonymous bytes then)
        self._pids: list[int] = []
        self._thread = threading.Thread(target=self._read_for_ever, name="smaps", daemon=True)
        self._thread.start()

    def add(self, pid: int) -> None:
        """Follow this process too; its first reading is taken at once. Raises OSError when it is gone."""
        self._read(pid)
        with self._lock:
            self._pids.append(pid)

    def remove(self, pid: int) -> None:
        """Follow it no more."""
        with self._lock:
            self._pids.remove(pid)
            self._exact.pop(pid, None)

    def now(self, pid: int) -> ProcessMemory:
        """Its figures now. Raises OSError when it is gone."""
        anonymous = read_anonymous(pid)
        with self._lock:
            exact, then = self._exact[pid]
        return ProcessMemory(max(0, exact.resident_bytes + anonymous - then), exact.overhead_bytes)

    def _read(self, pid: int) -> None:
        before = read_anonymous(pid)
        exact = read_smaps(pid)
        then = (before + read_anonymous(pid)) // 2
        with self._lock:
            self._exact[pid] = (exact, then)

    def _read_for_ever(self) -> None:
        while True:
            with self._lock:
                pids = list(self._pids)
            for pid in pids:
                try:
                    self._read(pid)
                except OSError:
                    continue  # the sampling loop finds that out by itself
                time.sleep(_PAUSE)
            if not pids:
                time.sleep(_PAUSE)
