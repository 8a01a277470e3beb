"""What the controller was shown of each VM: no controller can know more, and none is judged by more.

Taken down from the same events, with no code of the controller's. Where a guest deceives, what counts is
what the host was shown.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.model import OFF, PAUSED, RunState
from host_controller.simulator.behaviours import Speech
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.hypervisor import SimulatedHypervisor
from host_controller.units import MIB

LIE_SECONDS: Final = 15.0
"""For so long a contradiction between claim and resident memory may go unpunished
(rule: claims-are-checked)."""
SLACK_BYTES: Final = 1 * MIB
"""Page sizes, KiB and roundings."""


@dataclass(slots=True)
class Seen:
    """What the controller was shown of one VM. Sizes are bytes."""

    informed_at: float = float("-inf")
    """When something fresh about the guest came in last."""
    deceived: bool = False
    """The last reading was no truth, and nobody can know better: whoever deceives harms itself."""
    offline: int = 0
    """By its agent's last word."""
    usable: float = 0.0
    """By the last reading."""
    squeezed_at: float = float("-inf")
    """When it was last told to go below what it uses."""
    spoke_at: float = float("-inf")
    """When its agent reported last; the balloon's statistics count only without it."""
    stamp: int = -1
    least_usable: float = 0.0
    """usable - available of the last reading: below it the guest's kernel would be at its watermarks."""
    spare: float = 0.0
    """available - floor of that reading."""
    free: float = 0.0
    """MemFree and what can be dropped by the agent's last word, since statistics do not tell: 0 where they
    tell that the guest has less than it had then."""
    free_when_spoke: float = 0.0
    spare_when_spoke: float = 0.0
    """The two by its agent's last word."""
    swap_free: int = 0
    """On its disks, by its agent's last word."""
    actual: int = 0
    held: float = 0.0
    """What the driver of its present kernel last said to hold, whatever has come of it since."""
    held_at: float = float("-inf")
    held_before: float = 0.0
    """What it had said before `held_at`: what is said in the instant of a decision may come after it."""
    booting: bool = True
    """Its present kernel has said nothing yet, so all that can be told it is what it boots with."""
    target: int = 0
    """The last target of which the controller heard that it was carried out."""
    targets: dict[int, int] = field(default_factory=dict)
    """Those of which it has heard nothing yet, by ticket."""
    may_be_in_force: int = 0
    """The largest target of which nobody knows whether it still is; 0: all is known."""
    found: bool = False
    """It was found running and has been told nothing since: to be told what it has is what a takeover
    demands (rule: survives-a-kill)."""
    device: int | None = None
    """The most that its virtio-mem device could come to before somebody else asked for a size that nobody has
    told yet; None: all is told."""
    asked: int = 0
    """What that device was last asked for, by all that was told."""
    told_asked: int = 0
    """The same by QEMU's word alone; 0 since the controller has asked for a size."""
    told_plugged: int = 0
    """What is plugged there, by QEMU's last word."""
    left_over: tuple[hv.Command, ...] = ()
    """Commands of a controller before this one that were under way when this one was told of the VM, and of
    which it cannot know."""
    lie_since: float | None = None
    reset_at: float = float("-inf")
    stopped_at: float | None = None
    """When a controller stopped it; None once it ran again."""


