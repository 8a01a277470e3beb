"""The controller at work over simulated VMs, in virtual time."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent import wire
from host_controller.control.controller import Controller
from host_controller.control.remembered import Remembered
from host_controller.control.state_dir import AlreadyRunning, StateDir
from host_controller.core.interface import (
    BalloonSampled,
    GuestNoise,
    GuestSpoke,
    SendToGuest,
    SetTarget,
)
from host_controller.core.model import RunState
from host_controller.core.operator_events import Reserve
from host_controller.core.vm.inheritance import InheritedBoot, InheritedPlug
from host_controller.records.recording import Recorder, Recording, replay
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.workload import Workload, steady
from host_controller.units import GIB, MIB
from tests.support.virtual import Host, VirtualLoop, run, until


def targets(host: Host) -> list[SetTarget]:
    return [one for one in host.commands if isinstance(one, SetTarget)]


def speaks(controller: Controller, uuid: str) -> bool:
    return uuid in controller.engine.vms and controller.engine.vms[uuid].guest.agent_version is not None


def decisions(controller: Controller) -> list[float]:
    """The times of those that it makes from now on, as they come."""
    decided: list[float] = []
    original = controller.engine.decide

    def decide(now: float) -> Any:
        decided.append(now)
        return original(now)

    controller.engine.decide = decide  # type: ignore[method-assign]
    return decided


def test_an_idle_guest_is_squeezed_and_the_journal_says_why() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            await until(lambda: vm.actual_bytes < 512 * MIB, "web gets smaller")
            entries = list(controller.journal.entries())
            assert any(e.kind == "decision" and e.topic == "shrink" and e.name == "web" for e in entries)
            assert any(e.kind == "command" and e.topic == "SetTarget" for e in entries)
            assert any("SetTarget done" in e.text for e in entries)
            samples = controller.journal.samples.of(vm.uuid)
            assert samples[-1].assigned_bytes < GIB == samples[0].actual_bytes
            assert [e.number for e in entries] == list(range(1, len(entries) + 1))

    run(story())


def test_a_steady_system_adds_nothing_to_the_journal() -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with host.controller() as controller:
            await asyncio.sleep(300)
            before = controller.journal.last_number
            await asyncio.sleep(300)
            assert controller.journal.last_number == before

    run(story())


def test_decisions_come_at_once_after_a_pause_and_are_50_ms_apart_in_a_flood() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            await asyncio.sleep(100.5)
            decided = decisions(controller)
            begun = controller.now()
            for _ in range(50):
                controller.put(GuestNoise(vm.uuid, "not-json", 1))
                await asyncio.sleep(0.01)
            assert decided[0] - begun < 0.001
            assert all(b - a >= 0.049 for a, b in pairwise(decided))
            assert len(decided) >= 9

    run(story())


def test_the_report_that_may_end_a_step_of_taking_is_decided_on_at_once() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            await asyncio.sleep(100.5)
            decided = decisions(controller)
            controller.engine.awaits_report = lambda uuid: uuid == vm.uuid  # type: ignore[method-assign]
            begun = controller.now()
            for _ in range(3):
                controller.put(GuestNoise(vm.uuid, "not-json", 1))
                await asyncio.sleep(0.02)
            controller.put(GuestSpoke(vm.uuid, wire.Ack(1, True, "here")))
            await asyncio.sleep(0.005)
            assert [at - begun for at in decided] == pytest.approx([0.0, 0.05, 0.06], abs=0.001)

    run(story())


def test_an_agent_is_welcomed_when_its_vm_appears_and_when_it_starts() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            await until(lambda: speaks(controller, vm.uuid), "the agent says hello")
        told = [one.message for one in host.commands if isinstance(one, SendToGuest)]
        assert [type(one) for one in told] == [wire.Welcome, wire.Welcome]

    run(story())


def test_a_stopped_controller_sends_no_target_and_leaves_every_vm_as_it_is() -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with host.controller():
            await until(lambda: targets(host), "the first target")
            sent = len(targets(host))
        assert len(targets(host)) == sent

    run(story())


def test_an_event_that_cannot_be_handled_is_counted_or_harms_its_own_vm_and_no_other() -> None:
    async def story() -> None:
        host = Host()
        vm, other = host.vm("web"), host.vm("db")
        async with host.controller() as controller:
            await asyncio.sleep(1)
            for _ in range(3):
                controller.put(BalloonSampled(vm.uuid, "broken", None))  # type: ignore[arg-type]
            controller.put(object())  # type: ignore[arg-type]
            await asyncio.sleep(1)
            assert controller.journal.errors["event"] == 1, "the one that is about no VM"
            said = [entry.text for entry in controller.journal.entries() if entry.topic == "fault"]
            assert len(said) == 1, "once"
            assert "web is left alone after an internal error: TypeError" in said[0]
            assert controller.engine.charges[vm.uuid] >= controller.engine.vms[vm.uuid].ram_bytes
            await until(lambda: other.actual_bytes < 512 * MIB, "db is managed all the same")
            assert vm.actual_bytes >= GIB

    run(story())


def test_a_sink_that_fails_is_dropped_and_control_goes_on() -> None:
    class FullDisk:
        problem: None = None

        def entry(self, entry: object) -> None:
            raise OSError(28, "No space left on device")

        def sample(self, uuid: str, name: str, sample: object) -> None: ...

        def close(self) -> None: ...

    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            controller.journal.add_sink(FullDisk())
            await until(lambda: vm.actual_bytes < 512 * MIB, "web is managed all the same")
            assert controller.journal.errors["history"] == 1
            assert "No space left" in str(controller.journal.problem)

    run(story())


def test_a_paused_vm_gets_no_target_until_it_is_resumed() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            await asyncio.sleep(1)
            controller.hold(vm.uuid, True)
            await asyncio.sleep(120)
            assert vm.actual_bytes == GIB
            controller.hold(vm.uuid, False)
            await until(lambda: vm.actual_bytes < 512 * MIB, "web is squeezed after all")

    run(story())


def test_a_pause_of_all_includes_vms_that_start_later_and_outlives_the_controller(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        first = host.vm("first")
        state = StateDir(tmp_path)
        async with host.controller(state_dir=state, before=state.open()) as controller:
            await asyncio.sleep(1)
            controller.hold_all(True)
            later = host.vm("later")
            await asyncio.sleep(100)
        state.close()
        state = StateDir(tmp_path)
        async with host.controller(state_dir=state, before=state.open()) as controller:
            await asyncio.sleep(100)
            assert controller.pausing.paused_all
            assert all(vm.pauses.paused for vm in controller.engine.vms.values())
        state.close()
        assert first.actual_bytes == later.actual_bytes == GIB

    run(story())


def test_reservations_and_plugs_outlive_the_controller(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.open()
    plugs = {"some-uuid": InheritedPlug(GIB, 1)}
    sizes = {"another-uuid": GIB}
    boots = {"a-third-uuid": InheritedBoot(1.0, None), "a-fourth-uuid": InheritedBoot(1.0, 2.0)}
    new = Reserve("new", GIB, 1e9)
    state.save(Remembered((new,), ("some-uuid",), plugs=plugs, sizes=sizes, boots=boots))
    state.close()

    async def story() -> None:
        state = StateDir(tmp_path)
        async with Host().controller(state_dir=state, before=state.open()) as controller:
            await asyncio.sleep(2)
            assert controller.engine.ledger.reserved() == GIB
            assert controller.pausing.paused == {"some-uuid"}
            assert controller.engine.state.inherited_plugs == plugs, "until that VM is seen"
            assert controller.engine.state.inherited_sizes == sizes, "likewise"
            assert controller.engine.state.inherited_boots == boots
            assert state._saved is not None
            assert state._saved.plugs == plugs, "and for the one after it"
            assert state._saved.sizes == sizes
            assert state._saved.boots == boots
        state.close()

    run(story())


def test_a_boot_of_a_vm_that_never_came_back_is_remembered_until_it_would_be_over(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.open()
    boots = {"boots": InheritedBoot(1.0, None), "reports": InheritedBoot(1.0, 8.0)}
    state.save(Remembered(boots=boots))
    state.close()

    async def story() -> None:
        state = StateDir(tmp_path)

        def kept() -> set[str]:
            return set(state._saved.boots) if state._saved is not None else set()

        async with Host().controller(state_dir=state, before=state.open()):
            await asyncio.sleep(5)
            assert kept() == {"boots", "reports"}
            await until(lambda: kept() == {"reports"}, "10 s after its start the first is settled")
            await until(lambda: not kept(), "and the second 10 s after its agent's first report")
        state.close()

    run(story())


async def stands_still(host: Host, controller: Controller) -> SimulatedVm:
    """A VM that is reset where another has grown into what it left."""
    web = host.vm("web", workload=Workload(steady(50 * MIB)))
    db = host.vm("db", workload=Workload(steady(50 * MIB)))
    await until(lambda: web.actual_bytes < 512 * MIB and db.actual_bytes < 512 * MIB, "both get smaller")
    db.work(Workload(steady(1200 * MIB)))
    await until(lambda: controller.engine.headroom_bytes < 300 * MIB, "db grows")
    host.hypervisor.reset(web)
    await until(lambda: web.state is RunState.PAUSED, "web stands still", 1.0)
    await until(controller.settled, "this is known")
    return web


async def killed() -> None:
    """What a controller does at its end when it has no time for it."""


def test_a_vm_that_stands_still_runs_on_with_the_heir_of_a_controller_that_was_killed(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host(2 * GIB)
        state = StateDir(tmp_path)
        async with host.controller(state_dir=state, before=state.open()) as controller:
            web = await stands_still(host, controller)
            controller._let_run = killed  # type: ignore[method-assign]
        state.close()
        await asyncio.sleep(3)
        assert web.state is RunState.PAUSED
        state = StateDir(tmp_path)
        async with host.controller(state_dir=state, before=state.open()):
            await until(lambda: web.state is RunState.RUNNING, "the heir lets it run", 25.0)
            await asyncio.sleep(1)
            assert state._saved == Remembered()
        state.close()

    run(story())


def test_a_controller_that_is_told_to_end_leaves_nobody_standing_still(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host(2 * GIB)
        state = StateDir(tmp_path)
        async with host.controller(state_dir=state, before=state.open()) as controller:
            web = await stands_still(host, controller)
        assert web.state is RunState.RUNNING
        assert state._saved == Remembered()
        state.close()

    run(story())


def test_nobody_is_stopped_when_that_cannot_be_written_down(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host(2 * GIB)
        state = StateDir(tmp_path)
        async with host.controller(state_dir=state, before=state.open()) as controller:
            state.save = full_disk  # type: ignore[method-assign]
            with pytest.raises(AssertionError, match="web stands still"):
                await stands_still(host, controller)
            assert controller.engine.ledger.overdraft is not None
        state.close()

    run(story())


def full_disk(_: Remembered) -> None:
    raise OSError(28, "No space left on device")


def test_a_second_controller_on_the_same_host_is_refused_and_told_who_is_in_charge(tmp_path: Path) -> None:
    first, second = StateDir(tmp_path), StateDir(tmp_path)
    first.open()
    with pytest.raises(AlreadyRunning, match=r"pid \d+"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_a_broken_state_file_is_said_and_starts_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"reservations": [')
    state = StateDir(tmp_path)
    assert state.open() == Remembered()
    assert state.problem is not None
    state.close()


def test_a_recording_played_again_gives_the_same_commands(tmp_path: Path) -> None:
    file = tmp_path / "record.jsonl"

    async def story() -> None:
        host = Host(2 * GIB)
        host.vm("web")
        host.vm("db")
        async with host.controller(recorder=Recorder(file, host.settings, 0.0)):
            await asyncio.sleep(120)

    run(story())
    with file.open("rb") as stream:
        played = list(replay(Recording(stream)))
    assert len(played) > 100
    assert any(isinstance(c, SetTarget) for _, decided, _ in played for c in decided.commands)
    assert all(decided.commands == again for _, decided, again in played)


def test_with_another_capacity_a_recording_tells_what_would_have_been_done(tmp_path: Path) -> None:
    file = tmp_path / "record.jsonl"

    async def story() -> None:
        host = Host(4 * GIB)
        host.vm("web")
        async with host.controller(recorder=Recorder(file, host.settings, 0.0)):
            await asyncio.sleep(60)

    run(story())
    with file.open("rb") as stream:
        recording = Recording(stream)
        tight = replace(recording.settings, capacity_bytes=512 * MIB)
        headrooms = [engine.headroom_bytes for engine, _, _ in replay(recording, tight)]
    assert min(headrooms) < 0 <= headrooms[-1]


def test_the_loops_own_lateness_is_measured_also_while_it_is_blocked_and_not_what_it_gathers() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        host = Host()
        host.vm("web")
        async with host.controller() as controller:
            await asyncio.sleep(10)
            assert len(controller.latenesses) >= 9
            assert max(controller.latenesses) < 0.01, "an event was gathered with others"
            await asyncio.sleep(10.9 - loop.now)
            loop.now += 0.4  # it does something else for so long
            await asyncio.sleep(1)
            assert 0.25 < max(controller.latenesses) < 0.31

    run(story())
