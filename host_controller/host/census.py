"""Every QEMU on the host, whoever runs it, and what it holds of ordinary memory."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from host_controller.host import proc
from host_controller.host.command_lines import CommandLines
from host_controller.host.proc import PROC

NAMES: Final = ("qemu-system-", "qemu:")
"""How the names of QEMU processes begin: upstream's, and libvirt's where it names them after the VM."""
WHOLE_NAMES: Final = ("kvm", "qemu-kvm", "qemu")
"""Proxmox and Debian's link, Red Hat's, and others'."""
YOUNG_SECONDS: Final = 10.0
"""A process may still become QEMU (exec) for so long."""
REFRESH_SECONDS: Final = 30.0


class Qemu(NamedTuple):
    """One QEMU process, or one that says that it runs a VM."""

    pid: int
    uuid: str | None
    """As its command line says, which anybody can write."""
    held_bytes: int
    """Resident without files' pages: what it keeps from others."""
    called_so: bool = True
    """It has a name that QEMUs have. An <emulator> may have any: then only libvirt knows that it is one."""


@dataclass(slots=True)
class _Seen:
    started: str
    first_at: float
    called_so: bool = False
    uuid: str | None = None
    asks: bool = False
    """Its command line is to be read."""
    file_bytes: int = 0
    file_at: float = float("-inf")

    @property
    def may_be_one(self) -> bool:
        """By its name, or by the argument that libvirt gives each of its own."""
        return self.called_so or self.uuid is not None


class Census:
    """Finds them again at each look: 20 µs for a process that is known, 40 for a new one."""

    def __init__(self, root: Path = PROC) -> None:
        self._proc = root
        self._command_lines = CommandLines(root)
        self._seen: dict[int, _Seen] = {}
        self._refreshed_at = float("-inf")

    def look(self, now: float) -> list[Qemu]:
        """All that live now and may be QEMUs. Empty when /proc cannot be listed."""
        try:
            pids = {int(name) for name in os.listdir(self._proc) if name.isdecimal()}
        except OSError:
            return []
        for pid in self._seen.keys() - pids:
            del self._seen[pid]
        everything = now - self._refreshed_at >= REFRESH_SECONDS
        if everything:
            self._refreshed_at = now
        unnamed = []
        for pid in pids:
            seen = self._seen.get(pid)
            if seen is None or everything or seen.may_be_one or now - seen.first_at < YOUNG_SECONDS:
                seen = self._meet(pid, seen, now)
                if seen is not None and seen.asks:
                    unnamed.append(pid)
        for pid, words in self._command_lines.read(unnamed).items():
            self._seen[pid].uuid, self._seen[pid].asks = proc.uuid_argument(words), False
        found = []
        for pid in pids:
            seen = self._seen.get(pid)
            if seen is not None and seen.may_be_one:
                held = self._held(pid, seen, now)
                if held:
                    found.append(Qemu(pid, seen.uuid, held, seen.called_so))
        return found

    def _meet(self, pid: int, seen: _Seen | None, now: float) -> _Seen | None:
        began = proc.started(pid, self._proc)
        if began is None:
            self._seen.pop(pid, None)
            return None
        if seen is None or seen.started != began:
            seen = self._seen[pid] = _Seen(began, now)
        if not seen.called_so:
            seen.called_so = is_qemu(proc.name(pid, self._proc))
            seen.asks = seen.uuid is None
        return seen

    def _held(self, pid: int, seen: _Seen, now: float) -> int:
        if now - seen.file_at >= REFRESH_SECONDS:
            seen.file_bytes, seen.file_at = proc.file_bytes(pid, self._proc), now
        try:
            return max(0, proc.resident_bytes(pid, self._proc) - seen.file_bytes)
        except (OSError, IndexError, ValueError):
            return 0


def is_qemu(name: str) -> bool:
    """Whether a process of this name is a QEMU that runs a VM."""
    name = name.removeprefix(".")  # NixOS wraps programs, and hides the real ones so
    return name.startswith(NAMES) or name in WHOLE_NAMES
