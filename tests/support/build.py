"""VMs and facts for unit tests: everything plausible, so that a test names only what it is about."""

from dataclasses import fields
from typing import Any, Final

from host_controller.core.model import BalloonStats, Dimm, Growth, GuestFacts, Limits, Settings, VmConfig
from host_controller.core.vm.balloon import Balloon
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.dimms import Dimms
from host_controller.core.vm.evidence import Evidence
from host_controller.core.vm.growth import PaidPlug
from host_controller.core.vm.guest import Guest
from host_controller.core.vm.pauses import Pauses
from host_controller.core.vm.progress import Progress
from host_controller.core.vm.record import Phase, Vm
from host_controller.units import MIB

LIMITS = Limits(startup_bytes=512 * MIB, minimum_bytes=192 * MIB, maximum_bytes=1024 * MIB)

_RECORDS: Final[dict[str, Any]] = {
    "balloon": Balloon,
    "evidence": Evidence,
    "guest": Guest,
    "plug": PaidPlug,
    "pauses": Pauses,
    "progress": Progress,
    "dimms": Dimms,
}
_OWNERS: Final = {field.name: name for name, made in _RECORDS.items() for field in fields(made)}
"""The record that has a field of this name."""


def settings(capacity_mib: int = 4096, **changes: Any) -> Settings:
    return Settings(capacity_bytes=capacity_mib * MIB, overhead_floor_bytes=64 * MIB, **changes)


def config(name: str = "web", **changes: Any) -> VmConfig:
    values: dict[str, Any] = {
        "uuid": f"uuid-of-{name}",
        "name": name,
        "limits": LIMITS,
        "growth": Growth.HOTADD,
        "boot_ram_bytes": 512 * MIB,
        "slots": 8,
    }
    return VmConfig(**values | changes)


def vm(
    actual_mib: int = 512, *, phase: Phase = Phase.LIVE, dimms_mib: tuple[int, ...] = (), **changes: Any
) -> Vm:
    """A VM whose balloon, ledger entries and resident memory all say `actual_mib`, unless changed.

    A change names a field of the VM, or of one of its records.
    """
    actual = actual_mib * MIB
    plugged = tuple(
        Dimm(f"dimm{slot}", size * MIB, (4096 + 1024 * slot) * MIB) for slot, size in enumerate(dimms_mib)
    )
    records: dict[str, dict[str, Any]] = {name: {} for name in _RECORDS} | {
        "balloon": {
            "actual_bytes": actual,
            "claim_bytes": actual,
            "target_bytes": actual,
            "ceiling_bytes": actual,
            "actual_at": 0.0,
            "moved": True,
            "ours": True,
        },
        "evidence": {"resident_at": 0.0},
        "dimms": {"plugged": plugged},
    }
    values: dict[str, Any] = {"since": 0.0, "booted_at": 0.0}
    made = config(**changes.pop("config", {}))
    own = {field.name for field in fields(Vm)}
    for name, value in changes.items():
        (values if name in own else records[_OWNERS[name]])[name] = value
    parts = {name: _RECORDS[name](**given) for name, given in records.items()}
    return Vm(made, phase, **parts | values)


def says(vm: Vm, facts: GuestFacts) -> None:
    """The guest's word, as the first after its boot: no trend comes of it."""
    vm.guest.counts_anew()
    vm.guest.heard(facts, vm.balloon.actual_bytes)


def answers(vm: Vm, now: float, stats: BalloonStats | None = None) -> None:
    """The driver of its balloon answers."""
    before = BalloonStats(0, 0, updated=-1)
    stats = stats or BalloonStats(0, 0, updated=int(now * 10))
    vm.guest.keep_stats(before)
    assert vm.guest.answered_stats(stats, vm.balloon.actual_bytes, now)
    vm.guest.keep_stats(stats)


def answered(vm: Vm, now: float = 0.0) -> None:
    """The hypervisor has carried out all targets that were sent."""
    for ticket in list(vm.balloon.sent):
        vm.balloon.answered(ticket, None, now)


def facts(usable_mib: int = 512, demand_mib: int = 200, at: float = 1.0, **changes: Any) -> GuestFacts:
    """A reading of a guest that uses `demand_mib` of `usable_mib`; the rest is free."""
    available = (usable_mib - demand_mib) * MIB
    values: dict[str, Any] = {
        "at": at,
        "boot_id": "0123abcd",
        "sequence": int(at * 10),
        "from_agent": True,
        "usable_bytes": usable_mib * MIB,
        "available_bytes": available,
        "free_bytes": available,
        "reclaimable_bytes": 0,
        "total_bytes": (usable_mib - 100) * MIB,
        "online_bytes": 512 * MIB,
        "offline_bytes": 0,
        "movable_bytes": 0,
        "floor_bytes": 8 * MIB,
    }
    return GuestFacts(**values | changes)


def heard(*readings: GuestFacts) -> Demand:
    """The demand of a guest that has said all that."""
    demand = Demand()
    for reading in readings:
        demand.observe(reading)
    return demand