@dataclass(slots=True)
class Shown:
    """Of all VMs of a hypervisor. `happened` is told what befell which VM that was given nothing."""

    hypervisor: SimulatedHypervisor
    happened: Callable[[str, str], None]
    _seen: defaultdict[str, Seen] = field(default_factory=lambda: defaultdict(Seen))

    def of(self, uuid: str) -> Seen:
        """What was shown of this VM; what nobody has shown yet is at its default."""
        return self._seen[uuid]

    def delivered(self, event: hv.HypervisorEvent) -> None:
        """Take down what the controller gets to know."""
        now = self.hypervisor.agenda.now
        match event:
            case hv.VmAppeared():
                stopped_at, untold = self.of(event.vm).stopped_at, self.of(event.vm).device
                self._seen[event.vm] = Seen()
                if untold is not None:
                    self.happened("somebody else asked", event.vm)
                seen = self._told_balloon(event.vm, event.actual_bytes)
                seen.asked, seen.told_plugged = event.virtio_mem_requested_bytes, event.virtio_mem_bytes
                seen.left_over = tuple(self.hypervisor.pending(event.vm))
                stands = event.state is PAUSED or self._is_to_be_stopped(event.vm)
                seen.stopped_at = now if event.stopped_after_reset else stopped_at if stands else None
                seen.informed_at = now if event.booted else float("-inf")
                seen.found = not event.booted
            case hv.GuestSpoke(untrusted_message=wire.Report() as report):
                self._reported(event.vm, report)
            case hv.BalloonSampled():
                self._sampled(event)
            case hv.VmReset():
                seen = self.of(event.vm)
                seen.booting, seen.stamp, seen.informed_at, seen.held = True, -1, now, 0.0
                seen.reset_at, seen.told_plugged = now, 0
            case hv.VmStateChanged(state=RunState.RUNNING) if not self._is_to_be_stopped(event.vm):
                self.of(event.vm).stopped_at = None  # whoever stops it from now on is not ours
            case hv.CommandDone():
                self._answered(event)
            case hv.BalloonChanged():
                self._told_balloon(event.vm, event.actual_bytes)
            case hv.ResidentSampled():
                self._weigh(event)
            case hv.VirtioMemChanged():
                self.of(event.vm).told_plugged = event.current_bytes
                if event.requested_bytes is not None:
                    self._told_device(event.vm, event.requested_bytes)
            case _:
                pass

    def vm(self, uuid: str) -> SimulatedVm | None:
        """The VM, unless it is off."""
        vm = self.hypervisor.find(uuid)
        return vm if vm is not None and vm.state is not OFF else None

    def balloon(self, vm: SimulatedVm) -> float:
        """Bytes that the balloon holds, or was last said to hold where a guest takes back or lies."""
        if not vm.balloon.alive:
            return 0.0
        held = self.of(vm.uuid).held
        if held <= vm.memory.ballooned:
            return vm.memory.ballooned
        return 0.0 if self.caught(vm) else held

    def caught(self, vm: SimulatedVm) -> bool:
        """For long the host has seen more resident memory than the guest claims to have."""
        since = self.of(vm.uuid).lie_since
        return since is not None and self.hypervisor.agenda.now - since > LIE_SECONDS

    def is_left_over(self, command: hv.Command) -> bool:
        """Whether a controller before this one gave it."""
        # Each controller counts its tickets anew, so that a command of this one may equal one of that one's.
        return any(command is one for one in self.of(command.vm).left_over)

    def is_yet_to_be_asked(self, uuid: str) -> bool:
        """Whether QEMU has not heard yet of a size that a controller before this one asked its device for."""
        pending = self.hypervisor.pending(uuid)
        return any(isinstance(one, hv.ResizeVirtioMem) and self.is_left_over(one) for one in pending)

    def _is_to_be_stopped(self, uuid: str) -> bool:
        """A controller's command to stop it is yet to be carried out."""
        return any(isinstance(command, hv.Suspend) for command in self.hypervisor.pending(uuid))

    # --- taken down ---------------------------------------------------------------------------------

    def _reported(self, uuid: str, report: wire.Report) -> None:
        self._informed(uuid, report.total_bytes, report.available_bytes, report.floor_bytes)
        seen, vm = self.of(uuid), self.vm(uuid)
        seen.free = seen.free_when_spoke = report.free_bytes + report.reclaimable_bytes
        seen.spare_when_spoke = seen.spare
        seen.spoke_at, seen.offline = self.hypervisor.agenda.now, report.offline_bytes
        seen.swap_free = report.swap_disk_free_bytes
        seen.deceived = vm is not None and vm.behaviour.speech in (Speech.GENEROUS, Speech.STALE)

    def _sampled(self, event: hv.BalloonSampled) -> None:
        seen, stats = self._told_balloon(event.vm, event.actual_bytes), event.stats
        if stats is None or stats.updated == seen.stamp:
            return
        seen.stamp = stats.updated
        if self.hypervisor.agenda.now - seen.spoke_at <= 1.0:
            return
        vm = self.vm(event.vm)
        counted = int(vm.memory.ballooned) if vm is not None and vm.behaviour.counts_balloon else 0
        self._informed(event.vm, stats.total_bytes - counted, stats.available_bytes, 0)
        seen.free = seen.free_when_spoke if stats.available_bytes >= seen.spare_when_spoke else 0.0
        # They do not say what is ballooned: that only `actual` does.
        seen.deceived = vm is not None and vm.behaviour.claims_bytes > 0

    def _informed(self, uuid: str, total: int, available: int, floor: int) -> None:
        vm = self.vm(uuid)
        if vm is None:
            return
        seen = self.of(uuid)
        seen.booting = False
        seen.free = 0.0
        seen.informed_at = self.hypervisor.agenda.now
        usable = total + vm.memory.reserved
        seen.spare = max(0.0, float(available - floor))
        seen.least_usable = float(usable - available)
        seen.usable = float(usable)

    def _told_balloon(self, uuid: str, actual: int) -> Seen:
        """The driver's word; with more than anybody gave it, it has taken memory back."""
        seen, vm, now = self.of(uuid), self.vm(uuid), self.hypervisor.agenda.now
        if vm is not None and vm.balloon.alive:
            given = max(vm.ram_bytes - int(vm.balloon.wanted), vm.ram_bytes - int(seen.held))
            if actual > given + SLACK_BYTES:
                self.happened("guest takes back", uuid)
            if seen.held_at != now:
                seen.held_at, seen.held_before = now, seen.held
            seen.held = float(vm.ram_bytes - actual)
        seen.actual = actual
        return seen

    def _answered(self, event: hv.CommandDone) -> None:
        """Commands to one VM are carried out in order, so the last one that was is in force."""
        seen = self.of(event.vm)
        target = seen.targets.pop(event.ticket, None)
        if target is None:
            return
        if event.error is None:
            seen.target = target
            if not seen.targets:
                seen.may_be_in_force = 0
        elif event.timed_out:
            seen.may_be_in_force = max(seen.may_be_in_force, seen.target, target)

    def _told_device(self, uuid: str, requested: int) -> None:
        """What was asked for, as it is by now or as it was before somebody else asked."""
        vm, seen = self.vm(uuid), self.of(uuid)
        seen.asked = seen.told_asked = requested
        if seen.device is None or vm is None or requested != vm.virtio_mem.requested:
            return
        # What a controller before this one has asked for, and QEMU has not heard of yet, is untold still.
        told = max(seen.device, vm.virtio_mem.current, requested)
        seen.device = told if self.is_yet_to_be_asked(uuid) else None
        self.happened("somebody else asked", uuid)

    def _weigh(self, event: hv.ResidentSampled) -> None:
        seen, vm = self.of(event.vm), self.vm(event.vm)
        # The balloon's `actual` does not count virtio-mem. What is plugged there is QEMU's word, no guest's:
        # without it, whoever used its device looked like a liar, and its balloon then counted for nothing.
        plugged = vm.virtio_mem.current if vm is not None else 0
        if vm is None or event.guest_bytes <= seen.actual + plugged + max(64 * MIB, vm.ram_bytes // 20):
            seen.lie_since = None
        elif seen.lie_since is None:
            seen.lie_since = self.hypervisor.agenda.now
