"""Everything the controller knows of one running VM, and what follows from it. Nothing here decides.

A VM is made of records. Each has verbs, and nobody else writes its fields: whoever looks for what can change
a figure finds it in the record's own file.
"""

import math
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from host_controller.core.interface import SetTarget
from host_controller.core.model import BALLOON, HOTADD, VIRTIO_MEM, Dimm, VmConfig
from host_controller.core.vm.balloon import Balloon
from host_controller.core.vm.dimms import Dimms
from host_controller.core.vm.evidence import Evidence
from host_controller.core.vm.growth import PaidPlug, Rest
from host_controller.core.vm.guest import Guest
from host_controller.core.vm.pauses import Pauses
from host_controller.core.vm.progress import Progress
from host_controller.core.vm.squeeze import Squeeze
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB


class Phase(StrEnum):
    """How far the claims of a guest's balloon can be relied upon. `phases.py` moves it."""

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


AGENT_SECONDS: Final = 10.0
"""From a guest's balloon driver to its agent, at most, where there is one."""


@dataclass(slots=True)
class Pace:
    """How often it is looked at."""

    seconds: float = 0.0
    look_at: float = -math.inf
    """When time alone may have changed something about it."""

    def look(self, seconds: float, at: float) -> bool:
        """Its balloon and memory every so many seconds; returns whether that is another pace than before."""
        changed = seconds != self.seconds
        self.seconds, self.look_at = seconds, at
        return changed


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
    reports_since: float = -math.inf
    """When its agent first reported after its kernel was seen to start; inf until then, and -inf where it
    ran before we did.
    """
    ram_bytes: int = field(init=False)
    """Boot RAM and DIMMs: what the balloon's figures count from."""
    sent_at: float = -math.inf
    """When its memory was last told to move, by whatever means."""
    grown_at: float = -math.inf
    """When it was last given more: an excess over what it wants is counted from here."""
    last_error: tuple[str, float] = ("", -math.inf)
    """What the last failed command said, and when it was told."""
    balloon: Balloon = field(default_factory=Balloon)
    dimms: Dimms = field(default_factory=Dimms)
    virtio_mem: VirtioMem = field(default_factory=VirtioMem)
    evidence: Evidence = field(default_factory=Evidence)
    guest: Guest = field(default_factory=Guest)
    plug: PaidPlug = field(default_factory=PaidPlug)
    plug_rest: Rest = field(default_factory=Rest)
    """Of growth, by whatever means."""
    unplug_rest: Rest = field(default_factory=Rest)
    pauses: Pauses = field(default_factory=Pauses)
    progress: Progress = field(default_factory=Progress)
    squeeze: Squeeze = field(default_factory=Squeeze)
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self.ram_bytes = self.config.boot_ram_bytes + self.dimms.bytes

    # --- verbs ---

    def configure(self, config: VmConfig) -> None:
        """Its definition was changed while it runs."""
        if config.limits != self.config.limits:
            self.unplug_rest = Rest()  # what it did not give before is asked for anew
        self.config = config
        self.ram_bytes = config.boot_ram_bytes + self.dimms.bytes

    def replug(self, plugged: tuple[Dimm, ...], now: float) -> tuple[int, int]:
        """Take in the whole list of its DIMMs; returns how much has come and how much has gone, bytes."""
        added, removed = self.dimms.change(plugged, now)
        self.ram_bytes = self.config.boot_ram_bytes + self.dimms.bytes
        if added:
            self.grown_at = now
        if added or removed:
            self.balloon.ram_changed(added - removed, added)
            self.progress.stands(self.balloon.actual_bytes, now)
        return added, removed

    def enter(self, phase: Phase, now: float) -> None:
        """Another phase begins."""
        self.phase, self.since = phase, now

    def starts(self, now: float) -> None:
        """Its kernel starts under our eyes."""
        self.booted_at = now
        self.reports_since = math.inf

    def reports(self, now: float) -> None:
        """Its agent reports."""
        if self.reports_since > now:
            self.reports_since = now

    def goes_on_booting(self, booted_at: float, reports_since: float | None, now: float) -> None:
        """It was seen to start before we, or this connection, came to be. None: its agent is awaited."""
        self.booted_at = min(booted_at, now)
        self.reports_since = math.inf if reports_since is None else min(reports_since, now)

    def reboot(self, now: float) -> None:
        """Its kernel starts again, from all of the RAM that it has."""
        self.enter(STARTING, now)
        self.starts(now)
        self.reset_at = now

    def memory_moves(self, now: float, *, grows: bool) -> None:
        """It is told to give memory or to take some: from here on the guest must be heard anew before it is
        shrunk.
        """
        self.sent_at = now
        if grows:
            self.grown_at = now

    def send_target(self, ticket: int, target_bytes: int, now: float) -> SetTarget:
        """The command for a new target; from now on the guest may come to hold that much."""
        entitled = self.entitled_bytes
        self.sent_at = now
        if target_bytes > entitled:
            self.grown_at = now
        self.balloon.send(ticket, target_bytes, entitled, now)
        return SetTarget(self.config.uuid, ticket, target_bytes)

    def is_news(self, kind_of_error: str, again_seconds: float, now: float) -> bool:
        """Whether people are to be told of a failed command: once in a while and kind."""
        last, at = self.last_error
        if kind_of_error == last and now - at < again_seconds:
            return False
        self.last_error = (kind_of_error, now)
        return True

    def remember(self, before: "Vm") -> None:
        """The same VM is seen again: what its operator said and what was seen of it still holds."""
        self.pauses.by_operator(before.pauses.paused)
        self.evidence.overhead_of(before.evidence)
        self.guest.noise_of(before.guest)

    def as_it_was(self) -> "Vm":
        """What `unsend` and `unask` need to know later: a copy of what a decision may change."""
        return replace(self, balloon=copy(self.balloon), virtio_mem=deepcopy(self.virtio_mem))

    def unsend(self, ticket: int, before: "Vm") -> None:
        """That target was never sent (a dry run)."""
        self.balloon.unsend(ticket, before.balloon)
        self.sent_at = before.sent_at

    def unask(self, before: "Vm") -> None:
        """That operation was never begun (a dry run)."""
        self.plug.settle()
        self.virtio_mem = before.virtio_mem

    # --- what follows ---

    @property
    def name(self) -> str:
        """For people."""
        return self.config.name

    def has_agent(self, now: float, stale_seconds: float) -> bool:
        """Its agent reported lately; else balloon statistics stand in for it."""
        return now - self.guest.reported_at <= stale_seconds

    def fresh(self, now: float, stale_seconds: float) -> bool:
        """The guest's facts are recent enough to shrink by."""
        facts = self.guest.facts
        return facts is not None and now - facts.at <= stale_seconds

    @property
    def offline_bytes(self) -> int:
        """Plugged and not usable by the guest, as far as is known."""
        facts = self.guest.facts
        if facts is None or not facts.offline_bytes:
            return 0
        return min(facts.offline_bytes, self.dimms.bytes + self.virtio_mem.current_bytes)

    @property
    def assigned_bytes(self) -> int:
        """What the guest may use: the target it was given, less what is offline; virtio-mem comes on top."""
        return self.entitled_bytes - self.offline_bytes + self.virtio_mem.requested_bytes

    @property
    def entitled_bytes(self) -> int:
        """The target in force in QEMU's terms, or what the balloon holds while there is none."""
        target = self.balloon.target_bytes
        if target is not None:
            return target
        return self.ram_bytes if self.phase is STARTING else self.balloon.actual_bytes

    @property
    def present_bytes(self) -> int:
        """Where the balloon is, in QEMU's terms, by the best evidence of this boot."""
        balloon = self.balloon
        if self.phase is STARTING and not balloon.moved and (facts := self.guest.facts) is not None:
            usable = facts.usable_bytes + self.offline_bytes - self.virtio_mem.current_bytes
            return min(self.ram_bytes, usable)
        return balloon.actual_bytes

    def followed_bytes(self, now: float) -> tuple[int, int]:
        """The lowest and the highest of the targets of ours that its balloon may be following."""
        sizes = [size for _, size in self.balloon.still_followed(now)] or [self.entitled_bytes]
        return min(sizes), max(sizes)

    @property
    def growth_ceiling_bytes(self) -> int:
        """The most that this VM can be given without a restart."""
        config, most = self.config, self.ram_bytes
        maximum = config.limits.maximum_bytes
        if config.growth is HOTADD:
            return maximum
        if config.growth is VIRTIO_MEM:
            most += config.virtio_mem_bytes
        return most if most < maximum else maximum

    def starts_small(self, now: float, settle_seconds: float) -> bool:
        """It has just started with less than startup as RAM, and its agent can bring the rest online.

        Statistics come before the agent: what is plugged by their word stays offline (fact: boot-ram-alone).
        """
        return 0.0 <= now - self.reports_since < settle_seconds and self._boots_small()

    def awaits_agent(self, now: float) -> bool:
        """Its balloon's driver has just come up, and its agent has not reported yet.

        What is plugged before that stays offline where nobody else brings it online (fact: boot-ram-alone).
        """
        return self.reports_since > now and now - self.since < AGENT_SECONDS

    def awaits_startup(self, now: float, settle_seconds: float) -> bool:
        """It boots with less than startup as RAM, and its agent has not reported yet.

        Whether an agent comes nobody knows: it is not waited for longer than a guest takes to settle.
        """
        waits = self.reports_since > now and now - self.booted_at < settle_seconds
        return waits and self._boots_small()

    def _boots_small(self) -> bool:
        config = self.config
        return config.growth is VIRTIO_MEM and self.ram_bytes < config.limits.startup_bytes

    @property
    def boot_target_bytes(self) -> int:
        """The target that its kernel is to start with: the hypervisor's own when it starts the VM."""
        return self.config.limits.startup_bytes if self.config.growth is BALLOON else self.ram_bytes

    def resident_tolerance_bytes(self) -> int:
        """How far resident memory may lie above the claim without being a lie: the host's kernel may
        collapse a half-ballooned huge page into a whole one.
        """
        return max(64 * MIB, self.ram_bytes // 20)
