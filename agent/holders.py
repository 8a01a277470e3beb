"""Who holds this guest's memory: its services, or where there are none its programs. Told when a host asks.

Services are control groups (v2): of each unit, or of each last group elsewhere, memory.current less its file
cache, which the kernel drops for whoever needs memory. They are told where process 1 is in a group of its
own, as systemd's is: then everybody else is in one, too. Elsewhere it is programs: the processes of one name
together, each with what it shares with no file (/proc/PID/statm, resident less shared). Not Pss: smaps_rollup
wants a capability that the agent does not have, and waits for the process's mmap lock, which whoever stalls
for memory may hold.

DYNMEM_HOLDERS=hide in the environment has the agent tell no host. Nothing here is read before one asks.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Mapping

from agent.values import HOLDER_LETTERS, MAX_HOLDER_CHARS, MOST_HOLDERS

_GROUPS, _PROC = "sys/fs/cgroup", "proc"
_MOST_GROUPS = 1024
_MOST_PROCESSES = 8192
_DEEPEST = 8
_UNITS = (".service", ".scope")

Found = tuple[tuple[str, int], ...]


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the guest's administrator lets hosts be told; the default is yes."""
    return environment.get("DYNMEM_HOLDERS", "tell").strip().lower() != "hide"


def services(root: str = "/") -> Found:
    """The services that hold most, largest first, bytes; empty where not everybody is in a group."""
    first = _read(os.path.join(root, _PROC, "1/cgroup")).splitlines()
    if not any(line.startswith(b"0::/") and line != b"0::/" for line in first):
        return ()
    sizes: dict[str, int] = {}
    paths: dict[str, list[str]] = {}
    for count, (path, size) in enumerate(_groups(os.path.join(root, _GROUPS))):
        if count == _MOST_GROUPS:
            break
        name = holder_name(_without_suffix(os.path.basename(path)))
        sizes[name] = sizes.get(name, 0) + size
        paths.setdefault(name, []).append(path)
    found: dict[str, int] = {}
    for name, size in _largest(sizes, len(sizes)):
        # Less its cache a group only gets smaller: once five are above the next one, they are the five.
        if len(found) >= MOST_HOLDERS and sorted(found.values())[-MOST_HOLDERS] >= size:
            break
        found[name] = max(0, size - sum(map(_file_cache, paths[name])))
    return _largest(found, MOST_HOLDERS)


def processes(root: str = "/", total_bytes: int = 1 << 50) -> Found:
    """The programs that hold most, largest first, bytes. What forked processes share counts in each, so no
    program is said to hold more than `total_bytes`, MemTotal.
    """
    directory, page_bytes = os.path.join(root, _PROC), os.sysconf("SC_PAGE_SIZE")
    sizes: dict[str, int] = {}
    for pid in [name for name in os.listdir(directory) if name.isdecimal()][:_MOST_PROCESSES]:
        words = _read(os.path.join(directory, pid, "statm")).split()
        if len(words) < 3 or (pages := int(words[1]) - int(words[2])) <= 0:
            continue
        name = holder_name(_read(os.path.join(directory, pid, "comm")).decode("utf-8", "replace"))
        sizes[name] = min(total_bytes, sizes.get(name, 0) + pages * page_bytes)
    return _largest(sizes, MOST_HOLDERS)


def holder_name(text: str) -> str:
    """A name as the wire takes it: who runs in the guest may have chosen any."""
    plain = "".join(one if one in HOLDER_LETTERS else "?" for one in text.strip())
    return plain[:MAX_HOLDER_CHARS].strip() or "?"


def _largest(sizes: Mapping[str, int], most: int) -> Found:
    return tuple(sorted(sizes.items(), key=lambda one: (-one[1], one[0]))[:most])


def _groups(root: str) -> Iterator[tuple[str, int]]:
    """Units, and groups that have none beneath them, with memory.current: the largest first, since no group
    holds more than the one above it. So whoever stops early misses only small ones.
    """
    waiting = [(0, 0, root)]
    while waiting:
        size, depth, path = heapq.heappop(waiting)
        is_unit = depth > 0 and path.endswith(_UNITS)
        beneath = [] if is_unit or depth > _DEEPEST else list(_beneath(path))
        for current, one in beneath:
            heapq.heappush(waiting, (-current, depth + 1, one))
        if depth > 0 and not beneath:
            yield path, -size


def _beneath(directory: str) -> Iterator[tuple[int, str]]:
    """The groups in a group that count memory, with memory.current."""
    try:
        paths = [one.path for one in os.scandir(directory) if one.is_dir(follow_symlinks=False)]
    except OSError:  # it went
        return
    for path in paths:
        current = _read(os.path.join(path, "memory.current")).strip()
        if current.isdigit():
            yield int(current), path


def _file_cache(path: str) -> int:
    """What of a group's memory is files, bytes."""
    total = 0
    for line in _read(os.path.join(path, "memory.stat"), 65536).splitlines():
        key, _, value = line.partition(b" ")
        if key in (b"active_file", b"inactive_file") and value.isdigit():
            total += int(value)
    return total


def _without_suffix(name: str) -> str:
    for suffix in _UNITS:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def _read(path: str, largest: int = 4096) -> bytes:
    """A file's beginning; nothing of one that went."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(descriptor, largest)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
