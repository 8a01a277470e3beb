"""File systems in memory whose limit the kernel took from MemTotal when they were mounted.

Half of MemTotal is the default [Documentation/filesystems/tmpfs.rst, "size"], and it stays what it was then.
/proc/mounts tells a size only where it is not half of what MemTotal is now.
"""

from __future__ import annotations

PLACES = ("/dev/shm", "/tmp", "/var/tmp")  # noqa: S108  looked at, and nothing is put there
"""Where programs put what is large. Others, as systemd's /run, are small on purpose."""
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def left_behind(mounts: str, total_bytes: int) -> list[tuple[str, int]]:
    """Those that hold less than half of MemTotal, with their sizes in bytes; `mounts`: /proc/mounts."""
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


def _bytes(text: str) -> int | None:
    number, unit = text.rstrip("kmg"), _UNITS.get(text[-1:], 1)
    return int(number) * unit if number.isdecimal() and len(number) < 18 else None
