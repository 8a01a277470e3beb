"""Watches that the rules of the design hold, by what the simulated guests really hold and may take.

It shares no code with books, phases or policy: it knows the hypervisor's commands and events, and
looks into the guests. Where a guest deceives everybody, what counts is what the host was shown: no
controller can know more. Rules are numbered as in the architecture's list of rules never broken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.model import MEMORY_BLOCK_BYTES, RunState
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.hypervisor import SimulatedHypervisor
from host_controller.simulator.shown import SLACK_BYTES, Seen, Shown
from host_controller.units import GIB, MIB, format_size, round_up

STALE_SECONDS: Final = 16.0
"""Three missed heartbeats and a second for the decision (rule: fresh-or-still)."""
INFLATION_BYTES: Final = 1.1 * GIB
"""One second of the fastest balloon there is here (rule: small-steps)."""
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
MARGIN_BYTES: Final = 16 * MIB
"""What a shrinking command leaves available at the least (rule: small-steps)."""
SQUEEZE_SHARE: Final = 32
"""Of what a guest has: so much that it uses one command may take, where its swap has room
(rule: small-steps)."""
SQUEEZE_SECONDS: Final = 0.9
"""Between two such commands."""
SWAP_KEPT_BYTES: Final = 63 * MIB
"""Of a guest's free swap that is left to it."""
PAGE_BYTES: Final = 4096


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
    _inherited: set[int] = field(default_factory=set)
    """id() of commands under way that a controller before this one gave: no other can know of them."""
    _cause: str | None = None
    _overdrawn_since: float | None = None
    _could_spare_seconds: float = 0.0
    """Since the last named event, with enough to spare for what was over."""

    def __post_init__(self) -> None:
        self.shown = Shown(self.hypervisor, self.happened)

    # --- as a witness -------------------------------------------------------------------------------

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
            self._check_target(vm, command.target_bytes, pending, vm.ram_bytes - int(max(said)))
        elif isinstance(command, hv.AttachDimm):
            self._check_plug(vm, command.size_bytes, may_make_room=True)
        elif isinstance(command, hv.ResizeVirtioMem):
            self._check_resize(vm, command.requested_bytes, pending)

    def delivered(self, event: hv.HypervisorEvent) -> None:
        """Take down what the controller gets to know."""
        self.shown.delivered(event)
        if isinstance(event, hv.VmAppeared):
            self._inherited.update(id(command) for command in self.hypervisor.pending(event.vm))

    def happened(self, kind: str, vm: str) -> None:
        """A named event: from now on an overdraft has a cause."""
        self._cause, self._could_spare_seconds = kind, 0.0

    def meddled(self, vm: SimulatedVm) -> None:
        """Somebody else is about to ask its virtio-mem device for a size: it counts when it is told."""
        seen = self.shown.of(vm.uuid)
        if seen.device is None:
            seen.device = self._device(vm, self.hypervisor.pending(vm.uuid))

    # --- every second -------------------------------------------------------------------------------

    def look(self, seconds: float) -> None:
        """Judge the state of the world; `seconds` since the last look."""
        now = self.hypervisor.agenda.now
        running = self.hypervisor.running()
        for vm in running:
            vm.advance()
            if self.shown.caught(vm):
                self.happened("guest lies", vm.uuid)
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
            self._found("1a", "host", f"{format_size(over)} over capacity, and no event that would excuse it")
            self._cause = "reported"
        if self._overdrawn_since is None:
            self._overdrawn_since = now
        if over <= 0.8 * self._spare(running):
            self._could_spare_seconds += seconds
        if self._could_spare_seconds > WORK_OFF_SECONDS:
            long = f"{now - self._overdrawn_since:.0f} s, and for {self._could_spare_seconds:.0f} s of it"
            self._found("1b", "host", f"{format_size(over)} over capacity for {long} guests could spare it")
            self._could_spare_seconds = 0.0

    def exposure(
        self, vm: SimulatedVm, pending: Sequence[hv.Command] | None = None, shown: float | None = None
    ) -> int:
        """The most that a VM can come to hold if nobody says anything more to it, bytes.

        shown: what its balloon is taken to hold.
        """
        commands = self.hypervisor.pending(vm.uuid) if pending is None else pending
        ram = vm.ram_bytes
        balloon = min(self.shown.balloon(vm) if shown is None else shown, vm.balloon.wanted)
        for command in commands:
            if isinstance(command, hv.SetTarget):
                balloon = min(balloon, max(0.0, ram - command.target_bytes))
            elif isinstance(command, hv.AttachDimm):
                ram += command.size_bytes
        device = self._device(vm, commands)
        guest = ram if vm.config.pinned else ram - int(balloon)
        resident = vm.resident_bytes if self.shown.of(vm.uuid).device is None else 0
        return max(guest + device, resident) + vm.spec.overhead_bytes

    def _device(self, vm: SimulatedVm, commands: Sequence[hv.Command]) -> int:
        """The most that its virtio-mem device can come to, by what was told of others' requests."""
        asked = [c.requested_bytes for c in commands if isinstance(c, hv.ResizeVirtioMem)]
        # The driver closes the gap between what is plugged and what is requested whenever it can.
        real, told = max(vm.virtio_mem.current, vm.virtio_mem.requested), self.shown.of(vm.uuid).device
        return max(real if told is None else min(real, told), *asked, 0)

    def total(self) -> int:
        """Σ exposure."""
        return sum(self.exposure(vm) for vm in self.hypervisor.running())

    # --- the rules ----------------------------------------------------------------------------------

    def _confirms(self, vm: SimulatedVm, command: hv.Command) -> bool:
        """A takeover says what the guest was last seen to have; its balloon may still be moving down."""
        seen = self.shown.of(vm.uuid)
        if not isinstance(command, hv.SetTarget) or not seen.found:
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
                "1a", vm.spec.name, f"{_short(command)} makes the sum exceed capacity by {format_size(over)}"
            )

    def _check_hands_off(self, vm: SimulatedVm, command: hv.Command) -> None:
        match command:
            case hv.SetPace() | hv.Suspend() | hv.Resume():
                return
            case hv.SendToGuest(message=wire.Welcome() | wire.Ping() | wire.WhoHolds()):
                return
        if vm.job is not None:
            self._found("hands off", vm.spec.name, f"{_short(command)} with {vm.job} in progress")
        elif vm.state is RunState.PAUSED:
            self._found("hands off", vm.spec.name, f"{_short(command)} while its vCPUs stand still")

    def _check_standstill(self, vm: SimulatedVm, command: hv.Command) -> None:
        """Only what was just reset is stopped, and only what we have stopped is let run."""
        now = self.hypervisor.agenda.now
        seen = self.shown.of(vm.uuid)
        if isinstance(command, hv.Suspend):
            if now - seen.reset_at > 1.0 or vm.state is not RunState.RUNNING:
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
        elif vm.state is RunState.RUNNING:
            seen.stopped_at = None
        elif now - seen.stopped_at > STANDSTILL_SECONDS:
            self._found("standstill", vm.spec.name, "it was never let run again")
            seen.stopped_at = None

    def _check_overlap(self, vm: SimulatedVm, command: hv.Command, pending: Sequence[hv.Command]) -> None:
        for other in pending:
            if id(other) in self._inherited or isinstance(other, hv.Resume):
                continue
            if isinstance(command, hv.ResizeVirtioMem) or isinstance(other, hv.ResizeVirtioMem):
                continue  # QEMU counts the balloon's target without that device
            if type(other) is not type(command) or not isinstance(command, hv.SetTarget):
                self._found("6", vm.spec.name, f"{_short(command)} while {_short(other)} is under way")

    def _check_target(
        self, vm: SimulatedVm, target: int, pending: Sequence[hv.Command], shown_actual: int
    ) -> None:
        """Nobody is told to be smaller than he is, by what his driver had said, without having it to spare.

        To be told to stay there, while an overdraft keeps everybody from growing, is no shrinking
        (rule: overdraft-named):
        what a driver gave back since and has not told yet, nobody could know.
        """
        if not vm.up:
            return
        in_force = _last_target(vm, pending)
        seen = self.shown.of(vm.uuid)
        offline = min(vm.offline_bytes, seen.offline) if seen.deceived else vm.offline_bytes
        usable = target - offline + vm.virtio_mem.current
        limits = vm.config.limits
        # One whose maximum was lowered may be above it until it has given memory up, and a DIMM that is to
        # leave must find room for what lies in it.
        dimms = [one.dimm.size_bytes for one in vm.slots.dimms] if vm.ram_bytes > limits.maximum_bytes else []
        most = max(limits.maximum_bytes, in_force - offline + vm.virtio_mem.current) + max(dimms, default=0)
        if usable > most + SLACK_BYTES:
            self._found("3", vm.spec.name, f"a target of {format_size(usable)} is above maximum")
        if target >= min(in_force, vm.actual_bytes, shown_actual) - SLACK_BYTES:
            return
        step = min(seen.actual, vm.actual_bytes) - target
        self._check_shrinking(vm, usable - self._leaving(vm, pending), step)

    def _check_resize(self, vm: SimulatedVm, requested: int, pending: Sequence[hv.Command]) -> None:
        device, told = vm.virtio_mem, self.shown.of(vm.uuid).device
        there = max(device.requested, device.current, told or 0)
        more = requested - there
        if vm.ram_bytes + requested > vm.config.limits.maximum_bytes + SLACK_BYTES and more > 0:
            self._found("3", vm.spec.name, f"virtio-mem of {format_size(requested)} is above maximum")
        # A block of which something is plugged has its page structures.
        whole = round_up(requested, MEMORY_BLOCK_BYTES) - round_up(there, MEMORY_BLOCK_BYTES)
        if more > 0 and whole > 0:
            self._check_plug(vm, whole, may_make_room=False)
        lost = (device.online if told is None else min(device.online, told)) - requested
        if vm.up and requested < device.requested and lost > 0:
            # What its balloon has been told to take and has not taken yet goes, too.
            ahead = max(0, vm.actual_bytes - _last_target(vm, self._knowable(pending)))
            self._check_shrinking(vm, int(vm.memory.usable) - lost - ahead, lost)

    def _leaving(self, vm: SimulatedVm, pending: Sequence[hv.Command]) -> int:
        """What is online of its virtio-mem and was asked for back, by all that was told."""
        if self.shown.of(vm.uuid).device is not None:
            return 0
        requested = vm.virtio_mem.requested
        for command in self._knowable(pending):
            if isinstance(command, hv.ResizeVirtioMem):
                requested = command.requested_bytes
        return max(0, vm.virtio_mem.online - requested)

    def _knowable(self, pending: Sequence[hv.Command]) -> list[hv.Command]:
        """What this controller has given itself."""
        return [command for command in pending if id(command) not in self._inherited]

    def _check_shrinking(self, vm: SimulatedVm, usable: int, step: int) -> None:
        limits = vm.config.limits
        now = self.hypervisor.agenda.now
        seen = self.shown.of(vm.uuid)
        age = now - seen.informed_at
        if seen.booting and usable >= limits.startup_bytes:
            return
        if age > STALE_SECONDS:
            self._found("5", vm.spec.name, f"shrunk with nothing fresh known of it for {age:.0f} s")
            return
        if usable < limits.minimum_bytes - SLACK_BYTES:
            self._found("2", vm.spec.name, f"a target of {format_size(usable)} usable is below minimum")
        least = seen.least_usable + MARGIN_BYTES
        below = usable < least - SLACK_BYTES and not seen.deceived
        if below and not self._may_squeeze(seen, least - usable):
            short, left = format_size(int(least - usable)), format_size(MARGIN_BYTES)
            self._found(
                "2",
                vm.spec.name,
                f"a target of {format_size(usable)} usable is {short} below what it uses and {left}",
            )
        if step > INFLATION_BYTES:
            self._found(
                "2", vm.spec.name, f"one command takes {format_size(step)}: more than a second's inflation"
            )

    def _may_squeeze(self, seen: Seen, short: float) -> bool:
        """Below what it uses a guest goes by small steps, a second apart, into swap that it says is free."""
        now = self.hypervisor.agenda.now
        heard = now - seen.spoke_at <= STALE_SECONDS
        room = heard and short + SWAP_KEPT_BYTES <= seen.swap_free
        small = short <= seen.usable / SQUEEZE_SHARE + MARGIN_BYTES + SLACK_BYTES
        if not (room and small) or now - seen.squeezed_at < SQUEEZE_SECONDS:
            return False
        seen.squeezed_at = now
        return True

    def _check_plug(self, vm: SimulatedVm, size: int, *, may_make_room: bool) -> None:
        seen = self.shown.of(vm.uuid)
        spare = seen.spare
        free = seen.free if self.hypervisor.agenda.now - seen.spoke_at <= STALE_SECONDS else 0.0
        last_resort = size <= MEMORY_BLOCK_BYTES and size / 64 <= free
        if may_make_room and free and size <= vm.ram_bytes:
            last_resort = last_resort or size / 64 <= max(free / 3, seen.swap_free / 4)
        if size / 32 > spare + SLACK_BYTES and not last_resort:
            self._found(
                "plan",
                vm.spec.name,
                f"a DIMM of {format_size(size)} for a guest with {format_size(int(spare))} above its floor",
            )

    def _spare(self, running: list[SimulatedVm]) -> int:
        """What guests that are well, truthful and settled could give up."""
        now = self.hypervisor.agenda.now
        spare = 0.0
        for vm in running:
            ideal = vm.behaviour.name == "ideal" and vm.up and vm.config.pinned is None
            if not ideal or vm.agent is None or now - vm.boot.up_at < SETTLED_SECONDS:
                continue
            memory = vm.memory
            floor = 2 * memory.high_mark + max(24 * MIB, memory.usable / 16)
            keeps = max(vm.config.limits.minimum_bytes, memory.usable - memory.available + floor)
            spare += max(0.0, memory.usable - keeps)
        return int(spare)

    def _found(self, rule: str, vm: str, text: str) -> None:
        if rule in self.ignored:
            return
        self.violations.append(Violation(self.hypervisor.agenda.now, rule, vm, text))


def _last_target(vm: SimulatedVm, pending: Sequence[hv.Command]) -> int:
    """What its balloon is told by the last command, carried out or not, QEMU's terms."""
    target = vm.ram_bytes - int(vm.balloon.wanted)
    for command in pending:
        if isinstance(command, hv.SetTarget):
            target = command.target_bytes
    return target


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
