"""Hot add of one DIMM: name the zone, attach, wait until the guest has it online."""

from dataclasses import dataclass
from typing import ClassVar, Final

from agent import wire
from host_controller.core.interface import AttachDimm, Command
from host_controller.core.operations.operation import NAMING_LIMITS, NAMING_THE_ZONE, ONLINE_LIMIT, Steps
from host_controller.core.operations.stages import (
    ABANDONED_ROWS,
    STARTED_ANEW,
    UNANSWERED,
    Heard,
    Stage,
    Table,
    done,
    dropped,
    failed,
    go,
)
from host_controller.core.policy.dimm_plan import bearable_dimm, least_dimm
from host_controller.core.vm.record import Vm

_NO_ROOM: Final = dropped("the guest had no room for a DIMM any more")


@dataclass(slots=True)
class Plug(Steps):
    """A DIMM is paid for as soon as it is decided on, until it counts as RAM or cannot come any more."""

    TABLE: ClassVar[Table] = {
        **NAMING_THE_ZONE,
        **ABANDONED_ROWS,
        (Stage.NEW, Heard.READY): go(Stage.ATTACHING),
        (Stage.NEW, Heard.CROWDED): _NO_ROOM,
        (Stage.NAMED, Heard.READY): go(Stage.ATTACHING),
        (Stage.NAMED, Heard.CROWDED): _NO_ROOM,
        (Stage.ATTACHING, Heard.DIMM_CAME): go(Stage.COMING_ONLINE),
        (Stage.ATTACHING, Heard.CARRIED_OUT): go(Stage.COMING_ONLINE),
        (Stage.ATTACHING, Heard.TIMED_OUT): go(Stage.OVERDUE),
        (Stage.ATTACHING, Heard.RESTARTED): go(Stage.ABANDONED),
        (Stage.ATTACHING, Heard.REFUSED): failed("hot add was refused: "),
        (Stage.ATTACHING, Heard.OUTRUN): dropped("hot add was refused: "),
        (Stage.OVERDUE, Heard.DIMM_CAME): go(Stage.COMING_ONLINE),
        (Stage.OVERDUE, Heard.DIMMS_TOLD): failed("the hypervisor took too long, and plugged nothing"),
        (Stage.OVERDUE, Heard.RESTARTED): go(Stage.ABANDONED_LATE),
        (Stage.ABANDONED, Heard.DIMM_CAME): STARTED_ANEW,
        (Stage.COMING_ONLINE, Heard.ARRIVED): done("the guest uses the new DIMM"),
        (Stage.COMING_ONLINE, Heard.LATE): failed("the guest did not bring the new DIMM online"),
    }
    LIMITS: ClassVar = {**NAMING_LIMITS, Stage.COMING_ONLINE: ONLINE_LIMIT}

    zone: wire.Zone | None = "movable"
    size_bytes: int = 0
    _online_before: int = 0
    _total_before: int = 0

    def describe(self) -> str:
        """For people."""
        return f"hot add of a DIMM ({self.stage})"

    def dimms_changed(self, vm: Vm, added: bool) -> None:
        """The DIMM is there, and counts as RAM from now on. Or a command that was late has plugged none."""
        if added and self.stage in UNANSWERED:
            vm.plug.settle()
        Steps.dimms_changed(self, vm, added)

    def _look(self, vm: Vm, now: float, agent: bool) -> Heard | None:
        match self.stage:
            case Stage.NEW if not self._may_grow_unasked(vm, agent):
                return Heard.UNNAMED
            case Stage.NEW | Stage.NAMED:
                return Heard.READY if self._bearable(vm, now) else Heard.CROWDED
            case Stage.COMING_ONLINE if self._is_online(vm):
                return Heard.ARRIVED
        return None

    def _enter(self, vm: Vm, now: float) -> list[Command]:
        match self.stage:
            case Stage.NAMING | Stage.NAMING_AGAIN:
                return self._name_zone(vm)
            case Stage.ATTACHING:
                return self._attach(vm, now)
        return []

    def _end(self, vm: Vm) -> list[Command]:
        vm.plug.settle()
        return []

    def _bearable(self, vm: Vm, now: float) -> int:
        """The guest may have less free than when the DIMM was planned: 0 if too little for any."""
        if vm.guest.facts is None:
            return 0
        bearable = min(self.size_bytes, bearable_dimm(vm, now))
        return bearable if bearable >= least_dimm(vm) else 0

    def _attach(self, vm: Vm, now: float) -> list[Command]:
        assert vm.guest.facts is not None
        self.size_bytes = self._bearable(vm, now)
        self._online_before, self._total_before = vm.guest.facts.online_bytes, vm.guest.facts.total_bytes
        vm.plug.pay(self.size_bytes)
        self.ticket = self.tickets()
        return [AttachDimm(vm.config.uuid, self.ticket, self.size_bytes)]

    def _is_online(self, vm: Vm) -> bool:
        facts = vm.guest.facts
        if facts is None:
            return False
        if facts.from_agent:
            return facts.online_bytes >= self._online_before + self.size_bytes
        return facts.total_bytes >= self._total_before + self.size_bytes * 3 // 4
