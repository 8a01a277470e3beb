"""What all that takes several steps has in common: a stage with a limit, an outcome with a sentence."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent import wire
from host_controller.core.interface import Command, SendToGuest
from host_controller.core.vm.record import Vm

ACK_LIMIT: Final = 3.0
"""Seconds for a running agent to answer a message, a busy TCG guest included."""
ONLINE_LIMIT: Final = 20.0
"""From plugged to usable; 0.2 s in a healthy guest (fact: hot-add-times)."""
RAISE_LIMIT: Final = 10.0
"""Deflating the balloon before memory leaves the guest."""

_HARMLESS: Final = ("new", "naming the zone", "zone named", "deflating")
"""Stages in which neither guest nor hypervisor has been changed, but for a zone or a raised target."""

Tickets = Callable[[], int]


class Outcome(StrEnum):
    """How far an operation is."""

    UNDER_WAY = "under way"
    DONE = "done"
    FAILED = "failed"
    DROPPED = "dropped"
    """Given up before anything was changed; nobody is to blame, and it may be tried again at once."""


@dataclass(slots=True)
class Steps:
    """The part of an operation that does not depend on what it does."""

    tickets: Tickets
    zone: wire.Zone | None = None
    """Where new memory goes; None when memory leaves."""
    stage: str = "new"
    deadline: float = 0.0
    outcome: Outcome = Outcome.UNDER_WAY
    note: str = ""
    ticket: int = -1
    request: int = -1
    obsolete: bool = False
    """The guest has started anew meanwhile: it ends as soon as the hypervisor has answered."""
    _held_since: float | None = None

    @property
    def about_to_grow(self) -> bool:
        """It is paid for, and the next command lets the guest have more."""
        return self.stage == "zone named"

    @property
    def unanswered(self) -> bool:
        """The hypervisor has a command of it that would clash with a balloon target, and has not answered."""
        return False

    def acknowledged(self, vm: Vm, ack: wire.Ack) -> None:
        """The agent answered: new memory goes into the zone that was named, or it could not arrange that."""
        if self.stage != "naming the zone" or ack.request_id != self.request:
            return
        if ack.ok:
            self.stage, vm.zone = "zone named", self.zone
        else:
            self._fail(f"the agent could not set the zone: {ack.detail}")

    def give_up(self, note: str) -> None:
        """Nothing is to follow: nothing has been changed yet, or the guest has started anew."""
        self._drop(note)

    def hold(self, now: float) -> None:
        """The VM may not be touched: what has changed nothing yet is given up, the rest waits."""
        if self.stage in _HARMLESS:
            self._drop("it was given up: the VM must not be touched now")
        elif self._held_since is None:
            self._held_since = now

    def _may_grow_unasked(self, vm: Vm, agent: bool) -> bool:
        """No agent could be asked, or it keeps to the zone that it has confirmed since it started.

        A guest that stalls is asked all the same: while it answers it takes what came a moment ago, and
        that shows how much more it can bear.
        """
        return not agent or (vm.zone == self.zone and not vm.demand.stalls)

    def _name_zone(self, vm: Vm, now: float) -> list[Command]:
        """Tell the agent where new memory goes."""
        assert self.zone is not None
        vm.zone = None  # until it has answered, which nobody may come to hear
        self.request = self.tickets()
        self._go("naming the zone", now + ACK_LIMIT)
        return [SendToGuest(vm.config.uuid, wire.OnlineZone(self.request, self.zone))]

    def _go_on(self, now: float) -> None:
        """The time in which it was held does not count."""
        if self._held_since is not None:
            self.deadline += now - self._held_since
            self._held_since = None

    def _go(self, stage: str, deadline: float) -> None:
        self.stage, self.deadline = stage, deadline

    def _drop(self, note: str) -> list[Command]:
        self.outcome, self.note = Outcome.DROPPED, note
        return []

    def _fail(self, note: str) -> list[Command]:
        self.outcome, self.note = Outcome.FAILED, note
        return []

    def _succeed(self, note: str) -> list[Command]:
        self.outcome, self.note = Outcome.DONE, note
        return []
