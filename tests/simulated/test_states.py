"""A host's life, as a state machine: VMs start, stop, reboot, misbehave, recover; no rule is ever broken."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LARGEST = 50
FAILURES = (
    "slow balloon", "stuck", "hot add refused", "never online", "DIMM stays", "DIMM half", "agent silent",
    "all silent", "agent needy", "agent noisy", "hung",
)  # fmt: skip


class HostLife(RuleBasedStateMachine):
    """Up to 50 VMs of 0.25 to 2 GiB on a host that is too small for all of them."""

    @initialize(vms=st.integers(2, LARGEST), share=st.floats(0.3, 0.9))
    def begin(self, vms: int, share: float) -> None:
        self.vms = vms
        self.world = World(int(max(3 * GIB, vms * 2 * GIB * share)))
        limits = Limits(512 * MIB, 256 * MIB, 2 * GIB)
        for i in range(vms):
            growth = (Growth.BALLOON, Growth.HOTADD, Growth.VIRTIO_MEM)[i % 3]
            spec = GuestSpec(
                f"vm{i}", limits, growth=growth, workload=Workload(steady(64 * MIB)), boot_seconds=2.0
            )
            self.world.define(spec)
        self.world.control(lambda capacity: Engine(Settings(capacity)))
        for i in range(0, vms, 8):
            self.start(i, 8)

    @rule(which=st.integers(0, LARGEST - 1), many=st.integers(1, 8))
    def start(self, which: int, many: int) -> None:
        """As long as its RAM fits: starting one that does not is for admission to refuse."""
        for i in range(which, which + many):
            vm = self.world.vm(f"vm{i % self.vms}")
            room = self.world.capacity_bytes - self.world.checker.total()
            if vm.config.boot_ram_bytes + 64 * MIB <= room:
                self.world.start(vm.spec.name)
        self.world.run(1.0)

    @rule(which=st.integers(0, LARGEST - 1))
    def stop(self, which: int) -> None:
        self.world.stop(f"vm{which % self.vms}")

    @rule(which=st.integers(0, LARGEST - 1))
    def reset(self, which: int) -> None:
        self.world.reset(f"vm{which % self.vms}")

    @rule(
        which=st.integers(0, LARGEST - 1),
        job=st.sampled_from(("migration", "save", "snapshot")),
        seconds=st.sampled_from((0.5, 10.0)),
        comes_back=st.booleans(),
    )
    def move(self, which: int, job: str, seconds: float, comes_back: bool) -> None:
        away = 5.0 if comes_back and job != "snapshot" else None
        self.world.move(f"vm{which % self.vms}", job, seconds, away)

    @rule(which=st.integers(0, LARGEST - 1), mib=st.integers(0, 1800))
    def use(self, which: int, mib: int) -> None:
        workload = Workload(steady(mib * MIB))
        self.world.work(f"vm{which % self.vms}", workload)

    @rule(which=st.integers(0, LARGEST - 1), how=st.sampled_from(FAILURES))
    def fail(self, which: int, how: str) -> None:
        self.world.behave(f"vm{which % self.vms}", BEHAVIOURS[how])

    @rule(which=st.integers(0, LARGEST - 1))
    def recover(self, which: int) -> None:
        self.world.behave(f"vm{which % self.vms}", BEHAVIOURS["ideal"])

    @rule(which=st.integers(0, LARGEST - 1), minimum=st.integers(2, 4), weight=st.integers(1, 10000))
    def limit(self, which: int, minimum: int, weight: int) -> None:
        vm = self.world.vm(f"vm{which % self.vms}")
        limits = replace(vm.config.limits, minimum_bytes=minimum * 128 * MIB, weight=weight)
        self.world.limit(vm.spec.name, limits)

    @rule(seconds=st.sampled_from((0.3, 2.0, 20.0, 90.0)))
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(down=st.floats(0.1, 5.0))
    def restart_controller(self, down: float) -> None:
        self.world.kill_controller()
        self.world.run(down)
        self.world.restart_controller()

    @invariant()
    def nothing_was_broken(self) -> None:
        if hasattr(self, "world"):
            found = self.world.violations
            assert not found, "\n".join([*self.world.history.tail(found[0].vm), str(found[0])])


HostLife.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHostLife = HostLife.TestCase
