"""Everything the controller knows of one running VM, and what follows from it. Nothing here decides."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from agent import wire
from host_controller.core.interface import SetTarget
from host_controller.core.model import (
    BALLOON,
    MEMORY_BLOCK_BYTES,
    RUNNING,
    VIRTIO_MEM,
    BalloonStats,
    Dimm,
    GuestFacts,
    RunState,
    VmConfig,
)
from host_controller.core.vm.demand import Demand, Estimate
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB

SETTLING: Final = 2.0
"""Seconds after a target of ours for which a balloon may still follow the one before."""


class Phase(StrEnum):
    """How far the claims of a guest's balloon can be relied upon. `lifecycle.py` moves it."""

    STARTING = "starting"
    """Booting or reset: no driver has been seen since, and the guest may touch all of its RAM."""
    TAKEOVER = "takeover"
    """It ran before we did: whatever it was last told, nobody here knows."""
    LIVE = "live"
    """The driver answers and the pages it gave up are gone."""
    HUNG = "hung"
    """Neither a report nor balloon statistics for long."""
    CONTRADICTED = "contradicted"
    """What the guest claims and what the host sees do not agree."""


STARTING, TAKEOVER, LIVE, HUNG, CONTRADICTED = Phase
"""Quicker to look up than `Phase.LIVE`, as in `model.py`."""


