"""The hypervisor interface over simulated VMs: commands take their time, events come through one inbox."""

from dataclasses import dataclass, field
from typing import Final, Protocol

from host_controller.core import interface as hv
from host_controller.core.model import OFF, PAUSED, HostFacts
from host_controller.simulator.clock import Agenda
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec

COMMAND_LIMIT: Final = 10.0
"""Seconds after which a command is reported as timed out, carried out or not."""
ATTACH_SECONDS: Final = 0.05
"""`attach-device` takes 25 to 250 ms (fact: hot-add-times)."""
PACE_SECONDS: Final = 1.0
"""How often balloon and resident memory are read until the engine says otherwise."""
HOST_SECONDS: Final = 1.0
INCOMING: Final = "incoming migration"
"""The job of a VM that arrives: its QEMU cannot be asked anything."""

Ticketed = hv.SetTarget | hv.AttachDimm | hv.DetachDimm | hv.ResizeVirtioMem | hv.Suspend | hv.Resume


class Witness(Protocol):
    """Somebody who looks on: the checker and the records. Called after the fact, in order."""

    def submitted(self, command: hv.Command) -> None:
        """The controller gave a command, which has not had any effect yet."""

    def delivered(self, event: hv.HypervisorEvent) -> None:
        """The controller is about to be told an event."""

    def happened(self, kind: str, vm: str) -> None:
        """A named event that may raise what a VM costs: start, stop, reset, takes back, capacity."""


@dataclass(slots=True)
class _Line:
    """One VM's serial worker: commands are carried out in order."""

    vm: SimulatedVm
    busy_until: float = 0.0
    pace: float = PACE_SECONDS
    samplings: int = 0
    in_force: dict[int, Ticketed] = field(default_factory=dict)
    """Commands given whose effect is still to come, by their number: tickets are the controller's own."""


