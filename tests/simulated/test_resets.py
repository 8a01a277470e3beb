"""A guest that is reset while an operation changes its memory: the operation ends, and owes nothing."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Limits, Settings
from host_controller.core.vm.record import Vm
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.hypervisor import Witness
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LIMITS = Limits(512 * MIB, 192 * MIB, 1024 * MIB)


class ResetsOnce(Witness):
    """Resets the guest at the first message or event that it is asked about, and has it idle from then on."""

    def __init__(self, world: World, at: Callable[[object], bool]) -> None:
        self.world, self.at, self.done = world, at, False

    def submitted(self, command: hv.Command) -> None:
        self._see(command)

    def delivered(self, event: hv.HypervisorEvent) -> None:
        self._see(event)

    def _see(self, what: object) -> None:
        if not self.done and self.at(what):
            self.done = True
            self.world.work("web", Workload(steady(50 * MIB)))
            self.world.reset("web")


def names_the_zone(what: object) -> bool:
    return isinstance(what, hv.SendToGuest) and isinstance(what.message, wire.OnlineZone)


def asks_for_a_dimm(what: object) -> bool:
    return isinstance(what, hv.AttachDimm)


def has_got_a_dimm(what: object) -> bool:
    return isinstance(what, hv.DimmsChanged) and bool(what.dimms)


def reset_when(at: Callable[[object], bool], behaviour: str = "ideal") -> tuple[World, Engine, Vm]:
    """A guest that needs a DIMM, and is reset on its way to it."""
    world = World(4 * GIB)
    engines: list[Engine] = []

    def make(capacity: int) -> Engine:
        engines.append(Engine(Settings(capacity)))
        return engines[-1]

    world.control(make)
    world.add(GuestSpec("web", LIMITS, workload=Workload(steady(50 * MIB))))
    world.run(30.0)
    world.behave("web", replace(BEHAVIOURS[behaviour]))
    witness = ResetsOnce(world, at)
    world.hypervisor.witnesses.append(witness)
    world.work("web", Workload(steady(600 * MIB)))
    for _ in range(400):
        if witness.done:
            break
        world.run(0.05)
    assert witness.done
    [vm] = engines[0].vms.values()
    return world, engines[0], vm


@pytest.mark.parametrize("at", [names_the_zone, asks_for_a_dimm, has_got_a_dimm])
def test_a_reset_ends_a_hot_add_without_a_fault_and_nothing_of_it_stays_charged(
    at: Callable[[object], bool],
) -> None:
    world, engine, vm = reset_when(at)
    world.run(5.0)
    assert not [text for text in (one.text for one in engine.notices()) if "did not bring" in text]
    assert vm.plug_rest.failures == 0
    world.run(25.0)
    assert vm.plug.pending_bytes == 0
    assert vm.plug_rest.until < world.now - 20.0, "its growth does not rest"
    assert not engine.state.operations
    assert world.violations == []


def test_a_hot_add_that_is_late_when_its_guest_is_reset_ends_once_somebody_knows_what_became_of_it() -> None:
    world, engine, vm = reset_when(asks_for_a_dimm, "late QEMU")
    world.run(5.0)
    assert engine.state.operations
    world.run(60.0)
    assert not engine.state.operations
    assert vm.plug.pending_bytes == 0
    assert world.violations == []
