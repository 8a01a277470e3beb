"""What /proc/mounts tells: file systems in memory whose limit is that of a smaller guest, and files that the
next boot takes away.
"""

from __future__ import annotations

import os

PLACES = ("/dev/shm", "/tmp", "/var/tmp")  # noqa: S108  looked at, and nothing is put there
"""Where programs put what is large. Others, as systemd's /run, are small on purpose."""
_LARGEST = 1 << 20
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def mounts_of(root: str) -> str:
    """/proc/mounts; empty where it cannot be read. One read gives no more than a page of it."""
    try:
        with open(os.path.join(root, "proc/mounts"), encoding="utf-8", errors="replace") as file:
            return file.read(_LARGEST)
    except OSError:
        return ""


def left_behind(mounts: str, total_bytes: int) -> list[tuple[str, int]]:
    """Those in memory that hold less than half of MemTotal, and how many bytes; `mounts`: /proc/mounts.

    Half of MemTotal is the default [Documentation/filesystems/tmpfs.rst, "size"], and it stays what it was
    when they were mounted. A size is told only where it is not half of what MemTotal is now.
    """
    found: dict[str, int] = {}
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 4 or fields[1] not in PLACES:
            continue
        found.pop(fields[1], None)  # what was mounted last lies on top
        if fields[2] == "tmpfs":
            sizes = [one[5:] for one in fields[3].split(",") if one.startswith("size=")]
            size = _bytes(sizes[-1]) if sizes else None
            if size is not None and size < total_bytes // 2:
                found[fields[1]] = size
    return list(found.items())


def lies_in_memory(mounts: str, path: str) -> bool:
    """Whether what is written at an absolute path goes with the next boot: a root without a disk (Alpine's
    diskless mode, live systems), or one whose changes lie in memory (overlayroot, systemd.volatile=overlay).
    """
    while True:
        place, kind, options = _mount_of(mounts, path)
        if kind != "overlay":
            return kind in ("tmpfs", "ramfs", "rootfs")
        upper = next((one[9:] for one in options.split(",") if one.startswith("upperdir=/")), "")
        if not upper or len(_mount_of(mounts, upper)[0]) <= len(place):
            return False  # it lies where we cannot see it
        path = upper


def _mount_of(mounts: str, path: str) -> tuple[str, str, str]:
    """The file system that a path is in: where it is mounted, its kind, its options."""
    found = ("", "", "")
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 4 or not f"{path}/".startswith(fields[1].rstrip("/") + "/"):
            continue
        if len(fields[1]) >= len(found[0]):  # what was mounted last lies on top
            found = (fields[1], fields[2], fields[3])
    return found


def _bytes(text: str) -> int | None:
    number, unit = text.rstrip("kmg"), _UNITS.get(text[-1:], 1)
    return int(number) * unit if number.isdecimal() and len(number) < 18 else None
