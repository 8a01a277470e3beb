"""Taking one DIMM out: give the balloon room, have the DIMM offlined, detach it, wait until it is gone."""

from dataclasses import dataclass
from typing import ClassVar, Final

from agent import wire
from host_controller.core.interface import Command, DetachDimm, SendToGuest
from host_controller.core.model import Dimm
from host_controller.core.operations.operation import RAISE_LIMIT, Steps
from host_controller.core.operations.stages import (
    ABANDONED_ROWS,
    STARTED_ANEW,
    Heard,
    Outcome,
    Stage,
    Table,
    done,
    dropped,
    failed,
    go,
)
from host_controller.core.policy.spare import runs_short
from host_controller.core.vm.record import Vm

OFFLINE_LIMIT: Final = 30.0
"""Seconds to migrate the pages away from a DIMM's blocks."""
DETACH_LIMIT: Final = 15.0
"""Seconds from asked to gone; a few in a healthy guest (fact: unplug-may-be-refused)."""
PATIENCE: Final = 5.0
"""Seconds from the hypervisor's answer to a second request, if the DIMM is offline and so has nothing to
wait for: the guest took the first for the plug event, when that was still pending because it was reset on
it (fact: plug-event-pending)."""
LATE_LIMIT: Final = 120.0
"""Seconds for an unplug that the hypervisor has not answered."""

_COME_TO_NEED: Final = go(Stage.TURNING_BACK, "the guest has come to need the DIMM")
_STAYS: Final = go(Stage.TURNING_BACK, "the guest's kernel did not give the DIMM back")
_TOO_LATE: Final = go(Stage.TURNING_BACK, "the DIMM did not leave in time")
_REFUSED: Final = go(Stage.TURNING_BACK, "unplug was refused: ")

_WAYS: Final = (
    Stage.NEW, Stage.DEFLATING, Stage.OFFLINING, Stage.OFFLINED, Stage.DETACHING, Stage.DETACHING_AGAIN,
    Stage.OVERDUE, Stage.ABANDONED, Stage.ABANDONED_LATE, Stage.LEAVING, Stage.LAST_WAIT, Stage.TURNING_BACK,
)  # fmt: skip


