"""One simulated VM: QEMU's devices, its guest's kernel, agent and programs, brought along in time."""

from collections.abc import Callable

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.model import OFF, PAUSED, RUNNING, BalloonStats, Dimm, Growth, RunState
from host_controller.simulator.agent import SimulatedAgent
from host_controller.simulator.balloon import Balloon
from host_controller.simulator.behaviours import Behaviour, Speech
from host_controller.simulator.boot import Boot
from host_controller.simulator.clock import Agenda
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.looks import Looks
from host_controller.simulator.memory import Memory, reserved_bytes
from host_controller.simulator.slots import OFFLINE_SECONDS, ONLINE_SECONDS, Slots
from host_controller.simulator.virtio_mem import VirtioMem
from host_controller.simulator.workload import Workload

Emit = Callable[[hv.HypervisorEvent], None]


class SimulatedVm:
    """A VM that runs or is off. The hypervisor calls its verbs; it emits events and wakes itself."""

    def __init__(self, spec: GuestSpec, agenda: Agenda, emit: Emit, seed: int = 0, step: float = 0.1) -> None:
        self.spec = spec
        self.config = spec.config()
        self.uuid = self.config.uuid
        """How the controller names it."""
        self.behaviour = spec.behaviour
        self.workload = spec.workload
        self.state = OFF
        self.job: str | None = None
        """Of the hypervisor's: it moves or copies the VM, which nobody may touch meanwhile."""
        self.is_away = False
        """Saved, or on another host: off, and not forgotten."""
        self.agent: SimulatedAgent | None = None
        self.memory = self._fresh_memory()
        self.at = 0.0
        self.agenda = agenda
        self.emit = emit
        self.boot = Boot(self, seed)
        self.balloon = Balloon(self)
        self.slots = Slots(self)
        self.virtio_mem = VirtioMem(self)
        self._looks = Looks(self, step)
        self._stats: BalloonStats | None = None
        self.starved_until = 0.0
        """Until then its kernel does nothing."""
        self._offlining: list[wire.Offline] = []
        self._ran_seconds = 0.0
        self._running_since = 0.0

    # --- what can be seen ---------------------------------------------------------------------------

    @property
    def boots(self) -> int:
        """Grows with each boot and each power off: what was begun under another is void."""
        return self.boot.count

    @property
    def ram_bytes(self) -> int:
        """Boot RAM and plugged DIMMs."""
        return self.config.boot_ram_bytes + self.slots.plugged_bytes

    @property
    def offline_bytes(self) -> int:
        """Plugged and not onlined."""
        return self.slots.offline_bytes + self.virtio_mem.offline

    @property
    def actual_bytes(self) -> int:
        """What QEMU answers to query-balloon."""
        return max(0, self.ram_bytes - int(self.balloon.claimed))

    @property
    def resident_bytes(self) -> int:
        """What the host holds for the guest."""
        if self.state is OFF:
            return 0
        if self.balloon.alive:
            return int(self.memory.resident)
        return max(int(self.memory.resident), self.boot.touched_bytes)

    @property
    def ran_seconds(self) -> float:
        """Time in which its vCPUs were let run since it was powered on."""
        running = self.state is RUNNING
        return self._ran_seconds + (self.agenda.now - self._running_since if running else 0.0)

    @property
    def up(self) -> bool:
        """Its vCPUs run and its kernel has booted."""
        return self.balloon.alive and self.state is RUNNING and not self._hung

    @property
    def _hung(self) -> bool:
        return self.behaviour.hung or self.agenda.now < self.starved_until

    def statistics(self, now: float) -> BalloonStats | None:
        """The driver's statistics as QEMU has them: asked for once a second, and with their stamp they stand
        still when nobody renews them (fact: statistics-freeze).
        """
        stamp, last = int(now), self._stats
        if self.up and self.behaviour.statistics and stamp > (0 if last is None else last.updated):
            held = self.memory.ballooned if self.behaviour.counts_balloon else 0
            self._stats = BalloonStats(int(self.memory.total + held), int(self.memory.available), stamp)
        return self._stats

    def dimm_list(self) -> tuple[Dimm, ...]:
        """The plugged DIMMs, as the hypervisor lists them."""
        return tuple(d.dimm for d in self.slots.dimms)

    # --- what is done to it -------------------------------------------------------------------------

    def start(self) -> None:
        """Power on."""
        assert self.state is OFF
        self.is_away = False
        self.state = RUNNING
        self._power_on()
        self.slots.clear()
        self.virtio_mem.reset(powered_off=True)
        self.balloon.claimed = 0.0
        self.balloon.wanted = float(max(0, self.config.boot_ram_bytes - self.config.limits.startup_bytes))
        self._boot()

    def set_job(self, job: str | None) -> None:
        """A job begins, or is over."""
        if job != self.job:
            self.job = job
            self.emit(hv.JobChanged(self.uuid, job))

    def leave(self) -> None:
        """Saved, or migrated away: it costs nothing here, and is as it was when it comes back."""
        self.advance()
        self.job = None
        self._halt(OFF)
        self.is_away = True

    def arrive(self, paused: bool) -> None:
        """Restored, or migrated here: not booted, and no time has passed for it."""
        self.advance()
        self.is_away = False
        self.state = PAUSED if paused else RUNNING
        self._power_on()
        if not paused:
            self._go_on()

    def stop(self) -> None:
        """Power off."""
        self.advance()
        self.job = None
        self.state = OFF
        self.boot.power_off()
        self.agent = None
        self.balloon.alive = False
        self.memory = self._fresh_memory()
        self.memory.resident = 0.0

    def reset(self) -> None:
        """The guest's kernel starts again; QEMU, its DIMMs and its balloon's figures stay as they are."""
        self.advance()
        for dimm in self.slots.dimms:
            dimm.zone, dimm.gone_bytes = None, 0
        self._boot()
        self.emit(hv.VmReset(self.uuid))
        self.virtio_mem.reset()

    def suspend(self) -> None:
        """Stop the vCPUs."""
        self.advance()
        if self.state is RUNNING:
            self._halt(PAUSED)
            self.emit(hv.VmStateChanged(self.uuid, self.state))

    def resume(self) -> None:
        """Let the vCPUs run on."""
        self.advance()
        if self.state is PAUSED:
            self.state = RUNNING
            self._running_since = self.agenda.now
            self.emit(hv.VmStateChanged(self.uuid, self.state))
            self._go_on()

    def _power_on(self) -> None:
        """Its time in this QEMU begins."""
        self._ran_seconds, self._running_since = 0.0, self.agenda.now
        self.boot.power_on()

    def _halt(self, state: RunState) -> None:
        """Its vCPUs stop; what is left of its boot is left for later."""
        if self.state is RUNNING:
            self._ran_seconds = self.ran_seconds
            self.boot.halt()
        self.state = state

    def _go_on(self) -> None:
        self.boot.go_on()
        self.wake()

    def behave(self, behaviour: Behaviour) -> None:
        """From now on behave like that."""
        self.advance()
        self.behaviour = behaviour
        self.wake()

    def work(self, workload: Workload) -> None:
        """From now on run other programs."""
        self.advance()
        self.workload = workload
        self.wake()

    def set_target(self, target_bytes: int) -> None:
        """QEMU's balloon command: the amount is worked out now, from the RAM of now
        (fact: target-is-logical).
        """
        self.advance()
        self.balloon.aim(target_bytes)
        self.wake()

    def plug(self, size_bytes: int) -> str | None:
        """Hot-add a DIMM; the reason if QEMU refuses it."""
        self.advance()
        return self.slots.plug(size_bytes)

    def resize_virtio_mem(self, requested_bytes: int) -> str | None:
        """Ask for another size; the reason if QEMU refuses it."""
        self.advance()
        return self.virtio_mem.request(requested_bytes)

    def unplug(self, alias: str) -> str | None:
        """Ask for a DIMM back; the reason if there is no such DIMM."""
        self.advance()
        return self.slots.unplug(alias)

    def receive(self, message: wire.HostMessage) -> None:
        """A message to the agent; lost when nobody reads."""
        agent = self.agent
        if agent is None or not self.up or self.behaviour.speech is Speech.NOTHING:
            return
        self.advance()
        agent.receive(message, self.memory, self.agenda.now)
        if isinstance(message, wire.Offline):
            self._offlining.append(message)
            self.agenda.after(OFFLINE_SECONDS, lambda: self._take_offline(message))
        elif isinstance(message, wire.Online):
            self._call_off(message)
            self.agenda.after(ONLINE_SECONDS, lambda: self.slots.change(message, message.zone))
        self.wake()

    def _take_offline(self, request: wire.Offline) -> None:
        if request in self._offlining:
            self._offlining.remove(request)
            self.slots.change(request, None)

    def _call_off(self, request: wire.Online) -> None:
        """What the host wants back online is not taken offline any further, as `agent.hotplug` has it."""
        wanted = range(request.start_bytes, request.start_bytes + request.size_bytes)
        for other in [one for one in self._offlining if one.start_bytes in wanted]:
            self._offlining.remove(other)
            if self.agent is not None:
                self.agent.acknowledge(other.request_id, 0, "the host called it off")

    def starve(self, seconds: float) -> None:
        """The guest's kernel does nothing for a while."""
        self.starved_until = self.agenda.now + seconds
        self.wake()

    # --- time ---------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Bring everything up to now."""
        now = self.agenda.now
        seconds = now - self.at
        if seconds <= 0.0:
            return
        began, self.at = self.at, now
        if not self.up:
            return
        memory, work = self.memory, self.workload
        self.balloon.move(seconds)
        memory.step(
            seconds,
            work.anonymous.at(began),
            work.working_set.at(began),
            self.spec.speeds,
            cold_share=work.cold_share,
            cache_period=work.cache_period,
            stream=work.stream_bytes_per_second,
        )
        if work.container_stall:
            memory.stall_us += work.container_stall * seconds * 1e6
        memory.account_resident(seconds, self.spec.reporting)
        self.balloon.announce()

    def wake(self) -> None:
        """Look at the guest now, and from then on whenever it can have changed."""
        self._looks.again()

    # --- booting ------------------------------------------------------------------------------------

    def _fresh_memory(self) -> Memory:
        boot = self.config.boot_ram_bytes
        reserved = reserved_bytes(boot, grows=self.config.growth is not Growth.BALLOON)
        return Memory(float(boot), float(reserved), swap_size=float(self.spec.swap_bytes))

    def _boot(self) -> None:
        before = float(self.resident_bytes)
        self.balloon.alive = False
        self.agent = None
        self.starved_until = 0.0
        self._stats = None
        self.memory = self._fresh_memory()
        self.memory.resident = before
        self.at = self.agenda.now
        self.boot.begin()

    def say(self, message: wire.GuestMessage) -> None:
        """Its agent writes to the host, if it behaves."""
        if self.behaviour.speech not in (Speech.NOTHING, Speech.NOISE):
            self.emit(hv.GuestSpoke(self.uuid, message))
