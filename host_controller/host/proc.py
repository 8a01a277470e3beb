"""Single facts of one process, from /proc. A process that is gone, or may not be looked at, has none.

Read without pathlib and buffers: with a thousand VMs that is most of what a look at the host costs.
"""

import os
from pathlib import Path
from typing import Final

from host_controller.units import KIB

PROC: Final = Path("/proc")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_ALL_BYTES: Final = 1 << 16
"""More than any of these files has, but for a command line, of which the beginning is enough."""


def started(pid: int, proc: Path = PROC) -> str | None:
    """When a process was started, in ticks from boot: with its pid its identity. None when it has ended."""
    # The name, in parentheses, may hold anything; field 22 is the start time in ticks.
    fields = _read(pid, "stat", proc).rpartition(b")")[2].split()
    return None if len(fields) < 20 or fields[0] in (b"Z", b"X") else fields[19].decode()


def arguments(pid: int, proc: Path = PROC) -> list[bytes]:
    """The command line; empty for a kernel thread and for a process that is gone."""
    return _read(pid, "cmdline", proc).split(b"\0")


def uuid_argument(words: list[bytes]) -> str | None:
    """What a command line gives as the VM's UUID, in small letters. Anybody can write that."""
    if b"-uuid" not in words[:-1]:
        return None
    return words[words.index(b"-uuid") + 1].decode(errors="replace").lower()


def owner(pid: int, proc: Path = PROC) -> int | None:
    """The real user id of a process; None when it has ended.

    Not the owner of its directory, which is root's for a process that may not be dumped.
    """
    found = _status(pid, b"Uid:", proc)
    return int(found[0]) if found else None


def file_bytes(pid: int, proc: Path = PROC) -> int:
    """The part of its resident size that is files': page cache, which goes on demand."""
    found = _status(pid, b"RssFile:", proc)
    return int(found[0]) * KIB if found else 0


def in_container(pid: int, proc: Path = PROC) -> bool:
    """Whether it has a PID namespace that is not ours: it has a number in each. Anybody may ask."""
    return len(_status(pid, b"NSpid:", proc)) > 1


def resident_bytes(pid: int, proc: Path = PROC) -> int:
    """All of a process that is resident, from statm, and never less than its guest memory.

    Raises:
        OSError: it has ended.
    """
    fields = _read(pid, "statm", proc).split()
    if len(fields) < 2:
        raise ProcessLookupError(f"process {pid} has ended")
    return int(fields[1]) * PAGE_BYTES


def merged_bytes(pid: int, proc: Path = PROC) -> int | None:
    """What of a process KSM has merged with equal pages, of whomever; 0 when it has ended.

    None where that may not be read, and before Linux 5.19.
    """
    found = _read(pid, "ksm_merging_pages", proc).strip()
    if found.isdigit():
        return int(found) * PAGE_BYTES
    return 0 if started(pid, proc) is None else None


def name(pid: int, proc: Path = PROC) -> str:
    """Its main thread's name, at most 15 characters; empty when it has ended."""
    return _read(pid, "comm", proc).decode(errors="replace").rstrip("\n")


def cgroup(pid: int, proc: Path = PROC) -> str:
    """Its control groups, a line each; empty when it has ended."""
    return _read(pid, "cgroup", proc).decode(errors="replace")


def _status(pid: int, field: bytes, proc: Path) -> list[bytes]:
    for line in _read(pid, "status", proc).splitlines():
        if line.startswith(field):
            return line.split()[1:]
    return []


def _read(pid: int, file: str, proc: Path) -> bytes:
    try:
        descriptor = os.open(f"{proc}/{pid}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _ALL_BYTES)
    except OSError:
        return b""  # it has ended since
    finally:
        os.close(descriptor)