class SimulatedHypervisor:
    """`hypervisor.interface.Hypervisor` on virtual time.

    Between connect() and disconnect() events go to the inbox; without one they are lost, as they are to
    a controller that is not there, and connect() says what runs.
    """

    def __init__(self, agenda: Agenda, total_bytes: int, seed: int = 0, step: float = 0.1) -> None:
        self.agenda = agenda
        self.total_bytes = total_bytes
        """The host's memory."""
        self.other_bytes = 0
        """Held by processes that are no VMs."""
        self.witnesses: list[Witness] = []
        self._seed = seed
        self._step = step
        self._lines: dict[str, _Line] = {}
        self._inbox: hv.Inbox | None = None
        self._session = 0
        self._commands = 0

    # --- the controller's side ----------------------------------------------------------------------

    async def start(self, inbox: hv.Inbox) -> None:
        """Connect: say what runs."""
        self.connect(inbox)

    async def stop(self) -> None:
        """Disconnect: what was given goes on, and nobody hears of it."""
        self.disconnect()

    def connect(self, inbox: hv.Inbox) -> None:
        """As `start`, for callers without an event loop."""
        self._inbox = inbox
        self._session += 1
        self._sample_host(self._session)
        for line in self._lines.values():
            line.pace = PACE_SECONDS
            if line.vm.state is not OFF:
                self._appeared(line, booted=False)
        self._deliver(hv.VmsAwaited(()))

    def disconnect(self) -> None:
        """As `stop`, for callers without an event loop."""
        self._inbox = None
        self._session += 1

    def submit(self, command: hv.Command) -> None:
        """Start a command; its outcome comes as an event."""
        for witness in self.witnesses:
            witness.submitted(command)
        line = self._lines.get(command.vm)
        if isinstance(command, hv.SendToGuest):
            if line is not None:
                line.vm.receive(command.message)
            return
        if isinstance(command, hv.SetPace):
            if line is not None:
                line.pace = max(command.period_seconds, self.agenda.resolution)
                line.samplings += 1
                self._sample(line, line.samplings, self._session)
            return
        if line is None or line.vm.state is OFF:
            self._done(command, "domain is not running", 0.0)
            return
        self._queue(line, command)

    @property
    def is_connected(self) -> bool:
        """Somebody hears what happens."""
        return self._inbox is not None

    # --- the world's side ---------------------------------------------------------------------------

    def define(self, spec: GuestSpec) -> SimulatedVm:
        """Make a VM that is off."""
        vm = SimulatedVm(spec, self.agenda, self._deliver, self._seed, self._step)
        self._lines[vm.uuid] = _Line(vm)
        return vm

    def find(self, vm: str) -> SimulatedVm | None:
        """The VM of this UUID, if it is defined."""
        line = self._lines.get(vm)
        return line.vm if line is not None else None

    def vms(self) -> list[SimulatedVm]:
        """All VMs, running or not, in the order of their definition."""
        return [line.vm for line in self._lines.values()]

    def running(self) -> list[SimulatedVm]:
        """The VMs that cost something."""
        return [line.vm for line in self._lines.values() if line.vm.state is not OFF]

    def pending(self, vm: str) -> list[Ticketed]:
        """Commands to a VM that have not had their effect yet."""
        line = self._lines.get(vm)
        return list(line.in_force.values()) if line is not None else []

    def power_on(self, vm: SimulatedVm) -> None:
        """Somebody starts the VM."""
        vm.start()
        self._happened("start", vm)
        self._appeared(self._lines[vm.uuid], booted=True)

    def power_off(self, vm: SimulatedVm, reason: str = "shutdown") -> None:
        """The VM stops; commands under way come to nothing."""
        vm.stop()
        self._leave(vm, reason)

    def _leave(self, vm: SimulatedVm, reason: str) -> None:
        line = self._lines[vm.uuid]
        line.in_force.clear()
        line.busy_until = 0.0
        line.samplings += 1
        self._happened("stop", vm)
        self._deliver(hv.VmGone(vm.uuid, reason))

    def put_away(self, vm: SimulatedVm, reason: str) -> None:
        """The VM is saved, or has been migrated to another host; `bring_back` has it as it was."""
        vm.leave()
        self._leave(vm, reason)

    def bring_back(self, vm: SimulatedVm, arriving: bool) -> None:
        """It is restored; or it begins to arrive from another host, and stands still until it is here."""
        vm.arrive(paused=arriving)
        vm.job = INCOMING if arriving else None
        self._happened("start", vm)
        self._appeared(self._lines[vm.uuid], booted=False)

    def reset(self, vm: SimulatedVm) -> None:
        """Somebody presses the button."""
        vm.reset()

    def reconfigure(self, vm: SimulatedVm) -> None:
        """Tell the controller that the VM's configuration has been exchanged."""
        self._deliver(hv.VmConfigChanged(vm.uuid, vm.config))

    def host_facts(self) -> HostFacts:
        """What /proc/meminfo on the host would say."""
        held = sum(vm.resident_bytes + vm.spec.overhead_bytes for vm in self.running())
        free = self.total_bytes - self.other_bytes - held
        return HostFacts(self.agenda.now, self.total_bytes, max(0, free), max(0, -free))

    # --- commands -----------------------------------------------------------------------------------

    def _queue(self, line: _Line, command: Ticketed) -> None:
        now = self.agenda.now
        seconds = line.vm.behaviour.command_seconds
        if isinstance(command, hv.AttachDimm):
            seconds = max(seconds, ATTACH_SECONDS)
        begins = max(now, line.busy_until)
        ends = begins + seconds
        line.busy_until = ends
        self._commands += 1
        number, session = self._commands, self._session
        line.in_force[number] = command
        limit = now + COMMAND_LIMIT
        late = ends > limit

        def done(error: str | None, seconds: float, timed_out: bool = False) -> None:
            if session == self._session:  # the answer goes to the connection that asked
                self._done(command, error, seconds, timed_out)

        def act() -> None:
            if line.in_force.pop(number, None) is None or line.vm.state is OFF:
                if not late:
                    done("domain is not running", self.agenda.now - now)
                return
            error = self._carry_out(line.vm, command)
            if not late:
                done(error, self.agenda.now - now)
            elif session == self._session:
                self._deliver(hv.DimmsChanged(command.vm, line.vm.dimm_list()))

        if late:
            self.agenda.at(limit, lambda: done("timed out", limit - now, timed_out=True))
        self.agenda.at(ends, act)

    def _carry_out(self, vm: SimulatedVm, command: Ticketed) -> str | None:
        if vm.job is not None and not isinstance(command, hv.Suspend | hv.Resume):
            return f"not while this job runs: {vm.job}"
        match command:
            case hv.SetTarget():
                vm.set_target(command.target_bytes)
            case hv.AttachDimm():
                return vm.plug(command.size_bytes)
            case hv.DetachDimm():
                return vm.unplug(command.alias)
            case hv.Suspend():
                vm.suspend()
            case hv.Resume():
                vm.resume()
            case hv.ResizeVirtioMem():
                return vm.resize_virtio_mem(command.requested_bytes)
        return None

    def _done(self, command: Ticketed, error: str | None, seconds: float, timed_out: bool = False) -> None:
        stopped = isinstance(command, hv.Suspend) and error is None
        ran = self._lines[command.vm].vm.ran_seconds if stopped else None
        self._deliver(hv.CommandDone(command.vm, command.ticket, error, timed_out, seconds, ran))

    # --- events -------------------------------------------------------------------------------------

    def _deliver(self, event: hv.HypervisorEvent) -> None:
        if isinstance(event, hv.VmReset):
            self._happened("reset", self._lines[event.vm].vm)
        if self._inbox is None:
            return
        for witness in self.witnesses:
            witness.delivered(event)
        self._inbox(event)

    def _happened(self, kind: str, vm: SimulatedVm) -> None:
        for witness in self.witnesses:
            witness.happened(kind, vm.uuid)

    def _appeared(self, line: _Line, booted: bool) -> None:
        vm = line.vm
        vm.advance()
        self._deliver(
            hv.VmAppeared(
                vm.uuid,
                vm.config,
                vm.state,
                vm.dimm_list(),
                vm.actual_bytes,
                booted,
                vm.virtio_mem.current,
                vm.virtio_mem.requested,
                vm.ran_seconds if vm.state is PAUSED else None,
            )
        )
        if vm.job is not None:
            self._deliver(hv.JobChanged(vm.uuid, vm.job))
        line.samplings += 1
        self._sample(line, line.samplings, self._session)

    def _sample(self, line: _Line, mine: int, session: int) -> None:
        """Read balloon and resident memory, and come back after the pace."""
        vm = line.vm
        if mine != line.samplings or session != self._session or vm.state is OFF:
            return
        vm.advance()
        answers = (
            line.busy_until <= self.agenda.now + COMMAND_LIMIT / 2 and vm.behaviour.command_seconds < 1.0
        )
        if answers and vm.job != INCOMING:
            self._deliver(hv.BalloonSampled(vm.uuid, vm.actual_bytes, vm.statistics(self.agenda.now)))
        self._deliver(hv.ResidentSampled(vm.uuid, vm.resident_bytes, vm.spec.overhead_bytes))
        self.agenda.after(line.pace, lambda: self._sample(line, mine, session))

    def _sample_host(self, session: int) -> None:
        if session != self._session:
            return
        self._deliver(hv.HostSampled(self.host_facts()))
        self.agenda.after(HOST_SECONDS, lambda: self._sample_host(session))
