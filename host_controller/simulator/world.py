"""A host with VMs, whoever controls them, and those who look on: one deterministic run."""

from collections.abc import Callable
from dataclasses import replace

from host_controller.core.engine import Engine
from host_controller.core.model import OFF, RUNNING, HostFacts, Limits
from host_controller.core.operations.standstill import Standstill, left_behind
from host_controller.core.vm.inheritance import (
    InheritedBoot,
    InheritedPlug,
    boots_under_way,
    plugs_under_way,
    sizes_under_way,
)
from host_controller.simulator.behaviours import Behaviour
from host_controller.simulator.checker import Checker, Violation
from host_controller.simulator.clock import LAST, Agenda
from host_controller.simulator.driver import TICK_SECONDS, Controller, EngineDriver
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.hypervisor import INCOMING, SimulatedHypervisor
from host_controller.simulator.witnesses import Ambushes, History
from host_controller.simulator.workload import Workload

MakeController = Callable[[int], Controller]
"""A controller for a host of so many bytes of capacity."""


class World:
    """One host. Give it guests, a controller or a law, and time."""

    def __init__(
        self,
        capacity_bytes: int,
        *,
        seed: int = 0,
        resolution: float = 0.01,
        step: float = 0.1,
        check: bool = True,
        host_bytes: int | None = None,
    ) -> None:
        self.agenda = Agenda(resolution)
        self.capacity_bytes = capacity_bytes
        self.hypervisor = SimulatedHypervisor(self.agenda, host_bytes or capacity_bytes, seed, step)
        self.checker = Checker(self.hypervisor, capacity_bytes)
        self.history = History(self)
        self.ambushes = Ambushes(self)
        if check:
            self.hypervisor.witnesses += [self.ambushes, self.checker, self.history]
        self.driver: EngineDriver | None = None
        self._make: MakeController | None = None
        self._tick_seconds = TICK_SECONDS
        self._inherited_standstills: dict[str, Standstill] = {}
        self._inherited_plugs: dict[str, InheritedPlug] = {}
        self._inherited_sizes: dict[str, int] = {}
        self._inherited_boots: dict[str, InheritedBoot] = {}
        self._by_name: dict[str, SimulatedVm] = {}
        self._looked_at = 0.0
        self._decided_before = 0
        if check:
            self._look()

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self.agenda.now

    @property
    def decisions(self) -> int:
        """How often controllers of this world have decided."""
        return self._decided_before + (self.driver.decisions if self.driver is not None else 0)

    @property
    def violations(self) -> list[Violation]:
        """What the checker found, and whom the engine has left alone for an error of its own."""
        return [*self.checker.violations, *self.left_alone()]

    def left_alone(self) -> list[Violation]:
        """VMs that an internal error of the engine was about: from then on they hold still."""
        engine = self.driver.controller if self.driver is not None else None
        vms = engine.vms.values() if isinstance(engine, Engine) else ()
        faults = [(vm.name, vm.pauses.fault) for vm in vms if vm.pauses.fault is not None]
        return [Violation(self.now, "left-alone", name, fault) for name, fault in faults]

    # --- guests -------------------------------------------------------------------------------------

    def define(self, spec: GuestSpec) -> SimulatedVm:
        """A VM that is off."""
        vm = self.hypervisor.define(spec)
        self._by_name[spec.name] = vm
        return vm

    def start(self, name: str) -> SimulatedVm:
        """Power a VM on; nothing if it runs."""
        vm = self._by_name[name]
        if vm.state is OFF:
            self.hypervisor.power_on(vm)
        return vm

    def add(self, spec: GuestSpec) -> SimulatedVm:
        """Define a VM and power it on."""
        self.define(spec)
        return self.start(spec.name)

    def stop(self, name: str) -> None:
        """Power a VM off; nothing if it is off."""
        vm = self._by_name[name]
        if vm.state is not OFF:
            self.hypervisor.power_off(vm)

    def reset(self, name: str) -> None:
        """Reset a running VM."""
        vm = self._by_name[name]
        if vm.state is not OFF:
            self.hypervisor.reset(vm)

    def move(self, name: str, job: str, seconds: float, away_seconds: float | None) -> None:
        """A job takes a running VM for some seconds.

        Then it leaves, and comes back after `away_seconds` (restored; migrated: incoming for as long again).
        With None it is over where it began: a migration that was cancelled, or a snapshot.
        """
        vm = self._by_name[name]
        if vm.state is not RUNNING or vm.job is not None:
            return
        vm.set_job(job)
        self.agenda.after(seconds, lambda: self._moved(vm, job, seconds, away_seconds))

    def _moved(self, vm: SimulatedVm, job: str, seconds: float, away_seconds: float | None) -> None:
        if vm.job != job:  # it was powered off meanwhile
            return
        if away_seconds is None:
            vm.set_job(None)
            return
        self.hypervisor.put_away(vm, job)
        boots = vm.boots

        def back() -> None:
            if vm.state is OFF and vm.boots == boots:
                self.hypervisor.bring_back(vm, arriving=job == "migration")
                self.agenda.after(seconds, lambda: self._arrived(vm))

        self.agenda.after(away_seconds, back)

    @staticmethod
    def _arrived(vm: SimulatedVm) -> None:
        if vm.job == INCOMING:
            vm.resume()
            vm.set_job(None)

    def behave(self, name: str, behaviour: Behaviour) -> None:
        """Exchange a VM's behaviour."""
        self._by_name[name].behave(behaviour)

    def ambush(self, name: str, kind: str, behaviour: Behaviour) -> None:
        """Exchange a VM's behaviour as soon as it is given a command of that kind (see `kind_of`)."""
        self.ambushes.laid[self._by_name[name].uuid, kind] = behaviour

    def work(self, name: str, workload: Workload) -> None:
        """Exchange a VM's workload."""
        self._by_name[name].work(workload)

    def limit(self, name: str, limits: Limits) -> None:
        """Exchange a VM's limits, as `dynmem set` does."""
        vm = self._by_name[name]
        vm.config = replace(vm.config, limits=limits)
        if vm.state is not OFF:
            self.hypervisor.reconfigure(vm)

    def meddle(self, name: str, requested_bytes: int, told_seconds: float) -> None:
        """Somebody else asks its virtio-mem device for another size; a look tells of it some time later."""
        vm = self.vm(name)
        if vm.state is OFF:
            return
        self.checker.meddled(vm)
        if vm.resize_virtio_mem(requested_bytes) is None:
            self.agenda.after(told_seconds, vm.virtio_mem.look)

    def vm(self, name: str) -> SimulatedVm:
        """A VM by its name, brought up to now."""
        vm = self._by_name[name]
        vm.advance()
        return vm

    def name_of(self, uuid: str) -> str:
        """For people."""
        vm = self.hypervisor.find(uuid)
        return vm.spec.name if vm is not None else uuid

    # --- control ------------------------------------------------------------------------------------

    def control(self, make: MakeController, tick_seconds: float = TICK_SECONDS) -> Controller:
        """Let a controller of that kind drive this host from now on; it is told of time every tick."""
        self._make, self._tick_seconds = make, tick_seconds
        controller = make(self.capacity_bytes)
        if isinstance(controller, Engine):
            controller.state.inherited_standstills.update(self._inherited_standstills)
            controller.state.inherited_plugs.update(self._inherited_plugs)
            controller.state.inherited_sizes.update(self._inherited_sizes)
            controller.state.inherited_boots.update(self._inherited_boots)
        self.driver = EngineDriver(controller, self.hypervisor, self.agenda, tick_seconds)
        self.driver.start()
        return controller

    def kill_controller(self) -> None:
        """As by kill -9: what it sent is carried out, what it knew is lost."""
        if self.driver is not None:
            self.driver.stop()
            if isinstance(engine := self.driver.controller, Engine):
                self._inherited_standstills = left_behind(engine.state.standstills)
                self._inherited_plugs = plugs_under_way(engine.state.vms)
                self._inherited_sizes = sizes_under_way(engine.state.vms)
                settle = engine.state.settings.settle_seconds
                self._inherited_boots = boots_under_way(engine.state.vms, settle, self.now)
            self._decided_before += self.driver.decisions
            self.driver = None

    def restart_controller(self) -> None:
        """A new one, that knows nothing but what has been stopped, and what is being plugged."""
        if self.driver is None and self._make is not None:
            self.control(self._make, self._tick_seconds)

    def set_capacity(self, capacity_bytes: int) -> None:
        """The operator exchanges the capacity; telling the controller is its own event."""
        if capacity_bytes < self.capacity_bytes:
            self.checker.happened("capacity lowered", "host")
        self.capacity_bytes = capacity_bytes
        self.checker.capacity_bytes = capacity_bytes

    def host_facts(self) -> HostFacts:
        """The host's own memory, all guests brought up to now."""
        for vm in self.hypervisor.running():
            vm.advance()
        return self.hypervisor.host_facts()

    # --- time ---------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.agenda.run_until(self.now + seconds)

    def _look(self) -> None:
        self.checker.look(self.now - self._looked_at)
        self._looked_at = self.now
        self.agenda.after(1.0, self._look, LAST)
