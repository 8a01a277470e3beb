"""What hosts tell each other, and what the fleet is told of them."""

from host_controller.api.schema.answers import View


class VmFiguresView(View, frozen=True, kw_only=True, gc=False):
    """One running VM, as far as other hosts have to know it."""

    uuid: str
    name: str
    need_bytes: int | None
    minimum_bytes: int
    charge_bytes: int
    """The most that it can come to hold without further consent."""
    beside_bytes: int
    """The part of the charge that is beside what the guest can use."""
    arrival_bytes: int
    """What a host must have free to take it in by migration: all RAM, until its balloon has spoken there. RAM
    in huge pages is none of it.
    """
    huge_bytes: int
    """What it must have free of its huge pages beside that."""
    huge_page_bytes: int | None
    """Their size, 0 for that host's default; null without any."""
    settled: bool
    """Its balloon is trusted and can be moved, and nothing is being done with it."""
    stands_still: bool
    """Its host has stopped its vCPUs until there is room. Before 0.2 no other host would let it run."""


class UnmanagedView(View, frozen=True, kw_only=True, gc=False):
    """A running VM that the host does not manage: it costs all of its RAM, beside the capacity."""

    uuid: str
    name: str
    size_bytes: int
    """With what QEMU takes beside. A host must have as much free to take it in."""


class FiguresView(View, frozen=True, kw_only=True, gc=False):
    """What the fleet is told of a host. `GET /v1/figures`."""

    at: float
    version: str
    capacity_bytes: int
    reserved_bytes: int
    """Promised to VMs that are about to start or to arrive."""
    admits_bytes: int
    """What a start could be given within `wait_seconds`: free, or taken from VMs with more than they need."""
    wait_seconds: float
    connected: bool
    """Its libvirt answers. Else none of its VMs can be moved: whoever tried would wait for libvirt."""
    overdraft: bool
    emergency: str | None
    vms: list[VmFiguresView]
    unmanaged: list[UnmanagedView]


class FleetHostView(View, frozen=True, kw_only=True, gc=False):
    """One host of the fleet."""

    name: str
    capacity_bytes: int | None
    """None, as all that it says itself, where it is silent."""
    need_bytes: int | None
    """What its VMs cannot do without, and what is promised."""
    load: float | None
    """That as a share of its capacity."""
    booked_mib: int
    """What the cluster holds for its VMs."""
    admits_bytes: int | None
    """What a start could be given there."""
    published_mib: int | None
    """Its capacity in the cluster."""
    vms: int
    state: str
    """`ok`, or what is not in order."""


class FleetVmView(View, frozen=True, kw_only=True, gc=False):
    """One VM of the fleet."""

    name: str
    host: str | None
    need_bytes: int | None
    charge_bytes: int | None
    booked_mib: int | None
    bans: dict[str, str]
    """Hosts that the cluster keeps from it, and why."""
    state: str


class FleetView(View, frozen=True, kw_only=True, gc=False):
    """The whole fleet, as its arbiter sees it. `GET /v1/fleet`, and `dynmem fleet status --json`."""

    hosts: list[FleetHostView]
    """None where its arbiter does not run."""
    vms: list[FleetVmView]
    notes: list[str]
    """What is not believed, or needs somebody."""
