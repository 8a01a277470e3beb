"""Cells for tests: hosts of 64 GiB, VMs by what they cannot do without."""

from collections.abc import Mapping
from typing import Any

from host_controller.fleet.core.model import Cell, HostFigures, Node, Resource, VmFigures
from host_controller.units import GIB, MIB

CAPACITY = 64 * GIB
BESIDE = 64 * MIB


def vm(name: str, floor_bytes: int, **more: Any) -> VmFigures:
    """A settled VM with this floor."""
    given: dict[str, Any] = {
        "uuid": name,
        "name": name,
        "need_bytes": floor_bytes - BESIDE,
        "minimum_bytes": 0,
        "charge_bytes": floor_bytes,
        "beside_bytes": BESIDE,
        "arrival_bytes": floor_bytes,
        "settled": True,
    }
    return VmFigures(**given | more)


def unmanaged(name: str, size_bytes: int) -> VmFigures:
    """One that its host does not manage."""
    return vm(
        name,
        0,
        need_bytes=None,
        charge_bytes=size_bytes,
        beside_bytes=0,
        arrival_bytes=size_bytes,
        settled=False,
        managed=False,
    )


def host(*vms: VmFigures, **more: Any) -> HostFigures:
    """A host of 64 GiB with these VMs, which admits whatever is left."""
    left = CAPACITY - sum(one.floor_bytes for one in vms)
    given: dict[str, Any] = {"capacity_bytes": CAPACITY, "reserved_bytes": 0, "admits_bytes": max(0, left)}
    return HostFigures(**given | {"vms": vms, "overdraft": left < 0} | more)


def cell(
    figures: Mapping[str, HostFigures | None],
    stopped: tuple[Resource, ...] = (),
    published: Mapping[str, int] | None = None,
) -> Cell:
    """Hosts with the VMs that they tell of; None: the host does not answer."""
    sizes = published or {}
    resources = [
        Resource(one.name, name, sizes.get(one.name))
        for name, here in figures.items()
        if here is not None
        for one in here.vms
    ]
    nodes = tuple(Node(name, published_mib=sizes.get(name)) for name in figures)
    answered = {name: one for name, one in figures.items() if one is not None}
    return Cell(nodes, (*resources, *stopped), answered)
