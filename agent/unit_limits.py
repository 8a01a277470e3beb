"""Limits of services as a share of memory, `MemoryMax=50%`: systemd works them out as it reads the unit, and
they follow no memory that comes later [systemd.resource-control(5), src/core/load-fragment.c:
config_parse_memory_limit].
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from agent.system import read_file

_PLACES = ("etc", "run", "usr/lib", "lib")  # whose word counts before that of the next
_UNITS = (".service", ".slice", ".scope")
_LIMITS = ("MemoryMax", "MemoryHigh", "MemoryLimit")
_MOST_BYTES = 1 << 16


def by_share(root: str) -> dict[str, str]:
    """Each unit's, by its name: `MemoryMax=50%`."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for place in _PLACES:
        for name, path in _files(os.path.join(root, place, "systemd/system")):
            unit = name.partition("/")[0]
            if name in seen:
                continue
            seen.add(name)
            for line in read_file(path, _MOST_BYTES).decode("utf-8", "replace").splitlines():
                key, _, value = (part.strip() for part in line.partition("="))
                if key in _LIMITS and value.endswith("%") and value != "100%":
                    found.setdefault(unit, f"{key}={value}")
    return found


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
