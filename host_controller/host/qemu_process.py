"""What each VM's QEMU process really holds, from /proc.

A release that a guest claims counts only once the resident memory here agrees with it.
"""

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from host_controller.host import limits
from host_controller.host import proc as processes
from host_controller.host.identity import Identity
from host_controller.host.proc import PROC
from host_controller.units import KIB

UNCHANGED_BYTES: Final = 256 * KIB
"""QEMU's own allocations move its resident size by less without anything having happened."""
SMAPS_MAX_AGE_SECONDS: Final = 30.0
SMAPS_COST_SHARE: Final = 20
"""smaps walks page tables with the process's memory lock held: at most one part in 20 of the time."""
UNREAD_SECONDS: Final = 10.0
"""A VM that starts or ends has no process that can be read for a moment; later somebody must be told."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line block of smaps that is not empty."""

    permissions: str
    size_bytes: int
    rss_bytes: int
    pss_bytes: int
    huge_bytes: int
    swap_bytes: int

    @property
    def shared(self) -> bool:
        """Writable, and others see what is written: a file, or memory that has a descriptor."""
        return self.permissions[1:] in ("w-s", "wxs")


@dataclass(frozen=True, slots=True)
class Resident:
    """What a VM's process holds."""

    guest_bytes: int
    """Resident part of guest RAM; of the whole process when the RAM could not be told apart."""
    overhead_bytes: int
    """Pss of everything else, but for files that it shares with others, as far as they are cache."""
    swap_bytes: int
    """In the host's swap."""
    identified: bool
    huge_bytes: int = 0
    """The part of guest_bytes in huge pages, some of which the host may have filled up by itself."""


_BLOCK: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) [^\n]*\n"
    rb"(?:(?!Rss:)[^\n]*\n)*?Rss: +(\d+) kB\nPss: +(\d+) kB\n"
    rb"(?:(?!AnonHugePages:|[0-9a-f]+-)[^\n]*\n)*?AnonHugePages: +(\d+) kB\n"
    rb"(?:ShmemPmdMapped: +(\d+) kB\n)?"
    rb"(?:(?!Swap:|[0-9a-f]+-)[^\n]*\n)*?Swap: +(\d+) kB\n",
    re.MULTILINE,
)
"""Guest RAM that is shared (memfd) has its huge pages of the host as ShmemPmdMapped, since Linux 4.8."""


def read_smaps(text: bytes) -> list[Mapping]:
    """The mappings of /proc/PID/smaps."""
    return [
        Mapping(
            permissions=one[3].decode(errors="replace"),
            size_bytes=int(one[2], 16) - int(one[1], 16),
            rss_bytes=int(one[4]) * KIB,
            pss_bytes=int(one[5]) * KIB,
            huge_bytes=min(int(one[4]), int(one[6]) + int(one[7] or 0)) * KIB,
            swap_bytes=int(one[8]) * KIB,
        )
        for one in _BLOCK.finditer(text)
    ]


def resident_of(mappings: Sequence[Mapping], ram_blocks: Sequence[int], file_bytes: int = 0) -> Resident:
    """Tell guest RAM from the rest: readable, writable, not executable (TCG's code buffer is), of exactly the
    size of a block of RAM (boot RAM or a NUMA cell, a DIMM, a virtio-mem device).

    When blocks are not found, they may lie in one mapping of all of them: machine types before 5.1 have one
    for several NUMA cells. Else all of the process counts as guest memory. When more mappings than blocks
    have a size, the fullest are taken: rather too much guest memory than too little.

    file_bytes: what the process maps of files (RssFile). That goes on demand, or lies in no RAM of the host's
    at all, where it is persistent memory: the file of an NVDIMM or a virtio-pmem is none of QEMU's own.
    """
    there = Counter(one.size_bytes for one in mappings if one.permissions[:3] == "rw-")
    wanted = Counter(size for size in ram_blocks if size)
    together = sum((wanted - there).elements())
    if together and there[together] > wanted[together]:
        wanted = (wanted & there) + Counter([together])
    guest = huge = overhead = shared = 0
    swap = sum(one.swap_bytes for one in mappings)
    for one in sorted(mappings, key=lambda mapping: -mapping.rss_bytes):
        if one.permissions[:3] == "rw-" and wanted[one.size_bytes] > 0:
            wanted[one.size_bytes] -= 1
            guest += one.rss_bytes
            huge += one.huge_bytes
            if one.shared:  # it may be a file's: no more than the rest is surely others'
                file_bytes -= one.rss_bytes
        else:
            overhead += one.pss_bytes
            shared += one.pss_bytes if one.shared else 0
    if any(wanted.values()):
        return Resident(sum(one.rss_bytes for one in mappings), 0, swap, identified=False)
    overhead -= min(shared, max(0, file_bytes))
    return Resident(guest, overhead, swap, identified=True, huge_bytes=huge)


