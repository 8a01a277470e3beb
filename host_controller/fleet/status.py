"""What is told of a cell: its hosts, who is where, and what was not believed. For programs; no I/O."""

from collections.abc import Iterable, Mapping
from typing import Any

from host_controller.fleet.core.model import Cell, HostFigures, Node, Resource
from host_controller.fleet.core.relief import SHORT_ABOVE
from host_controller.fleet.expiry import ending


def status_of(cell: Cell, silent: Mapping[str, str], notes: Iterable[str], wall: float) -> dict[str, Any]:
    """`silent`: hosts that are not believed, and why; `wall`: seconds since 1970."""
    return {
        "hosts": [_host(cell, silent, node) for node in cell.nodes],
        "vms": [_vm(cell, one) for one in cell.resources],
        "notes": [*notes, *ending(cell.figures, wall)],
    }


def _host(cell: Cell, silent: Mapping[str, str], node: Node) -> dict[str, Any]:
    figures, here = cell.figures.get(node.name), cell.on(node.name)
    return {
        "name": node.name,
        "capacity_bytes": figures.capacity_bytes if figures else None,
        "need_bytes": figures.floor_bytes if figures else None,
        "load": round(figures.load, 4) if figures else None,
        "booked_mib": sum(one.published_mib or 0 for one in here),
        "admits_bytes": figures.admits_bytes if figures else None,
        "published_mib": node.published_mib,
        "vms": len(here),
        "state": "; ".join(_troubles(node.trouble, silent.get(node.name), figures)) or "ok",
    }


def _troubles(engine: str, silent: str | None, figures: HostFigures | None) -> list[str]:
    found = [engine] if engine else []
    if silent:
        found.append(f"silent: {silent}")
    if figures is not None:
        if not figures.connected:
            found.append("its libvirt does not answer")
        if figures.emergency:
            found.append(f"emergency: {figures.emergency}")
        if figures.overdraft:
            found.append("overdraft")
        elif figures.load > SHORT_ABOVE:
            found.append("short")
    return found


def _vm(cell: Cell, one: Resource) -> dict[str, Any]:
    figures = cell.figures_of(one)
    state = "stopped" if one.node is None else "ok" if figures is not None else "its host does not tell of it"
    if figures is not None and not figures.settled:
        state = "charged whole" if figures.managed else "not managed: charged whole"
    return {
        "name": one.name,
        "host": one.node,
        "need_bytes": figures.floor_bytes if figures else None,
        "charge_bytes": figures.charge_bytes if figures else None,
        "booked_mib": one.published_mib,
        "bans": dict(one.bans),
        "state": state,
    }
