"""Which process is a VM's QEMU: the one that libvirt itself names, and nobody else's word.

A process is a VM's when libvirt's pid file names it, its command line carries the VM's UUID, and it belongs
to the user as whom that libvirt runs the VM. While it lives nothing takes its place.
"""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from host_controller.host import libvirt_run, proc
from host_controller.host.command_lines import CommandLines
from host_controller.host.proc import PROC

SCAN_SECONDS: Final = 0.25
"""libvirt's directory is read at most this often."""

STRANGER_SECONDS: Final = 5.0
"""A QEMU that libvirt does not name is asked about again later: its pid file may come a moment after it."""


class Known(NamedTuple):
    """A process that was found to be a VM's."""

    pid: int
    started: str
    name: str
    """Of its VM."""


class Identity:
    """The QEMU processes of one libvirt by their VMs' UUIDs. Safe for use from several threads."""

    def __init__(self, uri: str, root: Path = PROC, directory: Path | None = None) -> None:
        """`directory` replaces the one in which that libvirt keeps its pid files."""
        self._uri = uri
        self._proc = root
        self._directory = directory
        self._known: dict[str, Known] = {}
        self._scanned_at = -SCAN_SECONDS
        self._strangers: dict[int, float] = {}
        """QEMUs that are not this libvirt's, and when that was found."""
        self._hung: list[libvirt_run.PidFile] | None = None
        """Named processes that do not let their command lines be read. None: not looked yet."""
        self._command_lines = CommandLines(root)
        self._lock = threading.Lock()

    def find(self, uuid: str, owner: int | None = None) -> int | None:
        """The process of a VM, or None. A recycled pid is not taken for it: its start time differs.

        owner: the user id as which libvirt says that it runs, where it says so.
        """
        with self._lock:
            known = self._known.get(uuid)
            if known is None or proc.started(known.pid, self._proc) != known.started:
                self._known.pop(uuid, None)
                self._scan()
                known = self._known.get(uuid)
            if known is None or (owner is not None and proc.owner(known.pid, self._proc) != owner):
                return None
            return known.pid

    def all(self, pids: Iterable[int]) -> dict[int, str]:
        """Which of these processes libvirt says are its VMs', with their UUIDs.

        One that was not found to be is asked about again after some seconds.
        """
        with self._lock:
            now = time.monotonic()
            wanted = set(pids)
            known = {one.pid for one in self._known.values()}
            self._strangers = {
                pid: at
                for pid, at in self._strangers.items()
                if pid in wanted and now - at < STRANGER_SECONDS
            }
            looked = bool(wanted - known - self._strangers.keys()) and self._scan()
            found = {one.pid: uuid for uuid, one in self._known.items() if one.pid in wanted}
            if looked:
                self._strangers.update(dict.fromkeys(wanted - found.keys() - self._strangers.keys(), now))
            return found

    def pids(self) -> frozenset[int]:
        """Of all VMs, as far as they are known."""
        with self._lock:
            return frozenset(one.pid for one in self._known.values())

    def running(self) -> dict[str, str | None] | None:
        """The UUID of every VM whose process libvirt names, by the VM's name; None of a process that hangs.

        Returns None where libvirt's directory could not be read yet.
        """
        with self._lock:
            self._scan()
            if self._hung is None:
                return None
            hung = (one.name for one in self._hung if proc.started(one.pid, self._proc) is not None)
            return {**dict.fromkeys(hung), **{one.name: uuid for uuid, one in self._known.items()}}

    def why_not(self, uuid: str) -> str:
        """Why a VM's process is not known, for people."""
        directory = self._where()
        if directory is None:
            return "the directory with libvirt's pid files was not found"
        try:
            if not any(True for _ in libvirt_run.pid_files(directory)):
                return f"{directory} has no pid files that only libvirt can have written"
        except OSError as error:
            return f"{directory}: {error.strerror}"
        return f"no pid file in {directory} names a process of this VM"

    def _where(self) -> Path | None:
        return self._directory or libvirt_run.pid_directory(self._uri)

    def _scan(self) -> bool:
        now = time.monotonic()
        if now - self._scanned_at < SCAN_SECONDS:
            return False
        self._scanned_at = now
        for uuid, known in list(self._known.items()):
            if proc.started(known.pid, self._proc) != known.started:
                del self._known[uuid]
        taken = {known.pid for known in self._known.values()}
        directory = self._where()
        try:
            files = [] if directory is None else list(libvirt_run.pid_files(directory))
        except OSError:
            return False  # descriptors have run out, or libvirt has gone: what is known stands
        files = [file for file in files if file.pid not in taken]
        command_lines = self._command_lines.read(file.pid for file in files)
        self._hung = [file for file in files if file.pid not in command_lines]
        for file in files:
            found = self._believed(file, command_lines.get(file.pid, []))
            if found is not None:
                self._known.setdefault(*found)
        return True

    def _believed(self, file: libvirt_run.PidFile, words: list[bytes]) -> tuple[str, Known] | None:
        uuid = proc.uuid_argument(words)
        began = proc.started(file.pid, self._proc)
        if uuid is None or began is None:
            return None
        if file.owner != 0 and proc.owner(file.pid, self._proc) != file.owner:
            return None  # a session's libvirt runs nothing as another user
        return uuid, Known(file.pid, began, file.name)
