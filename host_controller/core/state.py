"""All that the engine knows of one host."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from traceback import walk_tb
from typing import TypeVar, TypeVarTuple

from host_controller.core import interface as hv
from host_controller.core.books.awaited import Awaited
from host_controller.core.books.ledger import Ledger
from host_controller.core.model import Settings
from host_controller.core.operations import Operation
from host_controller.core.operations.standstill import Standstill
from host_controller.core.policy.emergency import Emergency
from host_controller.core.vm.inheritance import InheritedBoot, InheritedPlug
from host_controller.core.vm.record import Vm

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that an operator would want to have been told."""

    at: float
    kind: str
    vm: str | None
    """UUID, if it is about one VM: another may come to have its name."""
    name: str | None
    text: str


@dataclass(slots=True)
class State:
    """All that the engine knows."""

    settings: Settings
    ledger: Ledger
    vms: dict[str, Vm] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    connected: bool = True
    host: hv.HostSampled | None = None
    awaited: Awaited = field(default_factory=Awaited)
    notices: deque[Notice] = field(default_factory=lambda: deque(maxlen=10_000))
    dirty: set[str] = field(default_factory=set)
    emergency: Emergency = field(default_factory=Emergency)
    standstills: dict[str, Standstill] = field(default_factory=dict)
    """VMs that were reset while memory was short, by UUID, in the order of their resets."""
    inherited_standstills: dict[str, Standstill] = field(default_factory=dict)
    """What a controller before us had stopped, until it is seen again."""
    inherited_plugs: dict[str, InheritedPlug] = field(default_factory=dict)
    """DIMMs that it had asked for, likewise."""
    inherited_sizes: dict[str, int] = field(default_factory=dict)
    """What virtio-mem devices may come to by what it had asked for, bytes, likewise."""
    inherited_boots: dict[str, InheritedBoot] = field(default_factory=dict)
    """VMs that it had seen start and that are due the rest of their startup, likewise."""
    last_cause: str = "start"
    """The last event that can raise a charge without a command of ours: an overdraft's named cause."""
    unseen_seconds: float = 0.0
    """For so long before this step that event may have gone unseen."""
    _tickets: int = 0

    def ticket(self) -> int:
        """A number that no other command or request of this controller has."""
        self._tickets += 1
        return self._tickets

    def in_no_book(self) -> list[str]:
        """VMs that run and whose memory counts nowhere yet, by name."""
        if not self.awaited.names:
            return []
        managed = {vm.name for vm in self.vms.values()}
        unmanaged = {one.name for one in self.host.facts.unmanaged} if self.host else set()
        return self.awaited.left(managed, unmanaged, self.ledger.reservations)

    def why_nobody(self) -> str:
        """Why these books can admit nobody, for people; empty when they can."""
        return self.awaited.why_nobody(self.in_no_book())

    def apart(
        self,
        vm: Vm,
        now: float,
        step: Callable[[Vm, *Arguments], T],
        *arguments: *Arguments,
    ) -> T | None:
        """Take a step that concerns one VM: `step(vm, …)`. Every one is taken here, so that an error of ours
        about one VM harms no other: that VM is charged all of its RAM and left alone. Then None.
        """
        try:
            return step(vm, *arguments)
        except Exception as error:  # noqa: BLE001 # whatever it is
            self._isolate(vm, error, now)
            return None

    def each_apart(self, vms: Iterable[Vm], now: float, step: Callable[[Vm], object]) -> list[Vm]:
        """`apart` for many, in one loop: a call less for each. Returns those with which it failed."""
        failed = []
        for vm in vms:
            try:
                step(vm)
            except Exception as error:  # noqa: BLE001 # whatever it is
                self._isolate(vm, error, now)
                failed.append(vm)
        return failed

    def _isolate(self, vm: Vm, error: Exception, now: float) -> None:
        self.dirty.add(vm.config.uuid)
        if vm.pauses.fault is None:
            vm.pauses.fail(f"{type(error).__name__}: {error}{_place(error)}")
            text = f"{vm.name} is left alone after an internal error: {vm.pauses.fault}"
            self.notice(now, "fault", vm, text)

    def notice(self, now: float, kind: str, vm: Vm | None, text: str) -> None:
        """Tell operators something about a VM, or about the host: it goes into events, history and log."""
        self.notices.append(Notice(now, kind, vm.config.uuid if vm else None, vm.name if vm else None, text))


def _place(error: Exception) -> str:
    """Where it was raised, for whoever mends it: nothing else is kept of it."""
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f" ({frame.f_code.co_filename.rpartition('/')[2]}:{line})"
