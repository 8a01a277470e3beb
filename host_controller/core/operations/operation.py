"""How every operation runs over its table. What one of them looks for and does is in its own file."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from agent import wire
from host_controller.core.interface import Command, SendToGuest
from host_controller.core.operations.stages import (
    HARMLESS,
    STARTED_ANEW,
    Heard,
    Outcome,
    Stage,
    Table,
    failed,
    go,
)
from host_controller.core.vm.record import Vm

ASK_AGAIN: Final = 0.5
"""Seconds for an agent to answer; 0.04 in a busy guest (fact: an-answer-may-not-come)."""
ACK_LIMIT: Final = 1.0
"""Seconds from the second message on: what a guest that allocates cannot wait for is of no use to it."""
ONLINE_LIMIT: Final = 20.0
"""Seconds from plugged to usable; 0.2 in a healthy guest (fact: hot-add-times)."""
RAISE_LIMIT: Final = 10.0
"""Seconds to deflate the balloon before memory leaves the guest."""

_DECLINED: Final = failed("the agent could not set the zone: ")

NAMING_THE_ZONE: Final[Table] = {
    (Stage.NEW, Heard.UNNAMED): go(Stage.NAMING),
    (Stage.NAMING, Heard.CONFIRMED): go(Stage.NAMED),
    (Stage.NAMING, Heard.DECLINED): _DECLINED,
    (Stage.NAMING, Heard.LATE): go(Stage.NAMING_AGAIN),
    (Stage.NAMING_AGAIN, Heard.CONFIRMED): go(Stage.NAMED),
    (Stage.NAMING_AGAIN, Heard.DECLINED): _DECLINED,
    (Stage.NAMING_AGAIN, Heard.LATE): go(Stage.NAMED, "the agent did not confirm the zone of new memory"),
}
"""How all that grows begins. A guest whose agent is slow grows as one without an agent does: memory in the
wrong zone may stay for good, and no memory ends programs.
"""
NAMING_LIMITS: Final = {Stage.NAMING: ASK_AGAIN, Stage.NAMING_AGAIN: ACK_LIMIT}

Tickets = Callable[[], int]


class ImpossibleStepError(Exception):
    """An operation found what its table has no row for: an error of ours, which isolates the VM."""


@dataclass(slots=True)
class Steps(ABC):
    """An operation under way: its stage, its limits, and what it waits for."""

    TABLE: ClassVar[Table]
    LIMITS: ClassVar[Mapping[Stage, float]]
    """Seconds, for each stage with a time of its own. Any other goes on with the time of the one before."""

    tickets: Tickets
    zone: wire.Zone | None = None
    """Where new memory goes; None when memory leaves."""
    alias: str = ""
    """The DIMM that is to leave."""
    raise_to_bytes: int | None = None
    """The balloon's target under which the guest can do without what leaves, in QEMU's terms; None: now."""
    kept_bytes: int = 0
    """What stayed of a device that was to leave, where that is what the guest's kernel keeps; else 0."""
    stage: Stage = Stage.NEW
    outcome: Outcome = Outcome.UNDER_WAY
    note: str = ""
    """Why it took this way, for people."""
    ticket: int = -1
    """Of its last command to the hypervisor."""
    request: int = -1
    """Of its last message to the agent."""
    _minimum_bytes: int = 0
    """The VM's when this was begun."""
    _deadline: float | None = math.inf
    """None: the time begins with the next look."""
    _limit: float = math.inf
    """Of the last stage that had a time of its own."""
    _frozen_since: float | None = None
    _answered_at: float = math.inf

    @property
    def about_to_grow(self) -> bool:
        """It is paid for, and the next command lets the guest have more."""
        return self.stage is Stage.NAMED

    @abstractmethod
    def describe(self) -> str:
        """For people."""

    @abstractmethod
    def _look(self, vm: Vm, now: float, agent: bool) -> Heard | None:
        """What is to be seen of the VM that matters at this stage, if anything."""

    @abstractmethod
    def _enter(self, vm: Vm, now: float) -> list[Command]:
        """The command with which the stage begins, if any. Only a look leads to a stage that has one."""

    # --- what it hears ---

    def acknowledged(self, vm: Vm, ack: wire.Ack) -> None:
        """The agent answered a request."""
        if ack.request_id != self.request:
            return
        if self.stage in NAMING_LIMITS and ack.ok and self.zone is not None:
            vm.guest.confirm_zone(self.zone)
        self._hear(vm, Heard.CONFIRMED if ack.ok else Heard.DECLINED, ack.detail)

    def done(self, vm: Vm, ticket: int, error: str | None, timed_out: bool, now: float) -> None:
        """The hypervisor answered a command, or is late with it."""
        if ticket != self.ticket:
            return
        self._answered_at = now
        if error is None:
            self._hear(vm, Heard.CARRIED_OUT)
        elif timed_out and (self.stage, Heard.TIMED_OUT) in self.TABLE:
            self._hear(vm, Heard.TIMED_OUT)
        else:
            # A job that began a moment before the command is nobody's fault.
            self._hear(vm, Heard.OUTRUN if vm.pauses.job else Heard.REFUSED, error)

    def dimms_changed(self, vm: Vm, added: bool) -> None:
        """The hypervisor told the VM's DIMMs: they changed, or a command that was late has ended."""
        self._hear(vm, Heard.DIMM_CAME if added else Heard.DIMMS_TOLD)

    def refused(self, vm: Vm, alias: str) -> None:
        """The guest's kernel would not give a DIMM back."""
        if alias == self.alias:
            self._hear(vm, Heard.DIMM_STAYS)

    def restarted(self, vm: Vm) -> None:
        """The guest started anew. A DIMM that may still come or leave is waited for, all else is over."""
        if (self.stage, Heard.RESTARTED) in self.TABLE:
            self._hear(vm, Heard.RESTARTED)
        elif self.outcome is Outcome.UNDER_WAY:
            self.give_up(STARTED_ANEW.note)

    def give_up(self, note: str) -> None:
        """Nothing is to follow, and nobody is to blame."""
        self.outcome, self.note = Outcome.DROPPED, note

    def leave(self) -> None:
        """Nothing new is to be begun with the VM: what has changed nothing yet is given up, the rest goes on
        to its end, since half an operation helps nobody.
        """
        if self.stage in HARMLESS:
            self.give_up("it was given up: the VM is left alone")

    def hold(self, now: float) -> None:
        """The VM may not be touched: what has changed nothing yet is given up, the rest waits."""
        if self.stage in HARMLESS:
            self.give_up("it was given up: the VM must not be touched now")
        elif self._frozen_since is None:
            self._frozen_since = now

    # --- what it does ---

    def advance(self, vm: Vm, now: float, agent: bool, *, may_grow: bool = True) -> list[Command]:
        """The commands of the next step. `agent`: the guest has one that lately reported. may_grow: what was
        paid for is still there (rule: within-capacity).
        """
        if self._frozen_since is not None:
            if self._deadline is not None:
                self._deadline += now - self._frozen_since
            self._frozen_since = None
        if self.stage is Stage.NEW:
            self._minimum_bytes = vm.config.limits.minimum_bytes
        commands: list[Command] = []
        self._start_clock(now)
        while not commands and (seen := self._seen(vm, now, agent, may_grow)) is not None:
            if (self.stage, seen) not in self.TABLE:
                raise ImpossibleStepError(f"{self.describe()}: {seen}")
            self._move(seen)
            commands = self._end(vm) if self.outcome is not Outcome.UNDER_WAY else self._enter(vm, now)
            self._start_clock(now)
        return commands

    def _seen(self, vm: Vm, now: float, agent: bool, may_grow: bool) -> Heard | None:
        if self.outcome is not Outcome.UNDER_WAY or (self.about_to_grow and not may_grow):
            return None
        seen = self._look(vm, now, agent)
        if seen is None and self._is_late(now) and (self.stage, Heard.LATE) in self.TABLE:
            return Heard.LATE
        return seen

    def _hear(self, vm: Vm, heard: Heard, detail: str = "") -> None:
        """Others say what they like, when they like: what no row waits for is nothing to this operation."""
        if self.outcome is not Outcome.UNDER_WAY or (self.stage, heard) not in self.TABLE:
            return
        self._move(heard, detail)
        if self.outcome is not Outcome.UNDER_WAY and self._end(vm):
            raise ImpossibleStepError(f"{self.describe()}: a command that no look gave")

    def _move(self, heard: Heard, detail: str = "") -> None:
        to, note = self.TABLE[self.stage, heard]
        if note:
            self.note = note + detail if note.endswith(": ") else note
        if isinstance(to, Outcome):
            self.outcome = to
            return
        self.stage = to
        if (limit := self.LIMITS.get(to)) is not None:
            self._limit, self._deadline = limit, None

    def _end(self, vm: Vm) -> list[Command]:
        """Give back what was paid for and not used; the command that undoes what was begun, if any."""
        return []

    def _start_clock(self, now: float) -> None:
        if self._deadline is None:
            self._deadline = now + self._limit

    def _is_late(self, now: float) -> bool:
        return self._deadline is not None and now > self._deadline

    # --- what all that takes memory away shares ---

    def _raise(self, vm: Vm, now: float) -> list[Command]:
        """Have the balloon give the guest what it is about to lose elsewhere."""
        assert self.raise_to_bytes is not None
        return [vm.send_target(self.tickets(), self.raise_to_bytes, now)]

    def _raised(self, vm: Vm) -> Heard | None:
        """Whether it has. Before the hypervisor has answered an older target may still be in force."""
        assert self.raise_to_bytes is not None
        if vm.balloon.resend:
            return Heard.UNCONFIRMED
        waits = vm.balloon.sent or vm.balloon.actual_bytes < self.raise_to_bytes
        return None if waits else Heard.READY

    def _is_too_little(self, vm: Vm, left_bytes: int) -> bool:
        """What would be left is below its minimum, which was raised since this was begun."""
        minimum = vm.config.limits.minimum_bytes
        return self._minimum_bytes < minimum and left_bytes < minimum

    # --- what all that grows shares ---

    def _may_grow_unasked(self, vm: Vm, agent: bool) -> bool:
        """No agent could be asked, or it keeps to the zone that it has confirmed since it started.

        A guest that stalls is asked all the same: while it answers it takes what came a moment ago, and
        that shows how much more it can bear (fact: naming-the-zone-shows-stalls).
        """
        return not agent or (vm.guest.zone == self.zone and not vm.guest.demand.stalls)

    def _name_zone(self, vm: Vm) -> list[Command]:
        """Tell the agent where new memory goes; again in the same words, so that either answer will do."""
        assert self.zone is not None
        vm.guest.forget_zone()  # until it has answered, which nobody may come to hear
        if self.stage is Stage.NAMING:
            self.request = self.tickets()
        return [SendToGuest(vm.config.uuid, wire.OnlineZone(self.request, self.zone))]
