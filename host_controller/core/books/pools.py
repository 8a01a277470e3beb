"""Huge pages: a pool of their own for each size.

A VM whose RAM lies in them costs the ordinary memory nothing but QEMU's own, and starts only while its pool
has enough.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from host_controller.core.model import HostFacts, HugePool
from host_controller.core.operator_events import Reserve
from host_controller.core.vm.record import Vm


@dataclass(frozen=True, slots=True)
class PoolUse:
    """One pool, and who has it."""

    page_bytes: int
    total_bytes: int
    free_bytes: int
    """In use by nobody and promised to no mapping, by the kernel's count."""
    vms_bytes: int
    """RAM of managed VMs in it."""
    reserved_bytes: int
    """Promised to VMs that are about to start."""
    room_bytes: int
    """What the next VM can have, what the kernel may add on demand included."""


def page_size(config_bytes: int | None, facts: HostFacts | None) -> int | None:
    """The size of a VM's huge pages, the host's default put in where the domain leaves it open."""
    if config_bytes == 0:
        return facts.default_huge_page_bytes if facts is not None else None
    return config_bytes


def ram_in_pool(vm: Vm) -> int:
    """What a VM has of its pool: all RAM that its guest could touch."""
    return (
        vm.ram_bytes + vm.plug.pending_bytes + max(vm.config.virtio_mem_bytes, vm.virtio_mem.may_hold_bytes)
    )


def pools(facts: HostFacts | None, vms: Iterable[Vm], reservations: Mapping[str, Reserve]) -> list[PoolUse]:
    """Every pool of the host that has pages, may grow some, or is asked for."""
    known = {} if facts is None else {pool.page_bytes: pool for pool in facts.pools}
    in_use: dict[int, int] = {}
    for vm in vms:
        size = page_size(vm.config.huge_page_bytes, facts)
        if size is not None:
            in_use[size] = in_use.get(size, 0) + ram_in_pool(vm)
    promised: dict[int, int] = {}
    for reservation in reservations.values():
        size = page_size(reservation.huge_page_bytes, facts)
        if size is not None:
            promised[size] = promised.get(size, 0) + reservation.huge_bytes
    return [
        _use(known.get(size, HugePool(size, 0, 0)), in_use.get(size, 0), promised.get(size, 0))
        for size in sorted({*known, *in_use, *promised})
    ]


def room_bytes(config_bytes: int | None, facts: HostFacts | None, reservations: Mapping[str, Reserve]) -> int:
    """What a VM with such huge pages can have now; 0 where the host has no such pool."""
    size = page_size(config_bytes, facts)
    found = [pool.room_bytes for pool in pools(facts, (), reservations) if pool.page_bytes == size]
    return found[0] if found else 0


def made_bytes(
    config_bytes: int | None,
    wanted_bytes: int,
    facts: HostFacts | None,
    reservations: Mapping[str, Reserve],
) -> int:
    """What of the huge pages that a VM wants the kernel has yet to make, of ordinary memory.

    Those that are free are taken first, and by whom they were promised to.
    """
    size = page_size(config_bytes, facts)
    for pool in pools(facts, (), reservations):
        if pool.page_bytes == size:
            return max(0, wanted_bytes - max(0, pool.free_bytes - pool.reserved_bytes))
    return 0


def to_make_bytes(facts: HostFacts | None, reservations: Mapping[str, Reserve]) -> int:
    """What the kernel has yet to make, of ordinary memory, of all the huge pages that were promised."""
    return sum(max(0, one.reserved_bytes - one.free_bytes) for one in pools(facts, (), reservations))


def _use(pool: HugePool, held: int, promised: int) -> PoolUse:
    room = max(0, pool.free_bytes + pool.growable_bytes - promised)
    return PoolUse(pool.page_bytes, pool.total_bytes, pool.free_bytes, held, promised, room)
