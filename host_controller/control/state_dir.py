"""What must outlive a controller: who is in charge here, what was promised, what was paused and stopped.

It lies in /run, so it is gone when the host restarts, and with it every VM. Times are seconds of the
host's monotonic clock, which all controllers of one boot share.

    StateError
    └── AlreadyRunning      another controller is in charge of this host
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from host_controller.core.books.ledger import Reservation
from host_controller.core.model import LARGEST_MAXIMUM_BYTES
from host_controller.core.operations.standstill import Standstill, left_behind
from host_controller.core.vm.inheritance import InheritedBoot, InheritedPlug
from host_controller.errors import DynmemError
from host_controller.host import exclusive
from host_controller.private import private_directory, replace_private

DIRECTORY_MODE: Final = 0o711
"""Two groups have sockets of theirs in it; nothing else in it is anybody's."""
LARGEST_STATE: Final = 1 << 24


class StateError(DynmemError):
    """The state directory cannot be used."""


class AlreadyRunning(StateError):  # noqa: N818 # read as what happened
    """Two controllers on one host would grant the same memory twice."""


class Standing(msgspec.Struct, frozen=True):
    """A VM that the controller has stopped after a reset, and must let run."""

    uuid: str
    since: float
    until: float
    vcpu_seconds: float | None = None


class Remembered(msgspec.Struct, frozen=True):
    """What the next controller is told."""

    reservations: tuple[Reservation, ...] = ()
    paused: tuple[str, ...] = ()
    """UUIDs of VMs that the operator has paused."""
    paused_all: bool = False
    standing: tuple[Standing, ...] = ()
    plugs: dict[str, InheritedPlug] = {}
    """DIMMs that were asked for and have not been seen yet, by UUID."""
    sizes: dict[str, int] = {}
    """What virtio-mem devices may come to that were asked for another size, bytes, by UUID."""
    boots: dict[str, InheritedBoot] = {}
    """VMs that are due the rest of their startup, by UUID."""


class StateDir:
    """The directory, held from `open` to `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
        replace_private(self.file, msgspec.json.format(msgspec.json.encode(remembered)) + b"\n")
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
        remembered, damaged = salvage(found)
        if damaged:
            self.problem = f"{self.file}: {damaged} damaged entries are left out"
        return remembered


def salvage(found: object) -> tuple[Remembered, int]:
    """What of a state can be used, and how much of it cannot: each entry stands for itself."""
    table = found if isinstance(found, dict) else {}
    damaged = int(not isinstance(found, dict))

    def sound(name: str, kind: Any) -> list[Any]:
        nonlocal damaged
        listed = table.get(name, [])
        if not isinstance(listed, list):
            damaged += 1
            return []
        kept = []
        for one in listed:
            with suppress(msgspec.ValidationError):
                kept.append(msgspec.convert(one, kind))
        damaged += len(listed) - len(kept)
        return [one for one in kept if _possible(one)]

    def sound_by_uuid(name: str, kind: Any) -> dict[str, Any]:
        nonlocal damaged
        named = table.get(name, {})
        if not isinstance(named, dict):
            damaged += 1
            return {}
        kept = {}
        for uuid, one in named.items():
            with suppress(msgspec.ValidationError):
                kept[uuid] = msgspec.convert(one, kind)
        damaged += len(named) - len(kept)
        return {uuid: one for uuid, one in kept.items() if _possible(one)}

    paused_all = table.get("paused_all", False)
    damaged += not isinstance(paused_all, bool)
    return Remembered(
        tuple(sound("reservations", Reservation)),
        tuple(sound("paused", str)),
        paused_all is True,
        tuple(sound("standing", Standing)),
        sound_by_uuid("plugs", InheritedPlug),
        sound_by_uuid("sizes", int),
        sound_by_uuid("boots", InheritedBoot),
    ), damaged


def _possible(one: object) -> bool:
    size = one if isinstance(one, int) else getattr(one, "size_bytes", 0)
    return bool(0 <= size <= LARGEST_MAXIMUM_BYTES)


def remembered(
    reservations: Iterable[Reservation],
    paused: Iterable[str],
    paused_all: bool,
    standstills: Mapping[str, Standstill],
    plugs: Mapping[str, InheritedPlug],
    sizes: Mapping[str, int],
    boots: Mapping[str, InheritedBoot],
) -> Remembered:
    """The same facts in the same order give the same file."""
    return Remembered(
        tuple(sorted(reservations, key=lambda one: one.name)),
        tuple(sorted(paused)),
        paused_all,
        tuple(
            Standing(uuid, one.since, one.until, one.vcpu_seconds)
            for uuid, one in left_behind(standstills).items()
        ),
        dict(sorted(plugs.items())),
        dict(sorted(sizes.items())),
        dict(sorted(boots.items())),
    )
