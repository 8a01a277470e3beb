"""Programs in the guest that kill others when memory is short: the host keeps the guest above their share.

    earlyoom           below a share of MemTotal and of swap, by default 10 % [earlyoom(1), -m and -M]
    nohang             the same, from its configuration [nohang.conf: soft_threshold_min_mem]
    systemd-oomd       by swap and by the PSI of single slices
    bustd              by PSI
    kubelet            evicts pods below a size, by default 100 MiB [Kubernetes: node-pressure eviction];
                       k3s and MicroK8s have it within a program of their own. Pods may use no swap unless its
                       configuration says so [Kubernetes: swapBehavior, NoSwap by default]

Only the first two have a share, which the host must know; where the last runs no swap counts as free. The
others are told by the doctor.
"""

from __future__ import annotations

import os
import stat

from agent.lean import NamedTuple
from agent.system import kernel_threads, read_file

EARLYOOM, NOHANG, OOMD, BUSTD, KUBELET = "earlyoom", "nohang", "systemd-oomd", "bustd", "kubelet"
DEFAULT_PERCENT = 10
_NAMES = {name.encode(): name for name in (EARLYOOM, NOHANG, OOMD, BUSTD, KUBELET)}
_NAMES.update(dict.fromkeys((b"k3s-server", b"k3s-agent", b"kubelite"), KUBELET))
_NOHANG_KEYS = ("soft_threshold_min_mem", "mem_min_sigterm")
"""Of today, and of releases before 0.2."""
_LARGEST_FILE = 64 << 10
_EVERY_SECONDS = 60.0
_MOVED_SHARE = 16


class Killers(NamedTuple):
    """What runs, and the share of MemTotal that must stay available because of it, percent; 0 without one."""

    names: tuple[str, ...] = ()
    percent: int = 0


def find(root: str = "/", total_bytes: int = 0) -> Killers:
    """Look through /proc: a few milliseconds, so not with every sample. total_bytes: MemTotal."""
    names: set[str] = set()
    percent = 0
    directory = os.path.join(root, "proc")
    try:
        entries = os.listdir(directory)
    except OSError:
        return Killers()
    for entry in set(entries) - kernel_threads(directory):
        if not entry.isdecimal():
            continue
        name = _NAMES.get(read_file(f"{directory}/{entry}/comm").strip())
        if name is None or name in names:
            continue
        names.add(name)
        if name in (EARLYOOM, NOHANG):
            words = read_file(f"{directory}/{entry}/cmdline").decode("utf-8", "replace").split("\0")
            percent = max(percent, share_of(name, root, words, total_bytes))
    return Killers(tuple(sorted(names)), percent)


def share_of(name: str, root: str, words: list[str], total_bytes: int) -> int:
    """The share of MemTotal below which an earlyoom or a nohang with these arguments kills, percent."""
    return kill_percent(words, total_bytes) if name == EARLYOOM else _nohang(root, words, total_bytes)


class Watch:
    """Asks who kills whenever that may have changed: once a minute, and where somebody does, also as MemTotal
    moves by 1/16: who kills below a size kills below another share once the balloon has moved.
    """

    def __init__(self, root: str, now: float) -> None:
        self._root = root
        self._due_at = now
        self._total_bytes = self._percent = 0
        self.swapless = False
        """Most of what runs may use no swap."""

    def due(self, now: float) -> bool:
        """Whether a minute has passed since the last look."""
        return now >= self._due_at

    def percent(self, total_bytes: int, now: float) -> int:
        """The share of MemTotal that must stay available, percent; 0 without one. total_bytes: MemTotal."""
        moved = self._percent and abs(total_bytes - self._total_bytes) > total_bytes // _MOVED_SHARE
        if moved or self.due(now):
            self._due_at, self._total_bytes = now + _EVERY_SECONDS, total_bytes
            found = find(self._root, total_bytes)
            self._percent, self.swapless = found.percent, KUBELET in found.names
        return self._percent


def kill_percent(words: list[str], total_bytes: int) -> int:
    """At which share of MemTotal an earlyoom with these arguments begins to kill, percent, rounded up.

    `-m PERCENT[,KILL]`, which may have a fraction, and `-M KIB[,KILL]`; with both the lower one counts.
    Without either the default does.
    """
    shares = []
    for option, after in zip(words, [*words[1:], ""]):
        for flag, unit_bytes in (("-m", 0), ("-M", 1 << 10)):
            text = after if option == flag else option[2:] if option.startswith(flag) else ""
            share = _percent(text.lstrip("=").partition(",")[0], unit_bytes, total_bytes)
            if share is not None:
                shares.append(share)
    return min(shares, default=DEFAULT_PERCENT)


def nohang_percent(text: str, total_bytes: int) -> int:
    """At which share of MemTotal a nohang with this configuration begins to kill, percent, rounded up.

    `soft_threshold_min_mem = 5 %` or `= 400 M`. A line that cannot be read leaves the default.
    """
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() in _NOHANG_KEYS:
            number, unit = value.strip()[:-1].strip(), value.strip()[-1:]
            if unit in ("%", "M"):
                share = _percent(number, 1 << 20 if unit == "M" else 0, total_bytes)
                return DEFAULT_PERCENT if share is None else share
    return DEFAULT_PERCENT


def _nohang(root: str, words: list[str], total_bytes: int) -> int:
    """Of a nohang that was started with these arguments."""
    path = "/etc/nohang/nohang.conf"
    for option, after in zip(words, [*words[1:], ""]):
        if option in ("-c", "--config"):
            path = after
        elif option.startswith("--config="):
            path = option.partition("=")[2]
    text = _read_chosen(os.path.join(root, path.lstrip("/"))).decode("utf-8", "replace")
    return nohang_percent(text, total_bytes)


def _percent(text: str, unit_bytes: int, total_bytes: int) -> int | None:
    """A number in percent (`unit_bytes` is 0) or in units, as a share of MemTotal: 0 to 100, rounded up."""
    number, _, fraction = text.partition(".")
    if not (number + (fraction or "0")).isdecimal() or not number or len(number) > 15:
        return None
    whole = int(number) + (1 if fraction.strip("0") else 0)
    if not unit_bytes:
        return min(100, whole)
    return min(100, -(-whole * unit_bytes * 100 // total_bytes)) if total_bytes else None


def _read_chosen(path: str) -> bytes:
    """A file's beginning. Whoever runs in the guest may choose the path, so a pipe is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(descriptor, _LARGEST_FILE) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)
