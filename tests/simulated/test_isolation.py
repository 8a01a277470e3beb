"""An error of ours about one VM harms that VM alone, wherever it comes up."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.cells import Cell
from host_controller.core.books import charge as books
from host_controller.core.engine import Engine
from host_controller.core.model import Limits, RunState, Settings
from host_controller.core.vm.record import Vm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.trial import play
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import MIB

LIMITS = Limits(512 * MIB, 192 * MIB, 1024 * MIB)


def host(capacity_mib: int = 1600) -> tuple[World, Engine]:
    """`web` and `db` are idle, and have been squeezed."""
    world = World(capacity_mib * MIB)
    engine: list[Engine] = []

    def make(capacity: int) -> Engine:
        timing = {"shrink_after_seconds": 5.0, "settle_seconds": 1.0, "keep_ready_bytes": 0}
        engine.append(Engine(Settings(capacity, **timing)))  # type: ignore[arg-type] # as they come
        return engine[-1]

    world.control(make)
    for name in ("web", "db"):
        world.add(GuestSpec(name, LIMITS, workload=Workload(steady(50 * MIB)), overhead_bytes=64 * MIB))
    world.run(60.0)
    return world, engine[0]


def broken_for(name: str, rule: Callable[[Vm], int]) -> Callable[[Vm], int]:
    def broken(vm: Vm) -> int:
        if vm.name == name:
            raise ZeroDivisionError("a mistake")
        return rule(vm)

    return broken


def grows(world: World, name: str) -> bool:
    """Whether the controller still gives it what it comes to need."""
    before = world.vm(name).actual_bytes
    world.work(name, Workload(steady(400 * MIB)))
    world.run(20.0)
    return world.vm(name).actual_bytes > before + 64 * MIB


def test_a_vm_whose_charge_cannot_be_worked_out_is_charged_all_it_could_get_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, engine = host(2400)
    monkeypatch.setattr(books, "SIZES", (*books.SIZES, broken_for("web", lambda vm: 0)))
    monkeypatch.setattr(books, "RULES", (*books.RULES, broken_for("web", lambda vm: 0)))
    world.run(10.0)
    [web] = [uuid for uuid, vm in engine.vms.items() if vm.name == "web"]
    assert engine.charges[web] >= LIMITS.maximum_bytes
    assert grows(world, "db")


def test_a_vm_that_stands_still_and_cannot_be_worked_out_is_let_run_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, engine = host(1000)
    assert grows(world, "db")
    world.reset("web")
    world.run(0.5)
    web = world.vm("web")
    assert web.state is RunState.PAUSED
    monkeypatch.setattr(books, "unrealised", broken_for("web", books.unrealised))
    world.run(3.0)
    assert web.state is RunState.RUNNING
    assert not engine.state.standstills
    assert [one.text for one in engine.notices() if one.kind == "fault"]
    before = engine.decisions
    world.work("db", Workload(steady(50 * MIB)))
    world.run(30.0)
    assert max(one.at for one in before.values()) > world.now - 40.0, "decisions go on"


def test_figures_are_of_no_engine_that_left_a_vm_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be those of a host that holds still."""
    monkeypatch.setattr(books, "SIZES", (*books.SIZES, broken_for("vm0", lambda vm: 0)))
    trial = Cell(1.25, 4, "noise 1 %").trial()
    with pytest.raises(RuntimeError, match="rule left-alone  vm0: ZeroDivisionError: a mistake"):
        play(replace(trial, seconds=trial.warm_up_seconds + 5.0))
