"""What is measured of a world, second by second, the same for whoever controls it.

Unmet demand and what a host gave out beyond its memory are counted apart: a guest under a law that
overcommits lacks nothing of its own, it is the host that would have to swap. Sizes are MiB.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from host_controller.core import interface as hv
from host_controller.core.policy.balance import fill
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.memory import UNRECLAIMABLE_CACHE
from host_controller.simulator.world import World
from host_controller.units import MIB

COUNTED: Final = (hv.SetTarget, hv.AttachDimm, hv.DetachDimm, hv.ResizeVirtioMem)
"""Commands that move memory."""


@dataclass(slots=True)
class VmMeter:
    """One VM. `assigned` and `demand` are of the last second, 0 while it does not run."""

    vm: SimulatedVm
    commands: int = 0
    unmet_mib_seconds: float = 0.0
    assigned: float = 0.0
    demand: float = 0.0
    """What programs want, the kernel's own, and the text of what runs."""
    up: bool = False
    lacked: float = 0.0
    """Of its kernel's count, bytes times seconds."""

    @property
    def minimum(self) -> float:
        """It keeps so much, needed or not."""
        return self.vm.config.limits.minimum_bytes / MIB

    @property
    def need(self) -> float:
        """Demand, never below the minimum."""
        return max(self.minimum, self.demand)


@dataclass(slots=True)
class Meter:
    """Sums over a world's VMs from `begin` on. It is a witness, which counts commands."""

    world: World
    vms: list[VmMeter]
    begun: bool = False
    seconds: int = 0
    vm_seconds: int = 0
    assigned: float = 0.0
    needed: float = 0.0
    moved: float = 0.0
    changed: float = 0.0
    overcommitted_mib_seconds: float = 0.0
    """∫ what guests hold beyond the host's memory: what they were given and never touched costs nothing."""
    promised_mib_seconds: float = 0.0
    """∫ what they were given beyond it, touched or not: sooner or later a guest fills it with cache."""
    unavoidable_mib_seconds: float = 0.0
    """∫ what they want in sum beyond it: so much is missing under any law."""
    apart: float = 0.0
    """Σ over seconds: the share of what a weighted max-min gives that is elsewhere, or with nobody."""
    _by_uuid: dict[str, VmMeter] = field(default_factory=dict)

    @classmethod
    def of(cls, world: World, vms: Sequence[SimulatedVm]) -> "Meter":
        """A meter that watches the world's commands from now on."""
        meters = [VmMeter(vm) for vm in vms]
        made = cls(world, meters, _by_uuid={one.vm.uuid: one for one in meters})
        world.hypervisor.witnesses.append(made)
        return made

    # --- figures ------------------------------------------------------------------------------------

    @property
    def unmet_mib_seconds(self) -> float:
        """What guests wanted and did not have."""
        return sum(one.unmet_mib_seconds for one in self.vms)

    @property
    def footprint(self) -> float:
        """∫assigned ÷ ∫max(demand, minimum)."""
        return self.assigned / self.needed if self.needed else 0.0

    @property
    def churn(self) -> float:
        """MiB moved per MiB by which demand (not below minimum) changed."""
        return self.moved / max(1.0, self.changed)

    @property
    def commands_per_vm_hour(self) -> float:
        """Balloon targets, DIMMs plugged and unplugged, virtio-mem resized."""
        return sum(one.commands for one in self.vms) * 3600 / max(1, self.vm_seconds)

    @property
    def distance(self) -> float:
        """From weighted max-min: 0 where everybody has its share, mean over the seconds."""
        return self.apart / max(1, self.seconds)

    # --- as a witness -------------------------------------------------------------------------------

    def submitted(self, command: hv.Command) -> None:
        """Count it."""
        if self.begun and isinstance(command, COUNTED):
            self._by_uuid[command.vm].commands += 1

    def delivered(self, event: hv.HypervisorEvent) -> None:
        """Not counted."""

    def happened(self, kind: str, vm: str) -> None:
        """Not counted."""

    # --- time ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """What was before, boots above all, is not measured."""
        for one in self.vms:
            self._look(one)
        self.begun = True

    def second(self) -> None:
        """A second has passed in the world."""
        before = [(one.up, one.assigned, one.need) for one in self.vms]
        for one in self.vms:
            one.unmet_mib_seconds += self._look(one)
        self.seconds += 1
        running = [one for one in self.vms if one.up]
        self.vm_seconds += len(running)
        self.assigned += sum(one.assigned for one in running)
        self.needed += sum(one.need for one in running)
        for one, (was_up, assigned, need) in zip(self.vms, before, strict=True):
            if one.up and was_up:
                self.moved += abs(one.assigned - assigned)
                self.changed += abs(one.need - need)
        resident = [(one.vm.resident_bytes, one.vm.spec.overhead_bytes) for one in self.vms]
        budget = (self.world.capacity_bytes - sum(overhead for held, overhead in resident if held)) / MIB
        held = sum(held for held, _ in resident) / MIB
        self.overcommitted_mib_seconds += max(0.0, held - budget)
        self.promised_mib_seconds += max(0.0, sum(one.assigned for one in running) - budget)
        wanted = sum(one.demand for one in running)
        self.unavoidable_mib_seconds += max(0.0, wanted - budget)
        self.apart += _distance(running, int(budget))

    @staticmethod
    def _look(one: VmMeter) -> float:
        """What it lacked since the last look, MiB·s."""
        vm = one.vm
        vm.advance()
        memory, before = vm.memory, one.lacked
        one.up, one.lacked = vm.up, memory.unmet_seconds
        if not one.up:
            one.assigned = one.demand = 0.0
            return 0.0
        one.assigned = memory.usable / MIB
        one.demand = (
            memory.reserved + memory.slab + memory.memmap + UNRECLAIMABLE_CACHE + memory.ideal
        ) / MIB
        return max(0.0, one.lacked - before) / MIB


def _distance(running: Sequence[VmMeter], budget: int) -> float:
    """Which share of what is fair is not where it should be."""
    if not running:
        return 0.0
    needs = [int(one.need) for one in running]
    least = [int(one.minimum) for one in running]
    fair = fill([one.vm.config.limits.weight for one in running], least, needs, budget)
    short = sum(
        abs(min(one.assigned, need) - share) for one, need, share in zip(running, needs, fair, strict=True)
    )
    return short / max(1, sum(fair))
