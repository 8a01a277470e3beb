"""The directory of what outlives a controller: who is in charge here, and what the next one is told.

It lies in /run, so it is gone when the host restarts, and with it every VM. Wherever else it lies, what is
left there says in which boot it was written: its times are of that boot's clock, and its VMs have ended.

    StateError
    └── AlreadyRunning      another controller is in charge of this host
"""

import os
from pathlib import Path
from typing import IO, Final

import msgspec

from host_controller.control.remembered import Remembered, salvage
from host_controller.errors import DynmemError
from host_controller.host import exclusive
from host_controller.private import private_directory, replace_private

DIRECTORY_MODE: Final = 0o711
"""Two groups have sockets of theirs in it; nothing else in it is anybody's."""
LARGEST_STATE: Final = 1 << 24
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class StateError(DynmemError):
    """The state directory cannot be used."""


class AlreadyRunning(StateError):  # noqa: N818 # read as what happened
    """Two controllers on one host would grant the same memory twice."""


class StateDir:
    """The directory, held from `open` to `close`."""

    def __init__(self, path: Path, boot_id: Path = BOOT_ID) -> None:
        self.path = path
        self._boot_id = boot_id
        self.problem: str | None = None
        """Why nothing was found of the controller before, when there was something."""
        self._lock: IO[str] | None = None
        self._saved: Remembered | None = None

    @property
    def lock_file(self) -> Path:
        """Held while a controller works with this directory; says which."""
        return self.path / "dynmem.lock"

    def open(self, source: str = "") -> Remembered:
        """Take charge, and read what the controller before has left. What cannot be read is left out.

        source: where our configuration comes from; it is written into the lock for whoever asks.

        Raises:
            AlreadyRunning: with the process that holds the lock.
            StateError: the directory cannot be made or written.
        """
        try:
            private_directory(self.path, DIRECTORY_MODE)
            self._lock = exclusive.lock(self.lock_file, f"pid {os.getpid()}\n{source}\n")
        except exclusive.Held as held:
            raise AlreadyRunning(
                f"another controller is in charge of this host: {held} holds {self.lock_file}",
                hint="stop it first: systemctl stop dynmem, or end that process",
            ) from None
        except OSError as error:
            raise StateError(
                f"{self.lock_file}: {error.strerror}", hint="run as root, or name another --state-dir"
            ) from None
        self._saved = self._read()
        return self._saved

    def save(self, remembered: Remembered) -> None:
        """Leave this for the next controller; nothing is written when nothing has changed.

        Raises:
            OSError: the file could not be replaced; the old one is whole.
        """
        if remembered == self._saved:
            return
        told = {"boot": self._boot(), **msgspec.to_builtins(remembered)}
        replace_private(self.file, msgspec.json.format(msgspec.json.encode(told)) + b"\n")
        self._saved = remembered

    def close(self) -> None:
        """Let another take charge."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def file(self) -> Path:
        """What the next controller is left."""
        return self.path / "state.json"

    def _read(self) -> Remembered:
        try:
            with self.file.open("rb") as file:
                found = msgspec.json.decode(file.read(LARGEST_STATE))
        except FileNotFoundError:
            return Remembered()  # the first controller since the host started
        except (OSError, ValueError, msgspec.DecodeError, RecursionError) as error:  # ValueError: no UTF-8
            self.problem = f"{self.file}: {error}"
            return Remembered()
        boot = found.get("boot") if isinstance(found, dict) else None
        if boot and boot != self._boot():
            return Remembered()
        remembered, damaged = salvage(found)
        if damaged:
            self.problem = f"{self.file}: {damaged} damaged entries are left out"
        return remembered

    def _boot(self) -> str | None:
        """Of the kernel that runs; None where it does not say."""
        try:
            return self._boot_id.read_text().strip() or None
        except OSError:
            return None
