"""What is said of the host: its memory, who has it, and who may start."""

from host_controller.api.schema.answers import View
from host_controller.api.schema.vm import VmView


class OverdraftView(View, frozen=True, kw_only=True, gc=False):
    """The charges exceed the capacity."""

    cause: str
    since: float
    bytes_now: int
    bytes_peak: int


class PoolView(View, frozen=True, kw_only=True, gc=False):
    """Huge pages of one size: VMs in them cost the ordinary memory nothing but QEMU's own."""

    page_bytes: int
    total_bytes: int
    free_bytes: int
    """In use by nobody and promised to no mapping."""
    vms_bytes: int
    """RAM of managed VMs."""
    reserved_bytes: int
    """Promised to VMs that are about to start."""
    room_bytes: int
    """What the next VM can have."""


class ReservationView(View, frozen=True, kw_only=True, gc=False):
    """Memory promised to a VM that is about to start."""

    name: str
    size_bytes: int
    expires_in_seconds: float


class HostView(View, frozen=True, kw_only=True, gc=False):
    """The host, and the controller itself."""

    version: str
    pid: int
    uptime_seconds: float
    dry_run: bool
    paused: bool
    """Management of all VMs is paused."""
    connected: bool
    connection: str
    """The hypervisor's address, or what is wrong with the way to it."""
    physical_bytes: int | None
    available_bytes: int | None
    """By the host's own kernel, with what goes on demand."""
    capacity_bytes: int
    """What managed VMs and reservations may cost."""
    capacity_bound: str
    """What decides the capacity: a formula, the configuration, or a limit on a control group."""
    capacity_limited: bool
    """It is less than the formula or the configuration would give."""
    ordinary_bytes: int | None
    """The part of physical_bytes that can be ordinary pages: without huge pages and broken ones."""
    evictable_bytes: int
    """The part of available_bytes that the kernel calls used: ZFS's cache above its least size."""
    others_bytes: int
    """What everything but VMs uses; a fall counts fully after ten minutes."""
    pools: list["PoolView"]
    """Huge pages, by size."""
    unread: dict[str, str]
    """VMs whose resident memory cannot be read, with the reason, by UUID: no release is believed."""
    psi_some_percent: float | None
    """Of the last 10 s, in which some task of the host waited for memory; null: unknown."""
    psi_full_percent: float | None
    reserve_bytes: int
    """Kept from VMs: what others use, and a spare."""
    spare_bytes: int
    """The part of the reserve that should be available: an emergency is measured by it."""
    unmanaged_bytes: int
    """RAM of this libvirt's VMs that are not managed."""
    foreign_bytes: int
    """Held by QEMUs that are not this libvirt's."""
    reserved_bytes: int
    """Sum of the reservations, and of what is held of the startup of VMs that boot with less."""
    ready_bytes: int
    """Kept free for bursts."""
    budget_bytes: int
    """What the balance lays out."""
    charged_bytes: int
    headroom_bytes: int
    """Negative in an overdraft, and while a VM stands still because its RAM is not free."""
    waiting_bytes: int
    """Granted growth that is not free yet."""
    vm_swap_bytes: int
    """Pages of VMs in the host's swap: an alarm."""
    overdraft: OverdraftView | None
    emergency: str | None
    """Why the host itself is short of memory: nobody grows, and what exceeds need is taken."""
    reservations: list[ReservationView]
    configuration_error: str | None
    """Why the last reload was refused; the configuration before it is in force."""
    history_problem: str | None
    """Why the history is not written now."""
    untold: str | None
    """Of whom libvirt has not told yet: meanwhile nobody is admitted, and nobody grows. Null: of nobody."""
    unasked_start: str | None
    """The managed VM that was started last, where libvirt's hook had not asked for it; null where it had."""
    lateness_seconds: float
    """How late the control loop was at worst in the last minute; to gather events for 50 ms is not late."""
    tasks: int
    """Tasks of the controller's loop, this answer's included: steady, or one leaks."""
    errors: dict[str, int]
    """By kind, since the start."""


class StatusView(View, frozen=True, kw_only=True, gc=False):
    """The whole host at a glance."""

    host: HostView
    vms: list[VmView]


class AdmissionView(View, frozen=True, kw_only=True, gc=False):
    """Whether a VM may start. `POST /v1/admission`, with the domain's XML as body."""

    admitted: bool
    name: str
    need_bytes: int
    shortfall_bytes: int
    """What was still missing when the time was over; 0 when admitted."""
    waited_seconds: float
    message: str