@dataclass(slots=True)
class _Last:
    pid: int
    blocks: tuple[int, ...]
    total_bytes: int
    at: float
    cost_seconds: float
    resident: Resident


class Unread(Exception):  # noqa: N818 # read as what happened
    """Nothing can be said of what a VM holds; the text says why, for people."""


class ResidentMeter:
    """Reads VMs' resident memory, no more often than it is worth. Safe for use from several threads,
    one VM being read by one at a time.

    The whole process's size (statm) costs 20 µs, smaps milliseconds. smaps is read when the size has moved,
    the blocks have changed or 30 s have passed, but not more than 1/20 of the time. In between a growth
    counts as the guest's and a shrinking is not believed yet: never less than what is true.
    """

    def __init__(self, identity: Identity, proc: Path = PROC) -> None:
        self._proc = proc
        self._identity = identity
        self._last: dict[str, _Last] = {}
        self._failing: dict[str, tuple[float, str]] = {}
        """VMs that could not be read, since when, and why."""

    def read(self, uuid: str, ram_blocks: tuple[int, ...], owner: int | None = None) -> Resident | None:
        """What the VM holds; None when its process is not found or may not be read.

        owner: the user id as which libvirt says that it runs, where it says so.
        """
        try:
            found = self._read(uuid, ram_blocks, owner)
        except Unread as why:
            since, _ = self._failing.get(uuid, (time.monotonic(), ""))
            self._failing[uuid] = (since, str(why))
            return None
        self._failing.pop(uuid, None)
        return found

    def own_limit(self, uuid: str, owner: int | None = None) -> limits.Limit | None:
        """The tightest limit on the VM's own control groups; None without one, and of an unknown process."""
        pid = self._identity.find(uuid, owner)
        return None if pid is None else limits.of_its_own(pid, self._proc.parent, self._identity.pids())

    def unread(self) -> dict[str, str]:
        """The VMs of which nothing could be learnt for a while, with the reason, by UUID."""
        now = time.monotonic()
        return {
            uuid: why for uuid, (since, why) in list(self._failing.items()) if now - since >= UNREAD_SECONDS
        }

    def forget(self, uuid: str) -> None:
        """The VM has stopped."""
        self._last.pop(uuid, None)
        self._failing.pop(uuid, None)

    def _read(self, uuid: str, ram_blocks: tuple[int, ...], owner: int | None) -> Resident:
        pid = self._identity.find(uuid, owner)
        if pid is None:
            self._last.pop(uuid, None)
            raise Unread(self._identity.why_not(uuid))
        try:
            total = processes.resident_bytes(pid, self._proc)
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
            mappings = read_smaps((self._proc / str(pid) / "smaps").read_bytes())
            done = time.monotonic()
        except PermissionError:
            raise Unread(f"/proc/{pid}/smaps may not be read: CAP_SYS_PTRACE is missing") from None
        except OSError as error:
            raise Unread(f"/proc/{pid}/smaps: {error.strerror}") from None
        if not mappings:
            raise Unread(f"/proc/{pid}/smaps says nothing: the process is ending, or it is in another format")
        found = resident_of(mappings, ram_blocks, processes.file_bytes(pid, self._proc))
        self._last[uuid] = _Last(pid, ram_blocks, total, done, done - now, found)
        return found
