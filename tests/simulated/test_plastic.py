"""Memory that is given and taken back, by virtio-mem and by DIMMs, with guests that do not play along."""

import pytest

from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.simulator.behaviours import BEHAVIOURS, BROKEN_DEVICE, IDEAL
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LIMITS = Limits(512 * MIB, 192 * MIB, 2 * GIB)


class Host:
    """One guest under the real engine, impatient to take memory back."""

    def __init__(self, growth: Growth, behaviour: str = "ideal", agent: bool = True) -> None:
        self.world = World(8 * GIB)
        self.commands: list[hv.Command] = []
        self.told: list[int] = []
        """What QEMU said to be plugged, bytes."""
        self.world.hypervisor.witnesses.append(self)
        engine = self.world.control(
            lambda capacity: Engine(
                Settings(capacity, shrink_after_seconds=10.0, settle_seconds=5.0, unplug_after_seconds=15.0)
            )
        )
        assert isinstance(engine, Engine)
        self.engine = engine
        spec = GuestSpec("a", LIMITS, growth=growth, agent=agent, workload=Workload(steady(64 * MIB)))
        self.vm: SimulatedVm = self.world.add(spec)
        self.world.run(30.0)
        self.world.behave("a", BEHAVIOURS[behaviour])

    def submitted(self, command: hv.Command) -> None:
        self.commands.append(command)

    def delivered(self, event: hv.HypervisorEvent) -> None:
        if isinstance(event, hv.VirtioMemChanged):
            self.told.append(event.current_bytes)

    def happened(self, kind: str, vm: str) -> None: ...

    def use(self, mib: int, seconds: float) -> None:
        """Let the guest's programs use so much for a while; no rule may be broken by it."""
        self.world.work("a", Workload(steady(mib * MIB)))
        self.world.run(seconds)
        self.world.vm("a")
        assert self.world.violations == []

    def asked(self, kind: type) -> int:
        """How often the controller said that."""
        return sum(isinstance(command, kind) for command in self.commands)

    def noticed(self) -> str:
        """What the operator was told since the last time."""
        return "; ".join(one.text for one in self.engine.notices())

    @property
    def usable_mib(self) -> float:
        return self.vm.memory.usable / MIB


def test_virtio_mem_comes_when_it_is_needed_and_leaves_before_the_balloon_inflates() -> None:
    host = Host(Growth.VIRTIO_MEM)
    host.use(1200, 10.0)
    assert host.vm.memory.unmet < MIB
    assert host.vm.virtio_mem.movable == host.vm.virtio_mem.current > 700 * MIB
    host.use(64, 60.0)
    assert host.vm.virtio_mem.current == host.vm.virtio_mem.requested == 0
    assert host.usable_mib < 300


@pytest.mark.parametrize("how", ["DIMM stays", "DIMM ignored"])
def test_virtio_mem_that_stays_is_left_and_the_balloon_takes_its_place(how: str) -> None:
    host = Host(Growth.VIRTIO_MEM)
    host.use(800, 20.0)
    plugged = host.vm.virtio_mem.current
    host.world.behave("a", BEHAVIOURS[how])
    host.use(64, 120.0)
    assert plugged - 256 * MIB < host.vm.virtio_mem.current == host.vm.virtio_mem.requested
    assert host.vm.memory.ballooned > 150 * MIB
    asked = host.asked(hv.ResizeVirtioMem)
    host.use(64, 600.0)
    assert host.asked(hv.ResizeVirtioMem) - asked <= 12, "each rest is twice as long as the last"
    host.world.behave("a", BEHAVIOURS["ideal"])
    host.use(64, 1800.0)
    assert host.vm.virtio_mem.current == 0, "forgiven, and taken back for good"


def test_virtio_mem_that_leaves_in_part_is_no_failure_of_the_rest() -> None:
    host = Host(Growth.VIRTIO_MEM)
    host.use(800, 20.0)
    plugged = host.vm.virtio_mem.current
    host.world.behave("a", BEHAVIOURS["DIMM half"])
    host.use(64, 120.0)
    assert host.vm.virtio_mem.current < plugged - 128 * MIB


@pytest.mark.parametrize("how", ["never online", "hot add refused"])
def test_virtio_mem_that_never_comes_is_taken_back_and_tried_less_and_less_often(how: str) -> None:
    host = Host(Growth.VIRTIO_MEM, how)
    host.use(800, 300.0)
    assert host.vm.virtio_mem.current == 0
    assert host.asked(hv.ResizeVirtioMem) <= 24
    assert host.usable_mib == pytest.approx(512, abs=1)
    host.world.behave("a", BEHAVIOURS["ideal"])
    host.use(800, 600.0)
    assert host.vm.memory.unmet < MIB


