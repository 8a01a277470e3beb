"""What the next controller, or the next connection, must know of a VM and could not find out by itself."""

from collections.abc import Mapping
from typing import NamedTuple

from host_controller.core.vm.record import Vm


class InheritedBoot(NamedTuple):
    """A VM that booted with less than its startup a moment ago: the rest is its due."""

    booted_at: float
    reports_since: float | None
    """None: its agent has not reported yet."""

    def lasts(self, settle_seconds: float, now: float) -> bool:
        """The rest of its startup may be its due still: one that never came back leaves nothing behind."""
        return now - max(self.booted_at, self.reports_since or self.booted_at) < settle_seconds


class InheritedPlug(NamedTuple):
    """A DIMM that was asked for: QEMU plugs it, whatever becomes of who asked."""

    size_bytes: int
    dimms: int
    """How many the VM had before."""


def plugs_under_way(vms: Mapping[str, Vm]) -> dict[str, InheritedPlug]:
    """DIMMs that were asked for and have not come yet, by UUID."""
    return {
        uuid: InheritedPlug(vm.plug.pending_bytes, len(vm.dimms.plugged))
        for uuid, vm in vms.items()
        if vm.plug.pending_bytes
    }


def sizes_under_way(vms: Mapping[str, Vm]) -> dict[str, int]:
    """What the virtio-mem devices may come to that were asked for another size, bytes, by UUID."""
    return {uuid: vm.virtio_mem.may_hold_bytes for uuid, vm in vms.items() if vm.virtio_mem.under_way}


def boot_under_way(vm: Vm, settle_seconds: float, now: float) -> InheritedBoot | None:
    """None: the rest of its startup is not its due, or no longer."""
    if vm.awaits_startup(now, settle_seconds) or vm.starts_small(now, settle_seconds):
        return InheritedBoot(vm.booted_at, None if vm.reports_since > now else vm.reports_since)
    return None


def boots_under_way(vms: Mapping[str, Vm], settle_seconds: float, now: float) -> dict[str, InheritedBoot]:
    """Who is still due the rest of its startup, by UUID."""
    return {
        uuid: boot
        for uuid, vm in vms.items()
        if (boot := boot_under_way(vm, settle_seconds, now)) is not None
    }
