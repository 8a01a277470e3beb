"""A VM that a job moves or copies, or whose vCPUs stand still, is left alone, whatever it was about to do."""

import pytest

from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Limits, RunState, Settings
from host_controller.core.vm.record import Phase
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LIMITS = Limits(512 * MIB, 256 * MIB, 2 * GIB)
SETTINGS = {"shrink_after_seconds": 5.0, "settle_seconds": 1.0, "unplug_after_seconds": 5.0}


class Commands:
    """Counts the commands that change a VM's memory."""

    def __init__(self) -> None:
        self.said: list[hv.Command] = []

    def submitted(self, command: hv.Command) -> None:
        if isinstance(command, hv.SetTarget | hv.AttachDimm | hv.DetachDimm):
            self.said.append(command)

    def delivered(self, event: hv.HypervisorEvent) -> None:
        pass

    def happened(self, kind: str, vm: str) -> None:
        pass


def host() -> tuple[World, Engine, Commands]:
    """One guest with room to grow, at rest."""
    world = World(4 * GIB)
    engine: list[Engine] = []

    def make(capacity: int) -> Engine:
        engine.append(Engine(Settings(capacity, **SETTINGS)))  # type: ignore[arg-type] # all are seconds
        return engine[-1]

    world.control(make)
    world.add(GuestSpec("vm", LIMITS, workload=Workload(steady(100 * MIB))))
    world.run(60.0)
    commands = Commands()
    world.hypervisor.witnesses.append(commands)
    return world, engine[0], commands


def use(world: World, mib: int) -> None:
    world.work("vm", Workload(steady(mib * MIB)))


@pytest.mark.parametrize("what", ["migration", "pause"])
@pytest.mark.parametrize("moment", [0.05 * i for i in range(12)])
def test_hands_are_off_at_every_moment_of_a_hot_add_and_of_an_unplug(what: str, moment: float) -> None:
    world, engine, _ = host()
    for mib in (1200, 100):
        use(world, mib)
        for _ in range(400):
            world.run(0.05)
            if engine.state.operations:
                break
        assert engine.state.operations
        world.run(moment)
        if what == "pause":
            world.vm("vm").suspend()
            world.run(40.0)
            world.vm("vm").resume()
        else:
            world.move("vm", "migration", 40.0, None)
            world.run(40.0)
        world.run(60.0)
        assert world.violations == [], "\n".join(world.history.tail())
        usable = world.vm("vm").memory.usable
        assert usable > 1200 * MIB if mib == 1200 else usable < 1000 * MIB, "it goes on afterwards"


def test_what_a_guest_has_and_costs_does_not_change_while_it_is_migrated() -> None:
    world, engine, commands = host()
    use(world, 1200)
    world.run(60.0)
    commands.said.clear()
    world.move("vm", "migration", 30.0, None)
    use(world, 100)
    [charge] = engine.charges.values()
    has = world.vm("vm").actual_bytes
    for _ in range(29):
        world.run(1.0)
        assert world.vm("vm").actual_bytes == has
        assert list(engine.charges.values()) == [charge]
    assert commands.said == []
    world.run(30.0)
    assert world.vm("vm").actual_bytes < has


@pytest.mark.parametrize("job", ["migration", "save"])
def test_a_guest_that_leaves_costs_nothing_and_all_its_ram_from_when_it_comes_until_it_is_confirmed(
    job: str,
) -> None:
    world, engine, commands = host()
    use(world, 1200)
    world.run(60.0)
    use(world, 100)
    world.run(3.0)
    before = world.vm("vm")
    ram = before.ram_bytes
    world.move("vm", job, 5.0, 10.0)
    world.run(6.0)
    assert engine.charges == {}
    commands.said.clear()
    world.run(9.5)
    [vm] = engine.vms.values()
    if job == "migration":
        assert (vm.phase, vm.pauses.job, vm.pauses.state) == (
            Phase.TAKEOVER,
            "incoming migration",
            RunState.PAUSED,
        )
        assert commands.said == []
    while vm.phase is Phase.TAKEOVER:
        assert engine.charges[vm.config.uuid] >= ram
        world.run(0.1)
    assert isinstance(commands.said[0], hv.SetTarget)
    world.run(60.0)
    assert world.vm("vm").actual_bytes < ram
    assert world.violations == []


def test_a_paused_guest_costs_no_more_than_it_has_however_long() -> None:
    world, engine, _ = host()
    [charge] = engine.charges.values()
    world.vm("vm").suspend()
    world.run(3600.0)
    [vm] = engine.vms.values()
    assert vm.phase is Phase.LIVE
    assert list(engine.charges.values()) == [charge]
    world.vm("vm").resume()
    world.run(30.0)
    assert vm.phase is Phase.LIVE
    assert list(engine.charges.values()) == [charge]
