"""What the engine is told: each VM's size, and each host's capacity.

The one property: on every node, the sizes of what the engine has there or would bring there never exceed the
node's capacity, and beside them it has room for what the engine counts there of others by our attribute. So
no publication gives the engine a reason to move or stop a VM (fact: demand-kills), not even when a host is
back that it had lost sight of (fact: would-be-elsewhere). Only the free part of a capacity carries the truth
about a host: what its admission could grant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from host_controller.fleet.core.booking import Booking, rebook, stopped_mib
from host_controller.fleet.core.model import Cell, Node, Resource, mib_down, mib_up

BAND_MIB: Final = 64
BAND_SHARE: Final = 0.02
"""A capacity that changes by less is not worth a run of the engine's scheduler."""
LARGEST_MIB: Final = 1 << 31
"""2 PiB. The engine counts in 32 or 64 bits, by its version."""


@dataclass(frozen=True, slots=True)
class Publication:
    """All sizes and capacities that should be published, in MiB; of what is left out nothing is known."""

    vms: Mapping[str, int]
    hosts: Mapping[str, int]
    notes: tuple[str, ...] = ()
    """What was not believed, and why."""

    def changes(self, cell: Cell) -> "Publication":
        """Only what differs from what is published."""
        vms = {one.name: one.published_mib for one in cell.resources}
        hosts = {one.name: one.published_mib for one in cell.nodes}
        return Publication(
            {name: size for name, size in self.vms.items() if vms[name] != size},
            {name: size for name, size in self.hosts.items() if hosts[name] != size},
            self.notes,
        )

    def __bool__(self) -> bool:
        return bool(self.vms or self.hosts)


def publication(
    cell: Cell, before: Mapping[str, Booking], now: float
) -> tuple[Publication, dict[str, Booking]]:
    """What should be published, and what is booked from now on."""
    bookings: dict[str, Booking] = {}
    vms: dict[str, int] = {}
    for one in cell.resources:
        booking = _booking(cell, one, before.get(one.name), now)
        if booking is not None:
            bookings[one.name] = booking
        size = _size(cell, one, booking)
        if size is not None:
            vms[one.name] = size
    hosts = {node.name: _capacity(cell, node, vms) for node in cell.nodes}
    notes = (*told_elsewhere(cell), *_without_absurd(vms), *_without_absurd(hosts))
    return Publication(vms, hosts, notes), bookings


def _booking(cell: Cell, one: Resource, before: Booking | None, now: float) -> Booking | None:
    figures = cell.figures_of(one)
    if figures is None or not figures.managed:
        return before
    return rebook(before or Booking(one.published_mib or 0), figures.floor_bytes, now)


def _size(cell: Cell, one: Resource, booking: Booking | None) -> int | None:
    """A VM's size; None: nothing is known of it, so what is published stays as it is."""
    figures = cell.figures_of(one)
    if figures is not None and not figures.managed:
        return mib_up(figures.charge_bytes)
    if one.node is not None:
        return one.published_mib if booking is None else booking.size_mib
    if one.startup_mib is None:
        return one.published_mib
    return stopped_mib(booking, one.startup_mib)


def _capacity(cell: Cell, node: Node, vms: Mapping[str, int]) -> int:
    """What is booked there and what its host could still admit, less what is on its way."""
    here = cell.counted_on(node.name)
    booked = node.others_mib + sum(vms.get(one.name, 0) for one in here)
    figures = cell.figures.get(node.name)
    if figures is None:
        return booked  # a host that does not answer offers nothing
    running = {vm.name for vm in figures.running}
    coming = sum(vms.get(one.name, 0) for one in here if one.name not in running)
    capacity = booked + max(0, mib_down(figures.admits_bytes) - coming)
    old = node.published_mib
    if old is not None and old >= booked and abs(capacity - old) <= max(BAND_MIB, BAND_SHARE * old):
        return old
    return capacity


def _without_absurd(sizes: dict[str, int]) -> list[str]:
    """Takes out what cannot be told, so that it is in the way of no other; returns what is said of it."""
    beyond = [name for name, size in sizes.items() if size > LARGEST_MIB]
    return [f"{name}: {sizes.pop(name)} MiB are more than the engine can be told" for name in beyond]


def told_elsewhere(cell: Cell) -> tuple[str, ...]:
    """VMs that a host tells of and the engine has elsewhere: two hosts may not both be believed."""
    placed = {one.name: one.node for one in cell.resources}
    found = []
    for name, host in sorted(cell.figures.items()):
        for vm in host.running:
            where = placed.get(vm.name, name)
            if where != name:
                has = f"has it on {where}" if where else "has it stopped"
                found.append(f"{vm.name}: {name} runs it and the engine {has}")
    return tuple(found)
