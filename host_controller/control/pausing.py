"""Whom the operator has paused: all VMs of this host, or one by one, which is known wherever such a VM is."""

from collections.abc import Iterable
from typing import Final, Protocol, runtime_checkable

from host_controller.core.engine import Event
from host_controller.core.interface import VmAppeared, VmGone, VmStateChanged
from host_controller.core.model import RunState

MIGRATION: Final = "migration"
"""The job of a VM that leaves."""
AWAY: Final = "migrated away"
"""The reason of VmGone for one that another host has from then on."""


@runtime_checkable
class MarksHeld(Protocol):
    """A hypervisor whose VMs take along to other hosts that they are paused."""

    def came_held(self, uuid: str) -> bool:
        """Whether a VM that has appeared was paused where it came from."""

    def mark_held(self, uuid: str, on: bool) -> None:
        """It is paused, or not: wherever it is moved, that is known."""


class Pausing:
    """Who is paused. What it says of single VMs outlives their restarts, and is kept by who is moved.

    marks: whoever marks VMs; None: nothing goes along with them.
    """

    def __init__(self, marks: MarksHeld | None) -> None:
        self.paused: set[str] = set()
        """UUIDs of VMs that were paused one by one, running or not."""
        self.paused_all = False
        self._marks = marks
        self._arriving: set[str] = set()
        """They come paused, and do not run here yet: their migration may fail."""
        self._resumed: set[str] = set()
        """UUIDs of VMs that were resumed here: a mark that is left, as on one that was saved, is old."""

    def hold(self, uuid: str, on: bool) -> bool:
        """Pause one, or resume it. Returns whether that changes something for a VM that runs."""
        self._arriving.discard(uuid)
        (self.paused.add if on else self.paused.discard)(uuid)
        (self._resumed.discard if on else self._resumed.add)(uuid)
        self._mark(uuid, on)
        return on or not self.paused_all

    def hold_all(self, on: bool, running: Iterable[str]) -> list[str]:
        """Pause everybody, or end that. Returns those of the running ones for whom that changes something."""
        self.paused_all = on
        return [uuid for uuid in running if on or not self._held(uuid)]

    def hear(self, event: Event) -> str | None:
        """Take note of who comes and goes. Returns the UUID of one that appears and is to be held."""
        match event:
            case VmAppeared(vm):
                if self._marks is not None and self._marks.came_held(vm) and vm not in self._resumed:
                    (self.paused if event.state is RunState.RUNNING else self._arriving).add(vm)
                self._mark(vm, self._held(vm))
                if self.paused_all or self._held(vm):
                    return vm
            case VmStateChanged(vm, RunState.RUNNING) if vm in self._arriving:
                self._arriving.discard(vm)
                self.paused.add(vm)
            case VmGone(vm, reason):
                self._arriving.discard(vm)
                self._resumed.discard(vm)
                if reason == AWAY and self._marks is not None:
                    self.paused.discard(vm)  # it has gone along, and may end there
        return None

    def _held(self, uuid: str) -> bool:
        return uuid in self.paused or uuid in self._arriving

    def _mark(self, uuid: str, on: bool) -> None:
        if self._marks is not None:
            self._marks.mark_held(uuid, on)
