"""Taking one DIMM out."""

import math
from dataclasses import dataclass
from typing import Final

from agent import wire
from host_controller.core.interface import Command, DetachDimm, SendToGuest
from host_controller.core.operations.operation import RAISE_LIMIT, Steps
from host_controller.core.policy.plan import misses
from host_controller.core.vm.record import Vm

OFFLINE_LIMIT: Final = 30.0
"""Migrating pages away from a DIMM's blocks."""
DETACH_LIMIT: Final = 15.0
"""From asked to gone; a few seconds in a healthy guest (fact: unplug-may-be-refused)."""
PATIENCE: Final = 5.0
"""From the hypervisor's answer to a second request, if the DIMM is offline and so has nothing to wait for:
the guest took the first for the plug event, when that was still pending because it was reset on it."""
LATE_LIMIT: Final = 120.0
"""For an unplug that the hypervisor has not answered."""


@dataclass(slots=True)
class Unplug(Steps):
    """Take one DIMM out: give the balloon room first, have it offlined, detach it, wait until it is gone.

    QEMU keeps the ballooned amount across an unplug, so the guest shrinks by the whole DIMM (fact:
    unplug-shrinks-the-guest): `raise_to_bytes` is the target under which it can afford that, in QEMU's terms.
    """

    alias: str = ""
    raise_to_bytes: int | None = None
    _undo: wire.Online | None = None
    _answered: bool = False
    _late: bool = False
    _again_at: float = math.inf
    _asked_again: bool = False

    @property
    def unanswered(self) -> bool:
        """The DIMM may leave at any moment."""
        return self.stage == "detaching" and not self._answered

    def describe(self) -> str:
        """For people."""
        return f"unplug of {self.alias} ({self.stage})"

    def advance(self, vm: Vm, now: float, agent: bool) -> list[Command]:
        """The commands of the next step."""
        self._go_on(now)
        dimm = next((d for d in vm.dimms if d.alias == self.alias), None)
        if dimm is None:
            # Of two requests the first may have done it while the second is still to be answered.
            waits = self._asked_again and self.unanswered and now <= self.deadline
            return [] if waits else self._succeed("the DIMM is gone")
        if self.stage == "new":
            if self.raise_to_bytes is not None:
                self._go("deflating", now + RAISE_LIMIT)
                return [vm.send_target(self.tickets(), self.raise_to_bytes, now)]
            return self._detach(vm, now)
        if self.stage == "offlining" and misses(vm):
            # Once it is leaving nobody can help the guest.
            self._turn_back("the guest has come to need the DIMM")
        if self.stage == "deflating":
            assert self.raise_to_bytes is not None
            if vm.resend:
                return self._fail("the balloon's target was not confirmed")
            if vm.actual_bytes >= self.raise_to_bytes and not vm.sent:
                return self._offline(vm, dimm.base_bytes, dimm.size_bytes, now, agent)
            if now > self.deadline:
                return self._fail("the balloon did not make room for the DIMM to leave")
        if self.stage == "offlined":
            return self._detach(vm, now)
        if self.stage == "offlining" and now > self.deadline:
            self._turn_back("the guest did not offline the DIMM in time")
        if self.stage == "detaching" and now > self.deadline:
            self._turn_back("the DIMM did not leave in time")
        if self._unheard(now) and vm.offline_bytes >= dimm.size_bytes:
            self._asked_again = True
            return self._detach(vm, now)
        return self._undone(vm) if self.stage == "turning back" else []

    def acknowledged(self, vm: Vm, ack: wire.Ack) -> None:
        """The agent has done what it could."""
        if self.stage != "offlining" or ack.request_id != self.request:
            return
        if ack.ok:
            self.stage = "offlined"
        else:
            self._turn_back(f"the guest needs the DIMM: {ack.detail}")

    def done(self, vm: Vm, ticket: int, error: str | None, timed_out: bool, now: float) -> None:
        """The hypervisor answered."""
        if ticket != self.ticket or self.stage != "detaching":
            return
        if timed_out:
            # It may leave at any time from now on: no target may be sent before that is known.
            self.deadline, self._late = now + LATE_LIMIT, True
            return
        self._answered = True
        if self.obsolete:
            self.give_up("the guest started anew")
        elif error is None:
            self._again_at = now + PATIENCE
        elif vm.job:
            self.stage = "offlined"  # asked again once the job is over
        else:
            self._turn_back(f"unplug was refused: {error}")

    def dimms_changed(self, vm: Vm, added: bool) -> None:
        """The DIMMs are seen in `advance`; that they are told is how a request that was late is answered."""
        self._answered = self._answered or self._late

    def refused(self, alias: str, now: float) -> None:
        """The guest's kernel would not give it back."""
        if alias == self.alias and self.stage == "detaching" and self._answered:
            self._turn_back("the guest's kernel did not give the DIMM back")

    def _offline(
        self, vm: Vm, base_bytes: int | None, size_bytes: int, now: float, agent: bool
    ) -> list[Command]:
        if not agent or base_bytes is None:
            # The kernel offlines a movable DIMM by itself when it is asked to eject it.
            return self._detach(vm, now)
        self.request = self.tickets()
        self._undo = wire.Online(self.tickets(), base_bytes, size_bytes, "movable")
        self._go("offlining", now + OFFLINE_LIMIT)
        return [SendToGuest(vm.config.uuid, wire.Offline(self.request, base_bytes, size_bytes))]

    def _detach(self, vm: Vm, now: float) -> list[Command]:
        self.ticket, self._answered, self._late = self.tickets(), False, False
        self._again_at = math.inf
        self._go("detaching", now + DETACH_LIMIT)
        return [DetachDimm(vm.config.uuid, self.ticket, self.alias)]

    def _unheard(self, now: float) -> bool:
        """The hypervisor passed the first request on, and the guest has had time enough for it."""
        return self.stage == "detaching" and not self._asked_again and now > self._again_at

    def _turn_back(self, note: str) -> None:
        self.stage, self.note = "turning back", note

    def _undone(self, vm: Vm) -> list[Command]:
        """Fail, and bring half-offlined blocks back online."""
        self._fail(self.note)
        message, self._undo = self._undo, None
        return [SendToGuest(vm.config.uuid, message)] if message is not None else []
