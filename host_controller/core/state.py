"""All that the engine knows of one host."""

from collections import deque
from dataclasses import dataclass, field

from host_controller.core import interface as hv
from host_controller.core.books.ledger import Ledger
from host_controller.core.model import Settings
from host_controller.core.operations import Operation
from host_controller.core.operations.standstill import Standstill
from host_controller.core.policy.emergency import Emergency
from host_controller.core.vm.record import LeftPlug, Vm


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that an operator would want to have been told."""

    at: float
    kind: str
    vm: str | None
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
    notices: deque[Notice] = field(default_factory=lambda: deque(maxlen=10_000))
    dirty: set[str] = field(default_factory=set)
    emergency: Emergency = field(default_factory=Emergency)
    standstills: dict[str, Standstill] = field(default_factory=dict)
    """VMs that were reset while memory was short, by UUID, in the order of their resets."""
    left_standing: dict[str, Standstill] = field(default_factory=dict)
    """What a controller before us had stopped, until it is seen again."""
    left_plugs: dict[str, LeftPlug] = field(default_factory=dict)
    """DIMMs that it had asked for, likewise."""
    last_cause: str = "start"
    """The last event that can raise a charge without a command of ours: an overdraft's named cause."""
    unseen_seconds: float = 0.0
    """For so long before this step that event may have gone unseen."""
    _tickets: int = 0

    def ticket(self) -> int:
        """A number that no other command or request of this controller has."""
        self._tickets += 1
        return self._tickets

    def isolate(self, vm: Vm, error: Exception, now: float) -> None:
        """An error of ours about one VM harms no other: it is charged all of its RAM and left alone."""
        self.dirty.add(vm.config.uuid)
        if vm.fault is None:
            vm.fault = f"{type(error).__name__}: {error}"
            self.notice(now, "fault", vm, f"{vm.name} is left alone after an internal error: {vm.fault}")

    def notice(self, now: float, kind: str, vm: Vm | None, text: str) -> None:
        """Tell the operator."""
        self.notices.append(Notice(now, kind, vm.name if vm else None, text))
