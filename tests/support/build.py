"""VMs and facts for unit tests: everything plausible, so that a test names only what it is about."""

from typing import Any

from host_controller.core.model import Dimm, Growth, GuestFacts, Limits, Settings, VmConfig
from host_controller.core.vm.record import Phase, Vm
from host_controller.units import MIB

LIMITS = Limits(startup_bytes=512 * MIB, minimum_bytes=192 * MIB, maximum_bytes=1024 * MIB)


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
    """A VM whose balloon, ledger entries and resident memory all say `actual_mib`, unless changed."""
    made = Vm(config(**changes.pop("config", {})), phase, 0.0, 0.0)
    made.dimms = tuple(
        Dimm(f"dimm{slot}", size * MIB, (4096 + 1024 * slot) * MIB) for slot, size in enumerate(dimms_mib)
    )
    actual = actual_mib * MIB
    made.actual_bytes = made.claim_bytes = made.target_bytes = made.ceiling_bytes = actual
    made.actual_at = made.resident_at = 0.0
    made.moved = True
    for name, value in changes.items():
        setattr(made, name, value)
    return made


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
