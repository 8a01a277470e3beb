"""A controller that decides and shows, and changes nothing."""

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from agent import wire
from host_controller.control.state_dir import StateDir
from host_controller.core.interface import SendToGuest, SetPace
from host_controller.core.model import Growth, Limits, RunState
from host_controller.core.vm.record import Phase
from host_controller.records.entries import Entry
from host_controller.simulator.workload import Workload, sine, steady
from host_controller.units import GIB, MIB
from tests.support.virtual import Host, run, until
from tests.unit.control.test_daemon import killed, stands_still

MINUTES = 5
MOVES = ("grow", "shrink", "plug", "unplug", "correct")


def test_a_dry_run_sends_nothing_that_changes_a_vm_and_shows_what_it_would_do() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller(dry_run=True) as controller:
            await asyncio.sleep(200)
            decision = controller.engine.decisions[vm.uuid]
            assert decision.action == "shrink"
            assert decision.target_bytes < GIB
            assert controller.engine.vms[vm.uuid].phase is Phase.LIVE
        assert {type(one) for one in host.commands} == {SetPace, SendToGuest}
        said = {type(one.message) for one in host.commands if isinstance(one, SendToGuest)}
        assert said == {wire.Welcome, wire.WhoHolds}
        assert vm.actual_bytes == GIB

    run(story())


def test_what_it_would_do_is_told_when_it_changes_and_once_a_minute_at_most() -> None:
    """Nothing is carried out, so that the same is decided anew with every report."""
    limits = Limits(GIB, 256 * MIB, 4 * GIB)

    async def story() -> tuple[list[Entry], int]:
        host = Host(16 * GIB)
        host.vm("idle")
        host.vm("dimms", limits=limits, workload=Workload(steady(2 * GIB)))
        host.vm("device", limits=limits, growth=Growth.VIRTIO_MEM, workload=Workload(steady(2 * GIB)))
        host.vm("swings", workload=Workload(sine(300 * MIB, 900 * MIB, 60, 2e4)))
        with capture_logs() as logged:
            async with host.controller(dry_run=True) as controller:
                await asyncio.sleep(60 * MINUTES)
                told = [one for one in controller.journal.entries() if one.kind == "decision"]
        return told, sum(line["event"] == "not done: dry run" for line in logged)

    told, logged = run(story())
    moves = [one for one in told if one.topic in MOVES]
    assert {one.topic for one in moves if one.name == "idle"} == {"correct", "shrink"}
    for name in ("idle", "dimms", "device", "swings"):
        for topic in MOVES:
            assert sum(one.name == name and one.topic == topic for one in moves) <= MINUTES + 1, (name, topic)
    assert logged == len(moves)


def test_whom_a_killed_controller_has_stopped_it_lets_run(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host(2 * GIB)
        state = StateDir(tmp_path)
        async with host.controller(state_dir=state, before=state.open()) as controller:
            web = await stands_still(host, controller)
            controller._let_run = killed  # type: ignore[method-assign]
        state.close()
        state = StateDir(tmp_path)
        async with host.controller(state_dir=state, before=state.open(), dry_run=True):
            await until(lambda: web.state is RunState.RUNNING, "nobody else would", 25.0)
        state.close()

    run(story())


def test_of_a_vm_that_is_reset_without_room_it_does_not_say_that_it_stands_still() -> None:
    async def story() -> list[str]:
        host = Host(2 * GIB)
        web = host.vm("web", workload=Workload(steady(50 * MIB)))
        host.vm("db", workload=Workload(steady(900 * MIB)))
        async with host.controller(dry_run=True) as controller:
            await asyncio.sleep(60)
            web.balloon.aim(256 * MIB)
            await asyncio.sleep(60)
            host.hypervisor.reset(web)
            await asyncio.sleep(60)
            assert web.state is RunState.RUNNING
            return [one.text for one in controller.journal.entries() if one.topic == "reset"]

    (told,) = [one for one in run(story()) if "still" in one]
    assert told.startswith("web would stand still after its reset: ")


def test_it_goes_along_where_somebody_else_moves_a_balloon() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web", workload=Workload(steady(200 * MIB)))
        async with host.controller(dry_run=True) as controller:
            await asyncio.sleep(60)
            for size in (512 * MIB, 768 * MIB):
                vm.balloon.aim(size)
                await asyncio.sleep(120)
                assert vm.actual_bytes == size
                assert controller.engine.vms[vm.uuid].assigned_bytes == size
            said = [one.text for one in controller.journal.entries() if one.topic == "balloon"]
        assert not said, "that it did not follow, or was sent back"

    run(story())
