"""What the control API says: the shape of every answer. `GET /v1/schema` gives it as JSON Schema.

Sizes are bytes, durations seconds; `…_at` is seconds since 1970. A figure that is not known is null. Within
version 1 fields are added, never removed or given another meaning: readers ignore what they do not know.
"""

from typing import Any, Literal

import msgspec

from host_controller.records.stored_limits import StoredLimits


class View(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What all answers have in common: trees without cycles, so no collector looks at their thousands."""


class Problem(View, frozen=True, kw_only=True, gc=False):
    """Why a request was not carried out. Nothing has changed."""

    code: str
    message: str
    hint: str | None = None


class ApiView(View, frozen=True, kw_only=True, gc=False):
    """Whom one speaks with. `GET /v1`."""

    api: int
    """1: fields are added, never removed or given another meaning."""
    version: str
    """The controller's."""


class LimitsView(View, frozen=True, kw_only=True, gc=False):
    """What the user asked for."""

    startup_bytes: int
    minimum_bytes: int
    maximum_bytes: int
    buffer_percent: int
    weight: int


class DecisionView(View, frozen=True, kw_only=True, gc=False):
    """What was last decided for a VM, and why."""

    at: float
    action: str
    reason: str
    held_back: str | None
    target_bytes: int | None
    """The balloon target sent, in QEMU's terms."""
    size_bytes: int | None
    """Of the DIMM that is plugged."""


class AgentView(View, frozen=True, kw_only=True, gc=False):
    """The agent in the guest."""

    version: str
    """Empty when it has not introduced itself."""
    report_age_seconds: float | None
    psi: bool | None
    """Whether the guest's kernel has PSI."""
    kernel: str = ""
    online_policy: str = ""
    """The kernel's auto_online_blocks."""
    hotplug: str = ""
    """Who brings hot-added memory online: kernel, agent or none."""
    swap_total_bytes: int = 0
    swap_used_bytes: int = 0


Status = Literal["ok", "low", "warning", "unknown"]


class VmView(View, frozen=True, kw_only=True, gc=False):
    """One running VM."""

    uuid: str
    name: str
    status: Status
    """As Hyper-V has it: low is less than need and buffer, warning is less than demand."""
    state: str
    phase: str
    job: str | None
    paused: bool
    """Management is paused by the operator."""
    growth: str
    trust: str
    source: str = "metadata"
    """Where its limits come from: its `metadata`, `adopted` (by `dynmem adopt`), or `rule[2]` of the file."""
    limit_sources: dict[str, str] = {}
    """The same for each limit: startup, minimum, maximum, buffer, weight."""
    limits: LimitsView
    assigned_bytes: int
    demand_bytes: int | None
    need_bytes: int | None
    desired_bytes: int | None
    lower_bytes: int | None = None
    """Below it the guest cannot go."""
    eased_bytes: int | None = None
    """Need and what its stalls ask for."""
    pressure_percent: float | None
    usable_bytes: int | None
    goal_bytes: int | None
    """What the balance gives it; null while it cannot be moved."""
    target_bytes: int | None
    actual_bytes: int
    ram_bytes: int
    """Boot RAM and DIMMs: what `target_bytes` and `actual_bytes` are parts of."""
    virtio_mem_bytes: int
    """Plugged by a virtio-mem device, beside `ram_bytes`."""
    virtio_mem_requested_bytes: int
    huge_page_bytes: int | None
    """The size of the huge pages that its RAM lies in, 0 while the host's default is not known; else null."""
    offline_bytes: int
    charge_bytes: int
    resident_bytes: int
    dimms: int
    slots: int
    agent: AgentView | None
    """Null when balloon statistics stand in for it, or nothing does."""
    report_age_seconds: float | None
    """Since the guest was last heard, by agent or by balloon statistics."""
    witness: Literal["agent", "guest agent", "statistics", "none"] = "none"
    """Who tells of its memory: our agent, its kernel by the QEMU guest agent, or its balloon's driver."""
    uncooperative_seconds: float | None
    """It did not follow its balloon target, is charged with what it holds, and is not asked for so long."""
    operation: str | None
    standstill: str | None
    """Why the controller has stopped its vCPUs after a reset, and for how long at most; else null."""
    channel_error: str | None = None
    """Why this host cannot open the agent's port, in libvirt's words; null while it can."""
    decision: DecisionView | None
    holders_news: str | None = None
    """What was told in the last 15 minutes of who holds its memory, by the guest's word: a sentence."""
    ignored: dict[str, int]
    """What the guest sent that was not believed, by kind."""


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


class Part(View, frozen=True, kw_only=True, gc=False):
    """A figure and what it is."""

    name: str
    size_bytes: int
    text: str
    deciding: bool = False


class HolderView(View, frozen=True, kw_only=True, gc=False):
    """A service or a program of a guest, by the guest's word."""

    name: str
    size_bytes: int
    grown_bytes: int | None
    """Since `HoldersView.since`; null where there is nothing to compare with, or it has not grown."""
    grown_at_least: bool = False
    """It was not among the largest then: it has grown by that or more."""


class HoldersView(View, frozen=True, kw_only=True, gc=False):
    """Who holds most of a guest's memory: what its agent answered last."""

    by: str | None
    """`services` (control groups, less their file cache) or `processes` (by name, less what they share)."""
    at: float | None
    since: float | None
    """When the look that growth is counted from was answered."""
    top: list[HolderView]
    """The largest first, five at most."""
    missing: str | None
    """Why nothing is known, or nothing new: a sentence."""
    pending: bool = False
    """The guest was asked, since somebody looks: look again in a moment."""


class ExplainView(View, frozen=True, kw_only=True, gc=False):
    """All about the current decision for one VM."""

    vm: VmView
    demand: list[Part]
    """What its need was put together from, in order."""
    charge: list[Part]
    """What it costs the host, rule by rule; the largest rule decides, extras come on top."""
    balance: list[Part]
    """What it asks for and what it gets."""
    why: list[str]
    """What holds it back, and why nothing else is done, in sentences."""
    holders: HoldersView | None = None
    """Null from a controller that does not ask."""


class SampleView(View, frozen=True, kw_only=True, gc=False):
    """A VM's figures at one moment."""

    at: float
    assigned_bytes: int | None
    demand_bytes: int | None
    need_bytes: int | None
    desired_bytes: int | None
    goal_bytes: int | None
    target_bytes: int | None
    actual_bytes: int | None
    charge_bytes: int | None
    pressure_percent: float
    phase: str
    report_age_seconds: float | None


class SpanView(View, frozen=True, kw_only=True, gc=False):
    """A VM in one minute or one hour: means, but where it says otherwise."""

    at: float
    """When it begins."""
    seconds: float
    """How long the VM was seen in it; what is missing is a gap."""
    known_seconds: float
    """How long its demand was known."""
    tight_seconds: float
    """How long it had nothing to spare: then its demand is a lower bound."""
    assigned_bytes: int | None
    assigned_largest_bytes: int | None
    charge_bytes: int | None
    usable_bytes: int | None
    demand_bytes: int | None
    demand_largest_bytes: int | None
    need_largest_bytes: int | None
    demand_percentiles: list[int] | None = None
    """Of an hour: the 5th, 25th, 50th, 75th and 95th percentile of its minutes' largest demand."""


class HistoryView(View, frozen=True, kw_only=True, gc=False):
    """What became of one VM."""

    uuid: str
    name: str
    step: Literal["detail", "minute", "hour"] = "detail"
    limits: StoredLimits | None = None
    """As they were last; null where they are not known any more."""
    samples: list[SampleView]
    """The detail; empty where minutes or hours were asked for."""
    spans: list[SpanView] = []
    """Minutes or hours."""
    entries: list["EntryView"]
    damaged: int = 0
    """Rows of the history file that could not be read, and were left out."""


class EntryView(View, frozen=True, kw_only=True, gc=False):
    """Something that happened. `GET /v1/events` gives one a line."""

    number: int
    at: float
    kind: Literal["notice", "decision", "command"]
    topic: str
    vm: str | None
    name: str | None
    text: str
    detail: dict[str, Any]
    mark: str | None = None
    """What it is on the curve of its VM: grown, held back, reset, by somebody …; null: it is not on it."""


class MomentVmView(View, frozen=True, kw_only=True, gc=False):
    """One VM's part in the balance at a moment."""

    uuid: str
    name: str
    seen_at: float
    """When these figures were written: up to five minutes before, if nothing moved."""
    weight: int
    """As it was last: history keeps no older one."""
    assigned_bytes: int | None
    demand_bytes: int | None
    lower_bytes: int | None
    """By the last decision about it before the moment; null: none is kept."""
    need_bytes: int | None
    eased_bytes: int | None = None
    """Need and what its stalls ask for; history keeps none."""
    desired_bytes: int | None
    """What was asked for it."""
    goal_bytes: int | None


class MomentView(View, frozen=True, kw_only=True, gc=False):
    """Who asked for what at a moment, and was to get what. `GET /v1/balance?at=…`; without `at`, now."""

    at: float
    vms: list[MomentVmView]


class ChartLine(View, frozen=True, kw_only=True, gc=False):
    """One VM in a chart."""

    uuid: str
    assigned_bytes: list[int | None]
    """At each of the chart's moments; null where it did not run, or is not known."""


class ChartView(View, frozen=True, kw_only=True, gc=False):
    """What every VM had: in the last hour those that run, in the last day, week or year (`since`) all
    that did. `GET /v1/chart`.
    """

    at: list[float]
    """The moments, oldest first."""
    vms: list[ChartLine]


class FindingView(View, frozen=True, kw_only=True, gc=False):
    """One result of `dynmem doctor`."""

    check: str
    """Its name, as in OPERATIONS.md."""
    vm: str | None
    """None where it is about the host."""
    level: Literal["ok", "note", "problem"]
    """A note is worth knowing and no fault."""
    found: str
    remedy: str


class DoctorView(View, frozen=True, kw_only=True, gc=False):
    """What `dynmem doctor --json` says."""

    findings: list[FindingView]


class MistakeView(View, frozen=True, kw_only=True, gc=False):
    """A mistake in the configuration."""

    key: str
    found: str
    allowed: str


class CheckView(View, frozen=True, kw_only=True, gc=False):
    """What `dynmem check-config --json` says."""

    file: str
    problems: list[MistakeView]
    """Empty when it can be used."""


class RuledVmView(View, frozen=True, kw_only=True, gc=False):
    """A VM, running or not, as the rules of a configuration see it."""

    uuid: str
    name: str
    running: bool
    rule: int | None
    """The first that is for it, from 1 on; null: none is, or its own metadata goes before all."""
    passed_over: int | None
    """The rule that would be for it, had it no metadata of its own."""
    source: str | None
    """Where its limits would come from; null: it would not be managed."""
    growth: str | None
    trust: str | None
    limits: LimitsView | None
    reasons: list[str]
    """Why that rule cannot take it on."""
    notes: list[str]
    """What the rule could not give it on this host, and what would."""


class RulesView(View, frozen=True, kw_only=True, gc=False):
    """What `dynmem rules --json` says."""

    rules: int
    """How many there are."""
    vms: list[RuledVmView]
    notes: list[str]


AdoptionOutcome = Literal[
    "adopted",
    "prepared",
    "released",
    "nothing to do",
    "would be adopted",
    "would be prepared",
    "would be released",
    "refused",
    "failed",
]


class AdoptionView(View, frozen=True, kw_only=True, gc=False):
    """What became of one VM that was to be adopted or released."""

    name: str
    uuid: str | None
    """None: there is no such VM."""
    outcome: AdoptionOutcome
    """Refused: nothing was changed. Failed: cut off; saying it again goes on from there."""
    steps: list[str]
    """Done, or to be done."""
    now: list[str]
    """What works while it runs."""
    later: list[str]
    """What its next start will bring."""
    reason: str | None
    way_out: str | None


class AdoptionsView(View, frozen=True, kw_only=True, gc=False):
    """What `dynmem adopt --json` and `release --json` say."""

    vms: list[AdoptionView]


class AdmissionView(View, frozen=True, kw_only=True, gc=False):
    """Whether a VM may start. `POST /v1/admission`, with the domain's XML as body."""

    admitted: bool
    name: str
    need_bytes: int
    shortfall_bytes: int
    """What was still missing when the time was over; 0 when admitted."""
    waited_seconds: float
    message: str


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
    """What a host must have free to take it in by migration: all RAM, until its balloon has spoken there."""
    settled: bool
    """Its balloon is trusted, and nothing is being done with it."""


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
    overdraft: bool
    emergency: str | None
    vms: list[VmFiguresView]


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


class DoneView(View, frozen=True, kw_only=True, gc=False):
    """A request was carried out."""

    done: str


ANSWERS: tuple[type[View], ...] = (
    Problem,
    ApiView,
    StatusView,
    VmView,
    ExplainView,
    HistoryView,
    ChartView,
    MomentView,
    EntryView,
    DoneView,
    DoctorView,
    CheckView,
    RulesView,
    AdoptionsView,
    AdmissionView,
    FiguresView,
    FleetView,
)


def json_schema() -> dict[str, Any]:
    """JSON Schema of all answers."""
    schemas, components = msgspec.json.schema_components(ANSWERS, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "anyOf": list(schemas),
        "$defs": components,
    }