@dataclass(slots=True)
class Vm:
    """One running VM. Sizes are bytes, times seconds of the controller's clock."""

    config: VmConfig
    phase: Phase
    since: float
    """When the phase began."""
    booted_at: float
    """When its kernel last started, or when we first saw it."""
    reset_at: float = -math.inf
    state: RunState = RunState.RUNNING
    ran_at: float = -math.inf
    """When its vCPUs were last seen to be let run."""
    job: str | None = None
    dimms: tuple[Dimm, ...] = ()
    virtio_mem: VirtioMem = field(default_factory=VirtioMem)

    actual_bytes: int = 0
    """The balloon's size as the guest last claimed it."""
    actual_at: float = -math.inf
    actual_when_heard_bytes: int = 0
    """What was known of it when the guest's own kernel last spoke."""
    claim_bytes: int = 0
    """`actual` as far as it may be spent: it falls only when resident memory, looked at later, agrees."""
    target_bytes: int | None = None
    """The last balloon target that we sent, in QEMU's terms; None before the first."""
    ceiling_bytes: int = 0
    """The largest target that may still be in force: a command that failed may have been carried out."""
    sent: dict[int, int] = field(default_factory=dict)
    """Targets sent and not yet answered, by ticket."""
    sent_at: float = -math.inf
    followed: tuple[tuple[float, int], ...] = ()
    """Targets that its balloon may be following, and since when: the last one, and who else held lately."""
    corrected_at: float = -math.inf
    """When a balloon that somebody else moved was last told its target again."""
    grown_at: float = -math.inf
    """When it was last given more: an excess over what it wants is counted from here."""
    retry_at: float = -math.inf
    """After a command failed, nothing is sent before this."""
    last_error: tuple[str, float] = ("", -math.inf)
    """What the last failed command said, and when it was told."""
    resend: bool = False
    """QEMU recomputed the target behind our back (a DIMM came or went), or a command failed."""
    dimms_changed_at: float = -math.inf
    survivors: frozenset[str] = frozenset()
    """DIMMs that were plugged when it was last reset: its new kernel has never used them."""
    channel_error: str | None = None
    """Why the host cannot open the agent's port: no fault of the guest's."""
    pending_plug_bytes: int = 0
    """A DIMM on its way counts whole before it is asked for."""
    awaited_until: float = math.inf
    """Finite: a controller before us asked for that DIMM; it may come until QEMU answers after this."""

    resident_bytes: int = 0
    resident_at: float = -math.inf
    huge_bytes: int = 0
    """The part of resident_bytes in huge pages of the host."""
    borne_out_at: float = -math.inf
    """When resident memory last agreed with the claim, `refilled_bytes` aside."""
    refilled_bytes: int = 0
    """What the host itself had filled in by `borne_out_at`, the tolerance aside."""
    overhead_bytes: int = 0
    """High-water mark of what QEMU takes for itself."""

    stats: BalloonStats | None = None
    stats_at: float = -math.inf
    """When the driver last answered."""
    kernel_bytes: int | None = None
    """What its kernel keeps: the least of `actual` that its driver was seen not to count, without DIMMs."""
    moved: bool = False
    """The balloon was seen to move since the guest last booted."""
    facts: GuestFacts | None = None
    reported_at: float = -math.inf
    """When the agent last reported."""
    boot_id: str | None = None
    """Of the kernel whose agent spoke last."""
    agent_version: str | None = None
    zone: wire.Zone | None = None
    """Where new memory goes, as its agent has confirmed since it started."""
    block_bytes: int = MEMORY_BLOCK_BYTES
    psi: bool | None = None
    contradiction: str | None = None
    contradicted_at: float = -math.inf
    agreed_at: float = -math.inf

    demand: Demand = field(default_factory=Demand)
    estimate: Estimate | None = None
    held: bool = False
    """Paused by the operator: observed, charged, not touched."""
    stopped: bool = False
    """We have told its vCPUs to stand still, or are telling them to run again (`standstill.py`)."""
    fault: str | None = None
    """An error of ours while we dealt with it: it is left alone until it starts again."""

    progress_at: float = -math.inf
    progress_bytes: int = 0
    stuck_until: float = -math.inf
    """Did not follow its target; not asked again before this."""
    plug_refused_until: float = -math.inf
    plug_failures: int = 0
    unplug_refused_until: float = -math.inf
    unplug_failures: int = 0
    roomy_since: float = math.inf
    """Since when a DIMM could have been done without."""
    inflate_rate: float = 0.0
    """Measured, bytes/s; 0 before the first."""
    pace_seconds: float = 0.0
    look_at: float = -math.inf
    """When time alone may have changed something about it."""
    noise: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return self.config.name

    @property
    def ram_bytes(self) -> int:
        """Boot RAM and DIMMs: what the balloon's figures count from."""
        boot = self.config.boot_ram_bytes
        return boot + sum(d.size_bytes for d in self.dimms) if self.dimms else boot

    @property
    def hands_off(self) -> bool:
        """No command may be sent to it: its vCPUs stand still (fact: paused-target-is-lost), or a job
        moves it.
        """
        return self.job is not None or self.state is not RUNNING or self.stopped

    def has_agent(self, now: float, stale_seconds: float) -> bool:
        """Its agent reported lately; else balloon statistics stand in for it."""
        return now - self.reported_at <= stale_seconds

    @property
    def offline_bytes(self) -> int:
        """Plugged and not usable by the guest, as far as is known."""
        if self.facts is None or not self.facts.offline_bytes:
            return 0
        plugged = sum(d.size_bytes for d in self.dimms) + self.virtio_mem.current_bytes
        return min(self.facts.offline_bytes, plugged)

    def followed_bytes(self, now: float) -> tuple[int, int]:
        """The lowest and the highest of the targets of ours that its balloon may be following."""
        sizes = [size for _, size in self._still_followed(now)] or [self.entitled_bytes]
        return min(sizes), max(sizes)

    def _still_followed(self, now: float) -> tuple[tuple[float, int], ...]:
        replaced = sum(now - since > SETTLING for since, _ in self.followed)
        return self.followed[max(0, replaced - 1) :]

    def send_target(self, ticket: int, target_bytes: int, now: float) -> SetTarget:
        """The command for a new target; from now on the guest may come to hold that much."""
        if target_bytes > self.entitled_bytes:
            self.grown_at = now
        before = self._still_followed(now) or ((-math.inf, self.entitled_bytes),)
        self.followed = (*before, (now, target_bytes))
        self.target_bytes = target_bytes
        self.ceiling_bytes = max(self.ceiling_bytes, target_bytes)
        self.sent[ticket] = target_bytes
        self.sent_at = now
        self.resend = False
        return SetTarget(self.config.uuid, ticket, target_bytes)

    @property
    def assigned_bytes(self) -> int:
        """What the guest may use: the target it was given, less what is offline; virtio-mem comes on top."""
        return self.entitled_bytes - self.offline_bytes + self.virtio_mem.requested_bytes

    @property
    def entitled_bytes(self) -> int:
        """The target in force in QEMU's terms, or what the balloon holds while there is none."""
        if self.target_bytes is not None:
            return self.target_bytes
        return self.ram_bytes if self.phase is STARTING else self.actual_bytes

    @property
    def present_bytes(self) -> int:
        """Where the balloon is, in QEMU's terms, by the best evidence of this boot."""
        facts = self.facts
        if self.phase is STARTING and facts is not None and not self.moved:
            usable = facts.usable_bytes + self.offline_bytes - self.virtio_mem.current_bytes
            return min(self.ram_bytes, usable)
        return self.actual_bytes

    @property
    def growth_ceiling_bytes(self) -> int:
        """The most that this VM can be given without a restart."""
        config = self.config
        if config.growth is BALLOON:
            return min(config.limits.maximum_bytes, self.ram_bytes)
        if config.growth is VIRTIO_MEM:
            return min(config.limits.maximum_bytes, self.ram_bytes + config.virtio_mem_bytes)
        return config.limits.maximum_bytes

    def fresh(self, now: float, stale_seconds: float) -> bool:
        """The guest's facts are recent enough to shrink by."""
        return self.facts is not None and now - self.facts.at <= stale_seconds

    def resident_tolerance_bytes(self) -> int:
        """How far resident memory may lie above the claim without being a lie: the host's kernel may
        collapse a half-ballooned huge page into a whole one.
        """
        return max(64 * MIB, self.ram_bytes // 20)


class LeftPlug(NamedTuple):
    """A DIMM that was asked for: QEMU plugs it, whatever becomes of who asked."""

    size_bytes: int
    dimms: int
    """How many the VM had before."""


def plugs_under_way(vms: Mapping[str, Vm]) -> dict[str, LeftPlug]:
    """What the next controller must know of, by UUID: it could not find out by itself."""
    return {
        uuid: LeftPlug(vm.pending_plug_bytes, len(vm.dimms))
        for uuid, vm in vms.items()
        if vm.pending_plug_bytes
    }
