"""Why a VM finds no place: what each host lacks for it, and who holds that."""

from dataclasses import dataclass
from typing import Final

from host_controller.fleet.core.model import Cell, Node, Resource, mib_down, mib_up

NAMED_HOLDERS: Final = 5


@dataclass(frozen=True, slots=True)
class Holder:
    """A VM, and what it cannot do without."""

    name: str
    size_mib: int


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a VM from one host. Nothing does where there is no shortfall and no reason."""

    host: str
    free_mib: int | None
    """What the host could give a start; None: it does not say."""
    shortfall_mib: int
    reasons: tuple[str, ...]
    """Other than memory."""
    holders: tuple[Holder, ...]
    """The largest, where memory is missing."""

    @property
    def takes(self) -> bool:
        """The VM could start there."""
        return self.shortfall_mib == 0 and not self.reasons


def why(cell: Cell, resource: Resource, size_mib: int) -> tuple[Obstacle, ...]:
    """For each host; the one that lacks least comes first."""
    found = [_obstacle(cell, resource, node, size_mib) for node in cell.nodes]
    return tuple(sorted(found, key=lambda one: (bool(one.reasons), one.shortfall_mib, one.host)))


def _obstacle(cell: Cell, resource: Resource, node: Node, size_mib: int) -> Obstacle:
    figures, free = cell.figures.get(node.name), cell.free_mib(node.name)
    reasons = [node.trouble or "the engine starts nothing there"] if not node.takes else []
    if node.name in resource.bans:
        reasons.append(resource.bans[node.name])
    if figures is None or free is None:
        return Obstacle(node.name, None, 0, (*reasons, "its controller does not answer"), ())
    if not figures.connected:
        reasons.append("its libvirt does not answer")
    shortfall = max(0, size_mib - free)
    if shortfall and size_mib > mib_down(figures.capacity_bytes):
        reasons.append(
            f"it is larger than the host's whole capacity of {mib_down(figures.capacity_bytes)} MiB"
        )
    held = sorted(figures.running, key=lambda vm: (-vm.floor_bytes, vm.name))[:NAMED_HOLDERS]
    holders = tuple(Holder(vm.name, mib_up(vm.floor_bytes)) for vm in held) if shortfall else ()
    return Obstacle(node.name, free, shortfall, tuple(reasons), holders)
