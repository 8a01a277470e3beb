"""Programs in the guest that kill others at a share of MemTotal: the host keeps the guest above it.

earlyoom ends the largest program once both MemAvailable and free swap are below a share, by default 10 %
each (`-m`, `-s`) [earlyoom(1)]. systemd-oomd goes by swap and by the PSI of single slices, so it is told and
has no figure.
"""

from __future__ import annotations

import os
from typing import NamedTuple

EARLYOOM, OOMD = "earlyoom", "systemd-oomd"
DEFAULT_PERCENT = 10
_NAMES = (EARLYOOM.encode(), OOMD.encode())


class Killers(NamedTuple):
    """What runs, and the share of MemTotal that must stay available because of it, percent; 0 without one."""

    names: tuple[str, ...] = ()
    percent: int = 0


def find(root: str = "/", total_bytes: int = 0) -> Killers:
    """Look through /proc: a few milliseconds, so not with every sample. total_bytes: MemTotal."""
    names: list[str] = []
    percent = 0
    directory = os.path.join(root, "proc")
    try:
        entries = os.listdir(directory)
    except OSError:
        return Killers()
    for entry in entries:
        if not entry.isdecimal():
            continue
        name = _read(os.path.join(directory, entry, "comm")).strip()
        if name not in _NAMES or name.decode() in names:
            continue
        names.append(name.decode())
        if name == EARLYOOM.encode():
            words = _read(os.path.join(directory, entry, "cmdline")).decode("utf-8", "replace").split("\0")
            percent = kill_percent(words, total_bytes)
    return Killers(tuple(sorted(names)), percent)


def kill_percent(words: list[str], total_bytes: int) -> int:
    """At which share of MemTotal an earlyoom with these arguments begins to kill, percent, rounded up.

    `-m PERCENT[,KILL]`, which may have a fraction, and `-M KIB[,KILL]`; with both the lower one counts.
    Without either the default does.
    """
    shares = []
    for option, after in zip(words, [*words[1:], ""]):
        for flag in ("-m", "-M"):
            text = after if option == flag else option[2:] if option.startswith(flag) else ""
            number, _, fraction = text.lstrip("=").partition(",")[0].partition(".")
            if not (number + (fraction or "0")).isdecimal() or not number or len(number) > 15:
                continue
            if flag == "-m":
                shares.append(int(number) + (1 if fraction.strip("0") else 0))
            elif total_bytes:
                shares.append(-(-(int(number) << 10) * 100 // total_bytes))
    return max(0, min(100, *shares)) if shares else DEFAULT_PERCENT


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(4096) or b""
    except OSError:
        return b""
