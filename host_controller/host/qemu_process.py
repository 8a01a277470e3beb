"""What each VM's QEMU process really holds, from /proc.

A release that a guest claims counts only once the resident memory here agrees with it.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from host_controller.host.memory import PROC
from host_controller.units import KIB

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

UNCHANGED_BYTES: Final = 256 * KIB
"""QEMU's own allocations move its resident size by less without anything having happened."""
SMAPS_MAX_AGE_SECONDS: Final = 30.0
SMAPS_COST_SHARE: Final = 20
"""smaps walks page tables with the process's memory lock held: at most one part in 20 of the time."""
SCAN_SECONDS: Final = 0.25
"""/proc is searched for new QEMU processes at most this often."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line block of smaps that is not empty."""

    permissions: str
    size_bytes: int
    rss_bytes: int
    pss_bytes: int
    huge_bytes: int
    swap_bytes: int


@dataclass(frozen=True, slots=True)
class Resident:
    """What a VM's process holds."""

    guest_bytes: int
    """Resident part of guest RAM; of the whole process when the RAM could not be told apart."""
    overhead_bytes: int
    """Pss of everything else."""
    swap_bytes: int
    """In the host's swap."""
    identified: bool
    huge_bytes: int = 0
    """The part of guest_bytes in huge pages, some of which the host may have filled up by itself."""


_BLOCK: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) [^\n]*\n"
    rb"(?:(?!Rss:)[^\n]*\n)*?Rss: +(\d+) kB\nPss: +(\d+) kB\n"
    rb"(?:(?!AnonHugePages:|[0-9a-f]+-)[^\n]*\n)*?AnonHugePages: +(\d+) kB\n"
    rb"(?:(?!Swap:|[0-9a-f]+-)[^\n]*\n)*?Swap: +(\d+) kB\n",
    re.MULTILINE,
)


def read_smaps(text: bytes) -> list[Mapping]:
    """The mappings of /proc/PID/smaps."""
    return [
        Mapping(
            permissions=one[3].decode(),
            size_bytes=int(one[2], 16) - int(one[1], 16),
            rss_bytes=int(one[4]) * KIB,
            pss_bytes=int(one[5]) * KIB,
            huge_bytes=int(one[6]) * KIB,
            swap_bytes=int(one[7]) * KIB,
        )
        for one in _BLOCK.finditer(text)
    ]


def resident_of(mappings: Sequence[Mapping], ram_blocks: Sequence[int]) -> Resident:
    """Tell guest RAM from the rest: readable, writable, not executable (TCG's code buffer is), of exactly the
    size of a block of RAM (boot RAM or a NUMA cell, a DIMM, a virtio-mem device).

    When a block is not found, all of the process counts as guest memory. When more mappings than blocks
    have a size, the fullest are taken: rather too much guest memory than too little.
    """
    wanted = Counter(size for size in ram_blocks if size)
    guest = huge = overhead = 0
    swap = sum(one.swap_bytes for one in mappings)
    for one in sorted(mappings, key=lambda mapping: -mapping.rss_bytes):
        if one.permissions[:3] == "rw-" and wanted[one.size_bytes] > 0:
            wanted[one.size_bytes] -= 1
            guest += one.rss_bytes
            huge += one.huge_bytes
        else:
            overhead += one.pss_bytes
    if any(wanted.values()):
        return Resident(sum(one.rss_bytes for one in mappings), 0, swap, identified=False)
    return Resident(guest, overhead, swap, identified=True, huge_bytes=huge)


def resident(pid: int, ram_blocks: Sequence[int], *, proc: Path = PROC) -> Resident:
    """What a QEMU process holds, by smaps. Cost grows with what is resident.

    Raises:
        OSError: the process has ended, or may not be looked at.
    """
    return resident_of(read_smaps((proc / str(pid) / "smaps").read_bytes()), ram_blocks)


def process_resident_bytes(pid: int, *, proc: Path = PROC) -> int:
    """All of a process that is resident, from statm: 20 µs, and never less than its guest memory."""
    return int((proc / str(pid) / "statm").read_bytes().split()[1]) * PAGE_BYTES


class Processes:
    """QEMU processes by the UUID of their VM, as libvirt starts them (`-uuid UUID`)."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._found: dict[str, tuple[int, str]] = {}
        self._scanned_at = -SCAN_SECONDS

    def find(self, uuid: str) -> int | None:
        """The process of a VM, or None. A recycled pid is not taken for it: its start time differs."""
        known = self._found.get(uuid)
        if known is not None and self._started(known[0]) == known[1]:
            return known[0]
        self._found.pop(uuid, None)
        now = time.monotonic()
        if now - self._scanned_at >= SCAN_SECONDS:
            self._scanned_at = now
            self._found = dict(self._scan())
        known = self._found.get(uuid)
        return None if known is None else known[0]

    def _scan(self) -> Iterable[tuple[str, tuple[int, str]]]:
        for entry in os.scandir(self._proc):
            if not entry.name.isdigit():
                continue
            pid = int(entry.name)
            try:
                arguments = (self._proc / entry.name / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended
            if b"-uuid" not in arguments[:-1]:
                continue
            uuid = arguments[arguments.index(b"-uuid") + 1].decode(errors="replace").lower()
            started = self._started(pid)
            if started is not None:
                yield uuid, (pid, started)

    def _started(self, pid: int) -> str | None:
        try:
            stat = (self._proc / str(pid) / "stat").read_text()
        except OSError:
            return None
        # The name, in parentheses, may hold anything; field 22 is the start time in ticks.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]


@dataclass(slots=True)
class _Last:
    pid: int
    blocks: tuple[int, ...]
    total_bytes: int
    at: float
    cost_seconds: float
    resident: Resident


class ResidentMeter:
    """Reads VMs' resident memory, no more often than it is worth. Safe for use from several threads,
    one VM being read by one at a time.

    The whole process's size (statm) costs 20 µs, smaps milliseconds. smaps is read when the size has moved,
    the blocks have changed or 30 s have passed, but not more than 1/20 of the time. In between a growth
    counts as the guest's and a shrinking is not believed yet: never less than what is true.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._processes = Processes(proc)
        self._last: dict[str, _Last] = {}

    def read(self, uuid: str, ram_blocks: tuple[int, ...]) -> Resident | None:
        """What the VM holds; None when its process is not found or may not be read."""
        try:
            pid = self._processes.find(uuid)
            if pid is None:
                self._last.pop(uuid, None)
                return None
            total = process_resident_bytes(pid, proc=self._proc)
            now = time.monotonic()
            last = self._last.get(uuid)
            if last is not None and last.pid == pid and last.blocks == ram_blocks:
                age = now - last.at
                moved = total - last.total_bytes
                if abs(moved) < UNCHANGED_BYTES and age < SMAPS_MAX_AGE_SECONDS:
                    return last.resident
                if age < SMAPS_COST_SHARE * last.cost_seconds:
                    known = last.resident
                    return replace(known, guest_bytes=known.guest_bytes + max(0, moved))
            found = resident(pid, ram_blocks, proc=self._proc)
            done = time.monotonic()
        except OSError:
            return None
        self._last[uuid] = _Last(pid, ram_blocks, total, done, done - now, found)
        return found

    def forget(self, uuid: str) -> None:
        """The VM has stopped."""
        self._last.pop(uuid, None)
