"""What is known of a cell: the figures of its hosts, and what the engine has where.

Hosts count bytes, engines count MiB. A VM's resource in the engine has the VM's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from host_controller.units import MIB


@dataclass(frozen=True, slots=True)
class Huge:
    """RAM that lies in huge pages: a host has them beside its ordinary memory."""

    size_bytes: int
    page_bytes: int
    """0: of whatever size is the host's default."""


@dataclass(frozen=True, slots=True)
class VmFigures:
    """One running VM, by the word of its host."""

    uuid: str
    name: str
    need_bytes: int | None
    """None while nothing is known of it."""
    minimum_bytes: int
    charge_bytes: int
    """The most that it can come to hold without further consent."""
    beside_bytes: int
    """The part of the charge that is beside what the guest can use."""
    arrival_bytes: int
    """What a host must have free to take it in: all RAM, until its balloon has spoken there."""
    settled: bool
    """Its balloon is trusted and nothing is being done with it: less than its charge can be relied upon."""
    stands_still: bool = False
    """Its host has stopped its vCPUs for a while. Before 0.2 no other host would let it run."""
    managed: bool = True
    """By its host's controller; else its charge never changes, and is no part of the host's capacity."""
    huge_bytes: int = 0
    huge_page_bytes: int | None = None

    @property
    def huge(self) -> Huge | None:
        """What a host must have free of its huge pages to take it in, beside arrival_bytes."""
        return None if self.huge_page_bytes is None else Huge(self.huge_bytes, self.huge_page_bytes)

    @property
    def floor_bytes(self) -> int:
        """What it cannot do without; its whole charge while that is not known."""
        if self.need_bytes is None or not self.settled:
            return self.charge_bytes
        return max(self.need_bytes, self.minimum_bytes) + self.beside_bytes


@dataclass(frozen=True, slots=True)
class HostFigures:
    """One host, as its controller tells it."""

    capacity_bytes: int
    reserved_bytes: int
    """Promised to VMs that are about to start or to arrive there."""
    admits_bytes: int
    """What a start could be given within the time that it waits, by the host itself. Not negative."""
    vms: tuple[VmFigures, ...] = ()
    overdraft: bool = False
    emergency: str | None = None
    certificate_until: float | None = None
    """When the certificate that it showed expires, in seconds since 1970; None: it was not asked over TLS."""
    unmanaged: tuple[VmFigures, ...] = ()
    """Its capacity is what is left beside these."""
    connected: bool = True
    """Its libvirt answers. Else a migration from there fails, or hangs for as long as it may take."""

    @property
    def running(self) -> tuple[VmFigures, ...]:
        """All VMs that it tells of."""
        return (*self.vms, *self.unmanaged)

    @property
    def floor_bytes(self) -> int:
        """What all of its VMs cannot do without, and what is promised."""
        return sum(vm.floor_bytes for vm in self.vms) + self.reserved_bytes

    @property
    def load(self) -> float:
        """That as a share of its capacity; without any capacity it is full."""
        return self.floor_bytes / self.capacity_bytes if self.capacity_bytes > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Node:
    """A host as the engine knows it."""

    name: str
    takes: bool = True
    """The engine would start a VM there: it is online, in no standby and no maintenance."""
    published_mib: int | None = None
    """Its capacity in the engine; None: nobody has set one."""
    trouble: str = ""
    """Why the engine starts nothing there; empty where it does."""
    others_mib: int = 0
    """What the engine counts there of resources that are none of ours, by the same attribute."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A VM as the engine knows it."""

    name: str
    node: str | None = None
    """Where the engine has it, or is bringing it; None while it is stopped."""
    published_mib: int | None = None
    """Its size in the engine."""
    startup_mib: int | None = None
    """RAM that it starts with and QEMU's own, by its definition; None: that cannot be read."""
    bans: Mapping[str, str] = field(default_factory=dict)
    """Nodes that the engine keeps from it, with the reason."""
    failed_on: frozenset[str] = frozenset()
    """Those of them where a start has failed, and nothing else bans it: a clean-up lifts the ban."""
    unsure: frozenset[str] = frozenset()
    """Those of the banned that the engine alone can tell of: it is asked before anybody else is."""
    also_on: frozenset[str] = frozenset()
    """Where else it runs or may run: the engine would take it away from there, and has not done so."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cluster at one moment. `figures` has the hosts that answered, by the node's name."""

    nodes: tuple[Node, ...]
    resources: tuple[Resource, ...]
    figures: Mapping[str, HostFigures]
    strangers: frozenset[str] = frozenset()
    """VMs of the engine's that are not placed by demand: they are no resources here."""

    def on(self, node: str) -> tuple[Resource, ...]:
        """What the engine has on a node, or is bringing there."""
        return tuple(one for one in self.resources if one.node == node)

    def counted_on(self, node: str) -> tuple[Resource, ...]:
        """These, and what may still run there. The engine has a node to hold both: a VM that it would start
        elsewhere, since it has lost sight of the host, is where it was as soon as the host is back.
        """
        return tuple(one for one in self.resources if one.node == node or node in one.also_on)

    def doubted(self) -> dict[str, str]:
        """VMs that a host tells of where the engine does not have them, and that host. Two may run of one
        name, so none of them is moved or started by us.
        """
        places = {one.name: {one.node, *one.also_on} for one in self.resources}
        return {
            vm.name: host
            for host, figures in sorted(self.figures.items())
            for vm in figures.running
            if host not in places.get(vm.name, (host,))
        }

    def running_on(self, node: str) -> list[tuple[Resource, VmFigures]]:
        """What the engine has on a node and its host tells of."""
        figures = self.figures.get(node)
        running = {} if figures is None else {vm.name: vm for vm in figures.vms}
        return [(one, running[one.name]) for one in self.on(node) if one.name in running]

    def free_mib(self, node: str) -> int | None:
        """What a host could give a start beside what is on its way there; None: it does not say."""
        figures = self.figures.get(node)
        if figures is None:
            return None
        running = {vm.name for vm in figures.running}
        coming = sum(one.published_mib or 0 for one in self.counted_on(node) if one.name not in running)
        return max(0, mib_down(figures.admits_bytes) - coming)

    def takes_mib(self, node: str, size_mib: int) -> bool:
        """Whether the engine has so much left there, by what is published; it has where nothing is."""
        there = next(one for one in self.nodes if one.name == node)
        booked = there.others_mib + sum(one.published_mib or 0 for one in self.counted_on(node))
        return there.published_mib is None or booked + size_mib <= there.published_mib

    def figures_of(self, resource: Resource) -> VmFigures | None:
        """A running VM's figures, by the host where the engine has it: no other host is believed about it."""
        host = None if resource.node is None else self.figures.get(resource.node)
        if host is None:
            return None
        return next((vm for vm in host.running if vm.name == resource.name), None)


def mib_up(size_bytes: int) -> int:
    """Whole MiB that hold so much; 0 for what is negative."""
    return max(0, -(-size_bytes // MIB))


def mib_down(size_bytes: int) -> int:
    """Whole MiB in so much; 0 for what is negative."""
    return max(0, size_bytes // MIB)
