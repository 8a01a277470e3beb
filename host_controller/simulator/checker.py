"""Watches that the rules of the design hold, by what the simulated guests really hold and may take.

It shares no code with books, phases or policy: it knows the hypervisor's commands and events, and
looks into the guests. Where a guest deceives everybody, what counts is what the host was shown: no
controller can know more. Rules have their names of docs/rules.md, where they are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.model import PAUSED, RUNNING
from host_controller.simulator.checker_sizes import Sizes
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.hypervisor import SimulatedHypervisor
from host_controller.simulator.shown import SLACK_BYTES, Shown
from host_controller.units import MIB, format_size

STANDSTILL_SECONDS: Final = 25.0
"""For so long a controller that is there may keep a VM from running after a reset, commands included."""
WORK_OFF_SECONDS: Final = 180.0
"""An overdraft is worked off before guests that are well have had enough to spare for so long
(rule: overdraft-named).

Time in which they had not does not count: what demand holds nobody can take, and where demand falls after
long, the controller has only just been told. Nor does the time begin anew where they have less to spare for a
moment.
"""
SETTLED_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that was broken."""

    at: float
    rule: str
    vm: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:9.2f} s  rule {self.rule}  {self.vm}: {self.text}"


@dataclass(slots=True)
class Checker:
    """A witness of one world. `violations` is what it found, `overdraft_seconds` what was excused."""

    hypervisor: SimulatedHypervisor
    capacity_bytes: int
    reserved_bytes: int = 0
    violations: list[Violation] = field(default_factory=list)
    overdraft_seconds: float = 0.0
    peak_bytes: int = 0
    ignored: frozenset[str] = frozenset()
    """Rules whose violations are not recorded, to find what lies behind them."""
    shown: Shown = field(init=False)
    """What the controller can know."""
    _sizes: Sizes = field(init=False)
    _cause: str | None = None
    _overdrawn_since: float | None = None
    _could_spare_seconds: float = 0.0
    """Since the last named event, with enough to spare for what was over."""

    def __post_init__(self) -> None:
        self.shown = Shown(self.hypervisor, self.happened)
        self._sizes = Sizes(self.hypervisor, self.shown, self._found)

    def submitted(self, command: hv.Command) -> None:
        """Judge a command before it has any effect."""
        vm = self.shown.vm(command.vm)
        if vm is None:
            return
        self._check_hands_off(vm, command)
        self._check_standstill(vm, command)
        if isinstance(command, hv.SendToGuest | hv.SetPace | hv.Suspend | hv.Resume):
            return
        # By what the controller had been shown: that a balloon has moved on since, it could not know.
        seen = self.shown.of(vm.uuid)
        said = [seen.held, seen.held_before] if seen.held_at == self.hypervisor.agenda.now else [seen.held]
        shown = min(said)
        vm.advance()
        pending = self.hypervisor.pending(vm.uuid)
        self._check_overlap(vm, command, pending)
        shown = min(shown, self.shown.balloon(vm))
        before = self.exposure(vm, pending, shown)
        after = self.exposure(vm, [*pending, command], shown)
        if after > before and not self._confirms(vm, command):
            self._check_payment(vm, command, after - before)
        if isinstance(command, hv.SetTarget):
            seen.targets[command.ticket] = command.target_bytes
            self._sizes.target(vm, command.target_bytes, pending, vm.ram_bytes - int(max(said)))
        elif isinstance(command, hv.AttachDimm):
            self._sizes.plug(vm, command.size_bytes, may_make_room=True)
        elif isinstance(command, hv.ResizeVirtioMem):
            self._sizes.resize(vm, command.requested_bytes, pending)
            seen.asked, seen.told_asked = command.requested_bytes, 0
            if seen.device is not None:
                # Paid, it may come, whatever others have asked for and nobody has told.
                seen.device = max(seen.device, command.requested_bytes)

    def delivered(self, event: hv.HypervisorEvent) -> None:
        """Take down what the controller gets to know."""
        self.shown.delivered(event)
        if not isinstance(event, hv.VmAppeared) or not self.shown.is_yet_to_be_asked(event.vm):
            return
        if (vm := self.shown.vm(event.vm)) is not None:
            self.meddled(vm)  # as somebody else would: what it asked for comes when nobody is told of it

    def happened(self, kind: str, vm: str) -> None:
        """A named event: from now on an overdraft has a cause."""
        self._cause, self._could_spare_seconds = kind, 0.0
        if kind == "reset":
            self.shown.of(vm).held = 0.0  # also where there is nobody who could be shown it

    def meddled(self, vm: SimulatedVm) -> None:
        """Somebody else is about to ask its virtio-mem device for a size: it counts when it is told."""
        seen = self.shown.of(vm.uuid)
        if seen.device is None:
            seen.device = self._device(vm, self.hypervisor.pending(vm.uuid))

    def look(self, seconds: float) -> None:
        """Judge the state of the world; `seconds` since the last look."""
        now = self.hypervisor.agenda.now
        running = self.hypervisor.running()
        for vm in running:
            vm.advance()
            if self.shown.caught(vm):
                self.happened("guest lies", vm.uuid)
            elif self._cause is None and self._takes_back(vm):
                self.happened("guest takes back", vm.uuid)
            elif self._cause is None and self.shown.of(vm.uuid).device is not None:
                self.happened("somebody else asked", vm.uuid)  # once or more, and nobody was told
            self._check_stands_still(vm, now)
        total = self.total()
        self.peak_bytes = max(self.peak_bytes, total)
        over = total + self.reserved_bytes - self.capacity_bytes
        if over <= 0:
            self._cause = self._overdrawn_since = None
            self._could_spare_seconds = 0.0
            return
        self.overdraft_seconds += seconds
        if self._cause is None:
            self._found(
                "within-capacity",
                "host",
                f"{format_size(over)} over capacity, and no event that would excuse it",
            )
            self._cause = "reported"
        if self._overdrawn_since is None:
            self._overdrawn_since = now
        if over <= 0.8 * self._spare(running):
            self._could_spare_seconds += seconds
        if self._could_spare_seconds > WORK_OFF_SECONDS:
            long = f"{now - self._overdrawn_since:.0f} s, and for {self._could_spare_seconds:.0f} s of it"
            self._found(
                "overdraft-named",
                "host",
                f"{format_size(over)} over capacity for {long} guests could spare it",
            )
            self._could_spare_seconds = 0.0

    def exposure(
        self, vm: SimulatedVm, pending: Sequence[hv.Command] | None = None, shown: float | None = None
    ) -> int:
        """The most that a VM can come to hold if nobody says anything more to it, bytes.

        shown: what its balloon is taken to hold.
        """
        commands = self.hypervisor.pending(vm.uuid) if pending is None else pending
        return max(self._given(vm, commands, shown), self._held(vm)) + vm.spec.overhead_bytes

    def _takes_back(self, vm: SimulatedVm) -> bool:
        """Whether it holds more than anybody gave it, which its balloon has not told yet."""
        return self._held(vm) > self._given(vm, self.hypervisor.pending(vm.uuid))

    def _held(self, vm: SimulatedVm) -> int:
        """What is resident of it; 0 while others have asked its device for what nobody has told."""
        return vm.resident_bytes if self.shown.of(vm.uuid).device is None else 0

    def _given(self, vm: SimulatedVm, commands: Sequence[hv.Command], shown: float | None = None) -> int:
        ram = vm.ram_bytes
        balloon = min(self.shown.balloon(vm) if shown is None else shown, vm.balloon.wanted)
        for command in commands:
            if isinstance(command, hv.SetTarget):
                balloon = min(balloon, max(0.0, ram - command.target_bytes))
            elif isinstance(command, hv.AttachDimm):
                ram += command.size_bytes
        guest = ram if vm.config.pinned else ram - int(balloon)
        return guest + self._device(vm, commands)

    def _device(self, vm: SimulatedVm, commands: Sequence[hv.Command]) -> int:
        """The most that its virtio-mem device can come to, by what was told of others' requests."""
        asked = [c.requested_bytes for c in commands if isinstance(c, hv.ResizeVirtioMem)]
        # The driver closes the gap between what is plugged and what is requested whenever it can.
        real, told = max(vm.virtio_mem.current, vm.virtio_mem.requested), self.shown.of(vm.uuid).device
        return max(real if told is None else min(real, told), *asked, 0)

    def total(self) -> int:
        """The sum of exposures, bytes."""
        return sum(self.exposure(vm) for vm in self.hypervisor.running())

    def _confirms(self, vm: SimulatedVm, command: hv.Command) -> bool:
        """A takeover says what the guest was last seen to have; its balloon may still be moving down. And a
        device may be asked for what it had when QEMU told last: since then somebody else, or a command that
        nobody has waited for any more, may have asked for less, and it may have given. So may a balloon.
        """
        seen = self.shown.of(vm.uuid)
        if isinstance(command, hv.ResizeVirtioMem):
            return command.requested_bytes <= max(seen.device or 0, seen.told_asked, seen.told_plugged)
        if not isinstance(command, hv.SetTarget):
            return False
        if command.target_bytes <= seen.may_be_in_force:
            return True
        if not seen.found:
            return False
        seen.found = False
        return command.target_bytes <= seen.actual

    def _check_payment(self, vm: SimulatedVm, command: hv.Command, more: int) -> None:
        for other in self.hypervisor.running():
            other.advance()
        after = self.total() + more
        over = after + self.reserved_bytes - self.capacity_bytes
        if over > SLACK_BYTES:
            self._found(
                "within-capacity",
                vm.spec.name,
                f"{_short(command)} makes the sum exceed capacity by {format_size(over)}",
            )

    def _check_hands_off(self, vm: SimulatedVm, command: hv.Command) -> None:
        match command:
            case hv.SetPace() | hv.Suspend() | hv.Resume():
                return
            case hv.SendToGuest(message=wire.Welcome() | wire.Ping() | wire.WhoHolds()):
                return
        if vm.job is not None:
            self._found("hands off", vm.spec.name, f"{_short(command)} with {vm.job} in progress")
        elif vm.state is PAUSED:
            self._found("hands off", vm.spec.name, f"{_short(command)} while its vCPUs stand still")

    def _check_standstill(self, vm: SimulatedVm, command: hv.Command) -> None:
        """Only what was just reset is stopped, and only what we have stopped is let run."""
        now = self.hypervisor.agenda.now
        seen = self.shown.of(vm.uuid)
        if isinstance(command, hv.Suspend):
            if now - seen.reset_at > 1.0 or vm.state is not RUNNING:
                self._found("standstill", vm.spec.name, "stopped without having been reset")
            seen.stopped_at = now
        elif isinstance(command, hv.Resume) and seen.stopped_at is None:
            self._found("standstill", vm.spec.name, "let run by a controller that had not stopped it")

    def _check_stands_still(self, vm: SimulatedVm, now: float) -> None:
        seen = self.shown.of(vm.uuid)
        if seen.stopped_at is None:
            return
        if not self.hypervisor.is_connected or vm.job is not None or self.hypervisor.pending(vm.uuid):
            seen.stopped_at = max(seen.stopped_at, now - STANDSTILL_SECONDS + 5.0)
        elif vm.state is RUNNING:
            seen.stopped_at = None
        elif now - seen.stopped_at > STANDSTILL_SECONDS:
            self._found("standstill", vm.spec.name, "it was never let run again")
            seen.stopped_at = None

    def _check_overlap(self, vm: SimulatedVm, command: hv.Command, pending: Sequence[hv.Command]) -> None:
        for other in pending:
            if self.shown.is_left_over(other) or isinstance(other, hv.Resume):
                continue
            if isinstance(command, hv.ResizeVirtioMem) or isinstance(other, hv.ResizeVirtioMem):
                continue  # QEMU counts the balloon's target without that device
            if type(other) is not type(command) or not isinstance(command, hv.SetTarget):
                self._found(
                    "one at a time", vm.spec.name, f"{_short(command)} while {_short(other)} is under way"
                )

    def _spare(self, running: list[SimulatedVm]) -> int:
        """What guests that are well, truthful and settled could give up."""
        now = self.hypervisor.agenda.now
        spare = 0.0
        for vm in running:
            ideal = vm.behaviour.name == "ideal" and vm.up and vm.config.pinned is None
            if not ideal or vm.agent is None or now - vm.boot.up_at < SETTLED_SECONDS:
                continue
            memory, minimum = vm.memory, vm.config.limits.minimum_bytes
            floor = 2 * memory.high_mark + max(24 * MIB, memory.usable / 16)
            keeps = max(minimum, memory.usable - memory.available + floor)
            gives = max(0.0, memory.usable - keeps)
            if not (memory.stall_avg10 or memory.swap_leaves):
                # Less than half of its swap and of what its programs hold, while it reads nothing back.
                room = min(memory.swap_size - memory.swapped, memory.anon / 2) / 2 - 64 * MIB
                gives += max(0.0, min(room, keeps - minimum))
            # Of virtio-mem its kernel keeps what is its own, and no balloon takes the last of its RAM.
            reach = vm.ram_bytes - memory.ballooned - minimum + vm.virtio_mem.movable
            spare += min(gives, max(0.0, reach))
        return int(spare)

    def _found(self, rule: str, vm: str, text: str) -> None:
        if rule in self.ignored:
            return
        self.violations.append(Violation(self.hypervisor.agenda.now, rule, vm, text))


def _short(command: hv.Command) -> str:
    match command:
        case hv.SetTarget():
            return f"target {format_size(command.target_bytes)}"
        case hv.AttachDimm():
            return f"plug of {format_size(command.size_bytes)}"
        case hv.DetachDimm():
            return f"unplug of {command.alias}"
        case hv.SendToGuest():
            return f"{type(command.message).__name__} to the agent"
        case hv.ResizeVirtioMem():
            return f"virtio-mem of {format_size(command.requested_bytes)}"
        case _:
            return type(command).__name__
