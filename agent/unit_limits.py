"""Limits of services as a share of memory, `MemoryMax=50%`: systemd works them out as it reads the unit, and
they follow no memory that comes later [systemd.resource-control(5), src/core/load-fragment.c:
config_parse_memory_limit].
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from agent.system import groups_beneath, read_file

_PLACES = ("etc", "run", "usr/lib", "lib")  # whose word counts before that of the next
_UNITS = (".service", ".slice", ".scope")
_LIMITS = {"MemoryMax": "memory.max", "MemoryHigh": "memory.high", "MemoryLimit": "memory.max"}
_GROUPS = "sys/fs/cgroup"
_DEEPEST = 4
_MOST_BYTES = 1 << 16


def left_behind(root: str, total_bytes: int) -> dict[str, str]:
    """Those in force that are less than half of that share of `total_bytes`, by their units' names:
    `MemoryMax=50% is 200 MiB`.
    """
    found = {}
    for unit, (key, percent) in _by_share(root).items():
        now = _in_force(os.path.join(root, _GROUPS), unit, _LIMITS[key], _DEEPEST)
        if now is not None and 2 * now < total_bytes * percent // 100:
            found[unit] = f"{key}={percent}% is {now >> 20} MiB"
    return found


def _by_share(root: str) -> dict[str, tuple[str, int]]:
    """Of each unit a limit and its percent."""
    found: dict[str, tuple[str, int]] = {}
    seen: set[str] = set()
    for place in _PLACES:
        for name, path in _files(os.path.join(root, place, "systemd/system")):
            unit = name.partition("/")[0]
            if name in seen:
                continue
            seen.add(name)
            for line in read_file(path, _MOST_BYTES).decode("utf-8", "replace").splitlines():
                key, _, value = (part.strip() for part in line.partition("="))
                percent = value[:-1].partition(".")[0]
                if key in _LIMITS and value.endswith("%") and percent.isdecimal() and len(percent) < 4:
                    found.setdefault(unit, (key, int(percent)))
    return found


def _in_force(directory: str, unit: str, limit: str, depth: int) -> int | None:
    """The limit on its control group (v2), bytes; None without one, and where it does not run."""
    told = read_file(os.path.join(directory, unit, limit), 64).strip()
    if told:
        return int(told) if told.isdigit() else None
    slices = [one for one in groups_beneath(directory) if one.endswith(".slice")] if depth else []
    within = (_in_force(one, unit, limit, depth - 1) for one in slices)
    return next((one for one in within if one is not None), None)


def _files(directory: str) -> Iterator[tuple[str, str]]:
    """Units, and what is dropped in beside them (`NAME.service.d/*.conf`): as which, and where."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        path = os.path.join(directory, name)
        if name.endswith(_UNITS):
            yield name, path
        elif name.endswith(tuple(f"{one}.d" for one in _UNITS)):
            try:
                beside = sorted(os.listdir(path))
            except OSError:
                continue
            for one in beside:
                if one.endswith(".conf"):
                    yield f"{name[:-2]}/{one}", os.path.join(path, one)
