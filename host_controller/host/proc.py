"""Single facts of one process, from /proc. A process that is gone, or may not be looked at, has none."""

import os
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def started(pid: int, proc: Path = PROC) -> str | None:
    """When a process was started, in ticks from boot: with its pid its identity. None when it has ended."""
    try:
        stat = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may hold anything; field 22 is the start time in ticks.
    fields = stat.rpartition(")")[2].split()
    return None if len(fields) < 20 or fields[0] in ("Z", "X") else fields[19]


def arguments(pid: int, proc: Path = PROC) -> list[bytes]:
    """The command line; empty for a kernel thread and for a process that is gone."""
    try:
        return (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def uuid_argument(words: list[bytes]) -> str | None:
    """What a command line gives as the VM's UUID, in small letters. Anybody can write that."""
    if b"-uuid" not in words[:-1]:
        return None
    return words[words.index(b"-uuid") + 1].decode(errors="replace").lower()


def owner(pid: int, proc: Path = PROC) -> int | None:
    """The real user id of a process; None when it has ended.

    Not the owner of its directory, which is root's for a process that may not be dumped.
    """
    for line in _status(pid, proc):
        if line.startswith("Uid:"):
            return int(line.split()[1])
    return None


def file_bytes(pid: int, proc: Path = PROC) -> int:
    """The part of its resident size that is files': page cache, which goes on demand."""
    for line in _status(pid, proc):
        if line.startswith("RssFile:"):
            return int(line.split()[1]) * 1024
    return 0


def resident_bytes(pid: int, proc: Path = PROC) -> int:
    """All of a process that is resident, from statm: 20 µs, and never less than its guest memory.

    Raises:
        OSError: it has ended.
    """
    return int((proc / str(pid) / "statm").read_bytes().split()[1]) * PAGE_BYTES


def name(pid: int, proc: Path = PROC) -> str:
    """Its main thread's name, at most 15 characters; empty when it has ended."""
    try:
        return (proc / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""


def _status(pid: int, proc: Path) -> list[str]:
    try:
        return (proc / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return []
