"""What is said of one VM."""

from typing import Literal

import msgspec

from host_controller.api.schema.answers import View


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
    """One managed VM that runs, as the controller knows it now."""

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
    limit_sources: dict[str, str] = msgspec.field(default_factory=dict)
    """The same for each limit: startup, minimum, maximum, buffer, weight."""
    limits: LimitsView
    assigned_bytes: int
    demand_bytes: int | None
    need_bytes: int | None
    desired_bytes: int | None
    lower_bytes: int | None = None
    """Below it the guest cannot go."""
    eased_bytes: int | None = None
    """Need and what its noise or its stalls ask for."""
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
