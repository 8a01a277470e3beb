"""A guest that boots with less than its startup gets the rest when it reports, and gives it back whole."""

import pytest

from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LIMITS = Limits(1024 * MIB, 192 * MIB, 2 * GIB)
BOOT = 512 * MIB
REST = LIMITS.startup_bytes - BOOT


class Host:
    """One such guest, and room for whatever it is given."""

    def __init__(self, settle_seconds: float = 20.0, capacity_bytes: int = 8 * GIB, **spec: object) -> None:
        self.world = World(capacity_bytes)
        self.sizes: list[int] = []
        self.targets: list[int] = []
        self.world.hypervisor.witnesses.append(self)
        settings = {"shrink_after_seconds": 10.0, "settle_seconds": settle_seconds}
        self.world.control(lambda capacity: Engine(Settings(capacity, **settings)))
        work = Workload(steady(64 * MIB))
        spec = {"boot_ram_bytes": BOOT, **spec}
        self.vm: SimulatedVm = self.world.add(
            GuestSpec("a", LIMITS, growth=Growth.VIRTIO_MEM, workload=work, **spec)  # type: ignore[arg-type]
        )

    def submitted(self, command: hv.Command) -> None:
        match command:
            case hv.ResizeVirtioMem():
                self.sizes.append(command.requested_bytes)
            case hv.SetTarget() if command.vm == self.vm.config.uuid:
                self.targets.append(command.target_bytes)

    def delivered(self, event: hv.HypervisorEvent) -> None: ...

    def happened(self, kind: str, vm: str) -> None: ...

    def run(self, seconds: float) -> None:
        self.world.run(seconds)
        assert self.world.violations == []


@pytest.mark.parametrize(("boot_seconds", "agent_seconds"), [(8.0, 3.0), (120.0, 3.0), (8.0, 100.0)])
def test_it_gets_all_of_its_startup_once_its_agent_reports_however_long_that_takes(
    boot_seconds: float, agent_seconds: float
) -> None:
    host = Host(boot_seconds=boot_seconds, agent_seconds=agent_seconds)
    host.run(boot_seconds + agent_seconds - 1.0)
    assert host.sizes == [], "boot RAM alone must do until then"
    host.run(15.0)
    assert host.vm.virtio_mem.current == host.vm.virtio_mem.movable == REST


def test_what_it_does_not_use_leaves_by_its_device_down_to_boot_ram_and_only_then_by_balloon() -> None:
    host = Host()
    host.run(30.0)
    assert host.vm.virtio_mem.current == REST
    sent = len(host.targets)
    host.run(60.0)
    assert host.vm.virtio_mem.current == 0
    assert min(host.targets[sent:]) < BOOT, "and then by its balloon"
    assert host.sizes[-1] == 0


def test_it_grows_again_when_it_needs_more_and_gets_startup_again_after_a_reset() -> None:
    host = Host()
    host.run(90.0)
    host.world.work("a", Workload(steady(900 * MIB)))
    host.run(15.0)
    assert host.vm.memory.unmet < MIB
    assert host.vm.virtio_mem.current > 500 * MIB
    host.world.work("a", Workload(steady(64 * MIB)))
    host.world.reset("a")
    seen = len(host.sizes)
    host.run(30.0)
    assert host.sizes[seen] == 0, "what was asked for before the reset is not plugged offline"
    assert host.vm.virtio_mem.current == REST


def test_without_an_agent_and_without_its_kernel_bringing_memory_online_boot_ram_is_what_it_has() -> None:
    host = Host(agent=False)
    host.run(120.0)
    assert host.world.violations == []
    assert host.vm.memory.usable <= LIMITS.startup_bytes


class Crowded(Host):
    """A neighbour without swap could use all that there is, and would keep what it was given."""

    def __init__(self, *, agent: bool = True, boot_ram_bytes: int = BOOT) -> None:
        super().__init__(60.0, 2 * GIB, agent=agent, boot_ram_bytes=boot_ram_bytes, boot_seconds=30.0)
        hungry = Limits(512 * MIB, 256 * MIB, 4 * GIB)
        self.neighbour = self.world.add(GuestSpec("b", hungry, workload=Workload(steady(1500 * MIB))))

    @property
    def engine(self) -> Engine:
        assert self.world.driver is not None
        assert isinstance(self.world.driver.controller, Engine)
        return self.world.driver.controller


def test_what_it_does_not_boot_with_is_held_for_it_until_its_agent_reports() -> None:
    host = Crowded()
    host.world.work("a", Workload(steady(900 * MIB)))
    host.run(30.0)
    assert host.engine.owed_bytes == REST
    uncharged = host.engine.ledger.capacity() - sum(host.engine.charges.values())
    assert REST <= uncharged < REST + 64 * MIB, "all the rest the neighbour has been given"
    host.run(10.0)
    assert host.engine.owed_bytes == 0
    assert host.vm.memory.usable > 850 * MIB, "its share of what both need"


def test_it_is_held_for_it_though_the_controller_is_killed_meanwhile() -> None:
    host = Crowded()
    host.world.work("a", Workload(steady(900 * MIB)))
    host.run(10.0)
    host.world.kill_controller()
    host.world.restart_controller()
    host.run(20.0)
    assert host.engine.owed_bytes == REST
    host.run(10.0)
    assert host.engine.owed_bytes == 0
    assert host.vm.memory.usable > 850 * MIB, "its share of what both need"


def test_its_boot_ram_is_left_to_it_while_the_rest_is_held() -> None:
    host = Crowded()
    host.world.work("b", Workload(steady(700 * MIB)))
    host.run(32.5)
    assert host.engine.owed_bytes == REST
    assert host.targets == [] or min(host.targets) >= BOOT
    host.run(10.0)
    assert host.vm.virtio_mem.current > REST // 2


def test_whose_agent_never_comes_does_not_keep_its_startup_from_others_for_ever() -> None:
    host = Crowded(agent=False)
    host.run(55.0)
    assert host.engine.owed_bytes == REST
    before = host.neighbour.memory.usable
    host.run(20.0)
    assert host.engine.owed_bytes == 0
    assert host.neighbour.memory.usable > before + REST // 2


def test_who_boots_with_all_of_its_startup_is_owed_nothing() -> None:
    host = Crowded(boot_ram_bytes=LIMITS.startup_bytes)
    host.run(28.0)
    assert host.engine.owed_bytes == 0