@dataclass(slots=True)
class Unplug(Steps):
    """QEMU keeps the ballooned amount across an unplug, so the guest shrinks by the whole DIMM (fact:
    unplug-shrinks-the-guest): `raise_to_bytes` is the target under which it can afford that.
    """

    TABLE: ClassVar[Table] = {
        **ABANDONED_ROWS,
        (Stage.NEW, Heard.CRAMPED): go(Stage.DEFLATING),
        (Stage.NEW, Heard.READY): go(Stage.DETACHING),
        (Stage.DEFLATING, Heard.READY): go(Stage.OFFLINING),
        (Stage.DEFLATING, Heard.UNAIDED): go(Stage.DETACHING),
        (Stage.DEFLATING, Heard.NEEDED): dropped("the guest needs the DIMM after all"),
        (Stage.DEFLATING, Heard.UNCONFIRMED): failed("the balloon's target was not confirmed"),
        (Stage.DEFLATING, Heard.LATE): failed("the balloon did not make room for the DIMM to leave"),
        (Stage.OFFLINING, Heard.CONFIRMED): go(Stage.OFFLINED),
        (Stage.OFFLINING, Heard.DECLINED): go(Stage.TURNING_BACK, "the guest needs the DIMM: "),
        # Once it is leaving nobody can help the guest.
        (Stage.OFFLINING, Heard.NEEDED): _COME_TO_NEED,
        (Stage.OFFLINED, Heard.NEEDED): _COME_TO_NEED,
        (Stage.OFFLINING, Heard.LATE): go(Stage.TURNING_BACK, "the guest did not offline the DIMM in time"),
        (Stage.OFFLINED, Heard.READY): go(Stage.DETACHING),
        (Stage.DETACHING, Heard.CARRIED_OUT): go(Stage.LEAVING),
        (Stage.DETACHING, Heard.REFUSED): _REFUSED,
        (Stage.DETACHING, Heard.OUTRUN): go(Stage.OFFLINED),  # asked again once the job is over
        (Stage.DETACHING, Heard.TIMED_OUT): go(Stage.OVERDUE),
        (Stage.DETACHING, Heard.RESTARTED): go(Stage.ABANDONED),
        (Stage.DETACHING, Heard.LATE): _TOO_LATE,
        (Stage.LEAVING, Heard.UNHEARD): go(Stage.DETACHING_AGAIN),
        (Stage.LEAVING, Heard.DIMM_STAYS): _STAYS,
        (Stage.LEAVING, Heard.LATE): _TOO_LATE,
        (Stage.DETACHING_AGAIN, Heard.CARRIED_OUT): go(Stage.LAST_WAIT),
        (Stage.DETACHING_AGAIN, Heard.REFUSED): _REFUSED,
        (Stage.DETACHING_AGAIN, Heard.OUTRUN): go(Stage.OFFLINED),
        (Stage.DETACHING_AGAIN, Heard.TIMED_OUT): go(Stage.OVERDUE),
        (Stage.DETACHING_AGAIN, Heard.RESTARTED): go(Stage.ABANDONED),
        (Stage.DETACHING_AGAIN, Heard.LATE): _TOO_LATE,
        (Stage.OVERDUE, Heard.DIMM_CAME): go(Stage.LAST_WAIT),
        (Stage.OVERDUE, Heard.DIMMS_TOLD): go(Stage.LAST_WAIT),
        (Stage.OVERDUE, Heard.RESTARTED): go(Stage.ABANDONED_LATE),
        (Stage.OVERDUE, Heard.LATE): _TOO_LATE,
        (Stage.LAST_WAIT, Heard.DIMM_STAYS): _STAYS,
        (Stage.LAST_WAIT, Heard.LATE): _TOO_LATE,
        (Stage.ABANDONED, Heard.LATE): STARTED_ANEW,
        (Stage.ABANDONED_LATE, Heard.LATE): STARTED_ANEW,
        (Stage.TURNING_BACK, Heard.READY): failed(),
        **{(stage, Heard.GONE): done("the DIMM is gone") for stage in _WAYS},
    }
    LIMITS: ClassVar = {
        Stage.DEFLATING: RAISE_LIMIT,
        Stage.OFFLINING: OFFLINE_LIMIT,
        Stage.DETACHING: DETACH_LIMIT,
        Stage.DETACHING_AGAIN: DETACH_LIMIT,
        Stage.OVERDUE: LATE_LIMIT,
        Stage.ABANDONED_LATE: LATE_LIMIT,
    }

    _undo: wire.Online | None = None

    def describe(self) -> str:
        """For people."""
        return f"unplug of {self.alias} ({self.stage})"

    def _look(self, vm: Vm, now: float, agent: bool) -> Heard | None:
        dimm = self._dimm(vm)
        if dimm is None:
            return self._gone(now)
        may_stay = (self.stage, Heard.NEEDED) in self.TABLE
        if may_stay and self._is_too_little(vm, vm.entitled_bytes - dimm.size_bytes):
            return Heard.NEEDED
        match self.stage:
            case Stage.NEW:
                return Heard.READY if self.raise_to_bytes is None else Heard.CRAMPED
            case Stage.DEFLATING:
                found = self._raised(vm)
                unaided = not agent or dimm.base_bytes is None
                return Heard.UNAIDED if found is Heard.READY and unaided else found
            case Stage.OFFLINING if runs_short(vm):
                return Heard.NEEDED
            case Stage.OFFLINED | Stage.TURNING_BACK:
                return Heard.READY
            case Stage.LEAVING if now > self._answered_at + PATIENCE and not self._is_late(now):
                return Heard.UNHEARD if vm.offline_bytes >= dimm.size_bytes else None
        return None

    def _gone(self, now: float) -> Heard | None:
        """One request, perhaps of a controller before us, may have done it before another is answered."""
        answer_due = self.stage in (Stage.DETACHING, Stage.DETACHING_AGAIN, Stage.OVERDUE)
        return None if answer_due and not self._is_late(now) else Heard.GONE

    def _enter(self, vm: Vm, now: float) -> list[Command]:
        match self.stage:
            case Stage.DEFLATING:
                return self._raise(vm, now)
            case Stage.OFFLINING:
                return self._offline(vm)
            case Stage.DETACHING | Stage.DETACHING_AGAIN:
                self.ticket = self.tickets()
                return [DetachDimm(vm.config.uuid, self.ticket, self.alias)]
        return []

    def _end(self, vm: Vm) -> list[Command]:
        """Blocks that are offline, or on the way to it, come back online."""
        if self.outcome is not Outcome.FAILED or self._undo is None:
            return []
        return [SendToGuest(vm.config.uuid, self._undo)]

    def _dimm(self, vm: Vm) -> Dimm | None:
        return next((dimm for dimm in vm.dimms.plugged if dimm.alias == self.alias), None)

    def _offline(self, vm: Vm) -> list[Command]:
        dimm = self._dimm(vm)
        assert dimm is not None
        assert dimm.base_bytes is not None
        self.request = self.tickets()
        self._undo = wire.Online(self.tickets(), dimm.base_bytes, dimm.size_bytes, "movable")
        message = wire.Offline(self.request, dimm.base_bytes, dimm.size_bytes)
        return [SendToGuest(vm.config.uuid, message)]