def test_what_is_plugged_in_a_memory_block_that_is_online_is_online_at_once() -> None:
    """As from a real driver, whatever becomes of new blocks (seed 1500000040)."""
    world = World(8 * GIB)
    vm = world.add(GuestSpec("a", LIMITS, growth=Growth.VIRTIO_MEM, workload=Workload(steady(64 * MIB))))
    world.run(30.0)
    assert vm.agent is not None
    vm.agent.zone = "movable"
    vm.virtio_mem.request(64 * MIB)
    world.run(1.0)
    world.behave("a", BEHAVIOURS["never online"])
    vm.virtio_mem.request(200 * MIB)
    world.run(1.0)
    assert (vm.virtio_mem.online, vm.virtio_mem.offline) == (128 * MIB, 72 * MIB)


def test_a_size_is_told_again_once_another_one_was_told_by_a_look() -> None:
    """QEMU tells every change, late at the most (seed 1570000075)."""
    host = Host(Growth.VIRTIO_MEM)
    host.use(800, 20.0)
    device, told, size = host.vm.virtio_mem, host.told, host.vm.virtio_mem.current
    for step, size_bytes in ((0.2, size + 128 * MIB), (0.4, size)):
        device.request(size_bytes)
        host.world.run(step)
    device.look()
    assert told[-1] == size
    told.clear()
    device.request(size + 128 * MIB)
    host.world.run(1.0)
    assert size + 128 * MIB in told


def test_a_device_that_its_driver_has_given_up_is_noticed_and_the_balloon_serves_in_its_place() -> None:
    """Until its kernel is started again (fact: virtio-mem-that-gives-up)."""
    host = Host(Growth.VIRTIO_MEM)
    host.use(800, 20.0)
    device = host.vm.virtio_mem
    plugged = device.current
    host.world.behave("a", BROKEN_DEVICE)
    host.use(64, 120.0)
    assert device.current == device.requested == plugged, "what does not leave is not taken for gone"
    assert host.vm.memory.ballooned > 150 * MIB, "and the balloon takes its place"
    assert "did not give back" in host.noticed()
    host.use(750, 60.0)
    assert host.vm.memory.unmet < MIB, "which it gives again"
    assert device.current == plugged
    host.use(1600, 300.0)
    assert "did not take" in host.noticed()
    assert device.current == device.requested == plugged, "what does not come is not charged"
    (known,) = host.engine.state.vms.values()
    assert known.virtio_mem.may_hold_bytes == plugged
    assert host.asked(hv.ResizeVirtioMem) < 60
    host.world.behave("a", IDEAL)
    host.world.reset("a")
    host.use(1600, 120.0)
    assert host.vm.memory.unmet < MIB, "a new kernel has a new driver"


@pytest.mark.parametrize("growth", [Growth.VIRTIO_MEM, Growth.HOTADD])
@pytest.mark.parametrize("how", ["never online", "hot add refused"])
def test_what_one_kernel_did_not_take_the_next_one_is_given_at_once(growth: Growth, how: str) -> None:
    host = Host(growth, how)
    host.use(800, 600.0)
    assert host.usable_mib == pytest.approx(512, abs=1)
    host.world.behave("a", BEHAVIOURS["ideal"])
    host.world.reset("a")
    host.use(800, 60.0)
    assert host.vm.memory.unmet < MIB


def test_a_reset_empties_the_device_before_the_new_kernel_can_fill_it() -> None:
    host = Host(Growth.VIRTIO_MEM)
    host.use(800, 20.0)
    host.world.work("a", Workload(steady(64 * MIB)))
    host.world.reset("a")
    host.world.run(4.0)
    assert host.vm.virtio_mem.requested == host.vm.virtio_mem.current == 0
    host.use(64, 60.0)
    assert host.vm.ram_bytes == 512 * MIB
    assert host.usable_mib < 300


def test_a_controller_that_was_killed_in_the_middle_of_a_growth_is_followed_by_one_that_finishes_it() -> None:
    host = Host(Growth.VIRTIO_MEM)
    host.world.work("a", Workload(steady(1000 * MIB)))
    host.world.run(0.6)
    host.world.kill_controller()
    host.world.run(2.0)
    host.world.restart_controller()
    host.use(1000, 30.0)
    assert host.vm.memory.unmet < MIB
    assert host.vm.virtio_mem.current == host.vm.virtio_mem.requested


@pytest.mark.parametrize("how", ["DIMM stays", "DIMM ignored", "DIMM half"])
def test_a_dimm_that_does_not_leave_is_whole_again_and_asked_for_less_and_less_often(how: str) -> None:
    host = Host(Growth.HOTADD)
    host.use(800, 20.0)
    dimms = len(host.vm.slots.dimms)
    assert dimms > 0
    host.world.behave("a", BEHAVIOURS[how])
    host.use(64, 600.0)
    assert len(host.vm.slots.dimms) == dimms
    assert host.vm.offline_bytes == 0, "half-offlined blocks are brought back"
    offlines = [
        c for c in host.commands if isinstance(c, hv.SendToGuest) and type(c.message).__name__ == "Offline"
    ]
    assert 1 <= len(offlines) + host.asked(hv.DetachDimm) <= 12
    assert host.usable_mib < 400, "the balloon holds what is spare"
    host.world.behave("a", BEHAVIOURS["ideal"])
    host.use(64, 3700.0)
    assert host.vm.slots.dimms == []
