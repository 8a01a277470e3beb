"""One step of the engine: who is looked at, what goes on, and what becomes of an overdraft."""

from dataclasses import replace
from typing import Any

import pytest

from host_controller.core import engine as engine_module
from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.grants import Purse
from host_controller.core.model import HostFacts, RunState
from host_controller.core.operations import Plug, Resize
from host_controller.core.operations.resize import ANSWER_LIMIT
from host_controller.core.operations.stages import Move, Outcome, Stage, done, dropped, failed, go
from host_controller.core.policy.plan import HOLD, WAIT
from host_controller.core.vm.check_progress import PATIENCE_IN_NEED
from host_controller.core.vm.record import Phase
from host_controller.units import GIB, MIB
from tests.support import build
from tests.support.words import REPORT

UUID = "uuid-of-web"
OVERHEAD_MIB = 64


class Host:
    """An engine with one VM that runs calmly with 512 MiB."""

    def __init__(self, capacity_mib: int = 4096, **settings: Any) -> None:
        self.engine = Engine(build.settings(capacity_mib, keep_ready_bytes=0, **settings))
        self.now = 100.0
        self.sequence = 10
        self.engine.handle(
            hv.VmAppeared(UUID, build.config(), RunState.RUNNING, (), 512 * MIB, booted=True), 90.0
        )
        for now in (91.0, 92.0):
            self.hear(200, now)
            self.decide(now)
        self.engine.notices()

    def hear(self, demand_mib: int, now: float | None = None) -> None:
        now = self.now if now is None else now
        self.sequence += 1
        available = (512 - demand_mib) * MIB
        said = REPORT._replace(sequence=self.sequence, available_bytes=available, free_bytes=available)
        for event in (
            hv.GuestSpoke(UUID, said),
            hv.BalloonSampled(UUID, 512 * MIB, None),
            hv.ResidentSampled(UUID, 400 * MIB, 20 * MIB),
        ):
            self.engine.handle(event, now)

    def decide(self, now: float | None = None) -> list[hv.Command]:
        return self.engine.decide(self.now if now is None else now)

    @property
    def vm(self) -> Any:
        return self.engine.vms[UUID]

    def add(self, name: str) -> None:
        """Another VM, which uses 200 of its 512 MiB."""
        config = build.config(name)
        self.engine.handle(
            hv.VmAppeared(config.uuid, config, RunState.RUNNING, (), 512 * MIB, booted=True), self.now
        )
        available = 312 * MIB
        said = REPORT._replace(sequence=1, available_bytes=available, free_bytes=available)
        for event in (
            hv.GuestSpoke(config.uuid, said),
            hv.BalloonSampled(config.uuid, 512 * MIB, None),
            hv.ResidentSampled(config.uuid, 400 * MIB, 20 * MIB),
        ):
            self.engine.handle(event, self.now)

    def told(self) -> list[tuple[str, str | None, str]]:
        found = self.engine.notices()
        assert all(90.0 <= one.at <= 200.0 for one in found), "each has its time"
        return [(one.kind, one.vm, one.text) for one in found]


def test_what_others_look_at_is_what_the_step_has_found() -> None:
    host = Host()
    engine = host.engine
    assert host.vm.phase is Phase.LIVE
    assert engine.charges == {UUID: (512 + OVERHEAD_MIB) * MIB}
    assert engine.headroom_bytes == (4096 - 512 - OVERHEAD_MIB) * MIB
    assert engine.budget_bytes > 0
    assert set(engine.goals) == set(engine.claims) == {UUID}
    assert (engine.ready_bytes, engine.waiting_bytes, engine.uncovered_bytes) == (0, 0, 0)
    assert engine.decisions[UUID].action is HOLD


def test_only_a_vm_that_something_happened_to_is_decided_on() -> None:
    host = Host()
    host.decide(101.0)
    before = host.engine.decisions[UUID].at
    assert host.decide(102.0) == []
    assert host.engine.decisions[UUID].at == before
    host.hear(200, 103.0)
    host.decide(103.0)
    assert host.engine.decisions[UUID].at == 103.0


def test_notices_are_told_once() -> None:
    host = Host()
    host.engine.handle(hv.JobChanged(UUID, "save"), 100.0)
    assert host.told() == [("job", UUID, "web: save began")]
    assert host.told() == []


def test_a_vm_that_does_not_have_what_it_should_have_is_looked_at_again_in_every_step() -> None:
    host = Host(600)
    host.hear(480, 100.0)
    host.decide(100.0)
    assert host.engine.decisions[UUID].action is WAIT
    host.decide(101.0)
    host.decide(102.0)
    assert host.engine.decisions[UUID].at == 102.0


def test_a_vm_that_is_gone_is_forgotten_in_every_book() -> None:
    host = Host()
    host.hear(480)
    host.decide()
    host.engine.handle(hv.VmGone(UUID, "shut down"), 101.0)
    host.decide(101.0)
    assert (host.engine.charges, host.engine.goals, host.engine.decisions) == ({}, {}, {})
    assert host.engine.headroom_bytes == 4096 * MIB
    host.decide(102.0)


def test_while_the_hypervisor_cannot_be_reached_nothing_is_commanded() -> None:
    host = Host()
    host.engine.handle(hv.ConnectionChanged(False, "gone"), 100.0)
    host.hear(480)
    assert host.decide() == []
    assert host.engine.decisions[UUID].at < 100.0
    host.engine.handle(hv.ConnectionChanged(True, "back"), 101.0)
    host.hear(480, 101.0)
    assert host.decide(101.0) != []


def test_what_is_granted_is_charged_in_the_same_step_and_weighed_in_the_next() -> None:
    host = Host()
    host.hear(490)
    commands = host.decide()
    assert [type(one) for one in commands if not isinstance(one, hv.SetPace)] == [hv.SendToGuest]
    plug = host.engine.state.operations[UUID]
    assert isinstance(plug, Plug)
    assert host.engine.charges[UUID] == (512 + OVERHEAD_MIB) * MIB + plug.size_bytes
    assert host.engine.headroom_bytes == 4096 * MIB - host.engine.charges[UUID]
    assert UUID in host.engine.state.dirty


def about_to_grow(capacity_mib: int = 4096) -> tuple[Host, Plug]:
    """A DIMM is paid for, and its zone is named."""
    host = Host(capacity_mib)
    host.hear(490)
    host.decide()
    plug = host.engine.state.operations[UUID]
    assert isinstance(plug, Plug)
    plug.stage = Stage.NAMED
    return host, plug


def test_growth_that_was_paid_for_goes_on() -> None:
    host, plug = about_to_grow()
    commands = host.decide(100.1)
    assert [one.size_bytes for one in commands if isinstance(one, hv.AttachDimm)] == [plug.size_bytes]
    assert UUID in host.engine.state.dirty


def test_growth_that_was_paid_for_goes_on_where_not_a_byte_is_left() -> None:
    host, plug = about_to_grow()
    host.engine.ledger.unmanaged_bytes = host.engine.headroom_bytes
    commands = host.decide(100.1)
    assert host.engine.headroom_bytes == 0
    assert [one.size_bytes for one in commands if isinstance(one, hv.AttachDimm)] == [plug.size_bytes]


def test_growth_that_goes_on_has_its_time_from_now_on() -> None:
    host = Host()
    resize = Resize(host.engine.state.ticket, size_bytes=0, raise_to_bytes=None, zone="movable")
    resize.stage = Stage.NAMED
    host.engine.state.operations[UUID] = resize
    host.engine.state.dirty.add(UUID)
    host.vm.virtio_mem.promise(128 * MIB)
    resize.size_bytes = 128 * MIB
    commands = host.decide(100.1)
    assert [type(one) for one in commands if isinstance(one, hv.ResizeVirtioMem)] == [hv.ResizeVirtioMem]
    host.hear(200, 100.1 + ANSWER_LIMIT)
    host.decide(100.1 + ANSWER_LIMIT)
    assert host.engine.state.operations == {UUID: resize}
    host.hear(200, 100.3 + ANSWER_LIMIT)
    host.decide(100.3 + ANSWER_LIMIT)
    assert ("operation", UUID, "web: the hypervisor did not answer") in host.told()


def operation_of(host: Host, name: str, stage: Stage) -> Plug:
    """A hot add of a VM that is at this stage."""
    plug = Plug(host.engine.state.ticket, size_bytes=128 * MIB, zone="movable", stage=stage)
    host.engine.state.operations[f"uuid-of-{name}"] = plug
    host.engine.state.dirty.add(f"uuid-of-{name}")
    return plug


@pytest.mark.parametrize(("stage", "kind"), [(Stage.NEW, hv.SendToGuest), (Stage.NAMED, hv.AttachDimm)])
def test_in_one_step_the_operations_of_all_vms_go_on(stage: Stage, kind: type[hv.Command]) -> None:
    host = Host()
    host.add("db")
    host.decide()
    for name in ("web", "db"):
        operation_of(host, name, stage)
    commands = [one for one in host.decide(100.1) if isinstance(one, kind)]
    assert [one.vm for one in commands] == ["uuid-of-web", "uuid-of-db"]  # type: ignore[attr-defined]


def test_an_operation_goes_on_in_the_step_in_which_another_vm_is_stopped() -> None:
    host = Host()
    host.add("db")
    host.decide()
    operation_of(host, "db", Stage.NEW)
    host.engine.ledger.unmanaged_bytes = 4 * GIB
    host.engine.handle(hv.VmReset(UUID), 100.1)
    commands = host.decide(100.1)
    assert [one.vm for one in commands if isinstance(one, hv.Suspend)] == [UUID]
    assert [one.vm for one in commands if isinstance(one, hv.SendToGuest)] == ["uuid-of-db"]


def test_what_does_not_grow_goes_on_in_an_overdraft() -> None:
    host = Host()
    plug = operation_of(host, "web", Stage.COMING_ONLINE)
    plug.size_bytes = GIB
    host.engine.ledger.unmanaged_bytes = 4 * GIB
    host.decide(100.1)
    assert plug.outcome is Outcome.UNDER_WAY, "the DIMM is there already"


def test_a_vm_that_came_and_went_between_two_steps_leaves_nothing() -> None:
    host = Host()
    host.add("db")
    host.engine.handle(hv.VmGone("uuid-of-db", "destroyed"), 100.0)
    host.decide()
    assert list(host.engine.charges) == [UUID]


def test_before_anything_is_known_nothing_is_uncovered() -> None:
    assert Engine(build.settings()).uncovered_bytes == 0


def test_growth_that_was_paid_for_is_given_up_in_an_overdraft() -> None:
    host, plug = about_to_grow()
    host.engine.ledger.unmanaged_bytes = 4 * GIB
    commands = host.decide(100.1)
    assert not [one for one in commands if isinstance(one, hv.AttachDimm)]
    assert plug.outcome is Outcome.DROPPED
    assert host.engine.state.operations == {}
    assert host.vm.plug.pending_bytes == 0
    assert ("operation", UUID, "web: it was given up: the host has no memory for it any more") in host.told()


def test_growth_that_was_paid_for_is_given_up_in_an_emergency() -> None:
    host, plug = about_to_grow()
    host.engine.state.emergency.observe(HostFacts(1.0, GIB, MIB), GIB)
    host.decide(100.1)
    assert plug.outcome is Outcome.DROPPED


def test_growth_of_a_vm_that_must_not_be_touched_waits_for_its_next_look() -> None:
    host, plug = about_to_grow()
    host.vm.pauses.job_is("migration")
    host.engine.state.dirty.clear()
    host.engine.handle(hv.GuestNoise(UUID, "json", 1), 100.1)
    commands = host.decide(100.1)
    assert not [one for one in commands if isinstance(one, hv.AttachDimm)]
    assert plug.outcome is Outcome.DROPPED, "it has changed nothing yet"


def test_in_an_emergency_nobody_is_given_anything() -> None:
    host = Host()
    host.engine.handle(hv.HostSampled(HostFacts(100.0, 64 * GIB, 32 * GIB)), 100.0)
    host.engine.state.emergency.observe(HostFacts(100.0, GIB, MIB), GIB)
    host.hear(490)
    assert not [one for one in host.decide() if not isinstance(one, hv.SetPace)]
    assert host.engine.state.operations == {}


@pytest.mark.parametrize("unseen", [0.0, 0.4])
def test_an_overdraft_is_told_when_it_begins_and_when_it_ends_with_its_cause(unseen: float) -> None:
    host = Host()
    host.engine.ledger.unmanaged_bytes = 4 * GIB
    host.engine.state.last_cause = "unmanaged VMs hold more"
    host.engine.state.unseen_seconds = unseen
    host.decide(100.0)
    assert host.engine.uncovered_bytes == 576 * MIB
    late = " within the last 0.4 s" if unseen else ""
    assert host.told() == [("overdraft", None, "overdraft of 576 MiB: unmanaged VMs hold more" + late)]
    assert host.engine.state.unseen_seconds == 0.0
    host.decide(100.5)
    assert host.told() == []
    host.engine.ledger.unmanaged_bytes = 0
    host.decide(103.0)
    assert host.engine.uncovered_bytes == 0
    assert host.told() == [("overdraft", None, "overdraft ended after 3.0 s; it was 576 MiB at most")]


def test_what_a_vm_that_stands_still_cannot_take_is_no_overdraft() -> None:
    host = Host(512)
    assert host.engine.uncovered_bytes == OVERHEAD_MIB * MIB
    host.engine.handle(hv.VmReset(UUID), 100.0)
    commands = host.decide(100.0)
    assert [one.vm for one in commands if isinstance(one, hv.Suspend)] == [UUID]
    host.engine.handle(hv.VmStateChanged(UUID, RunState.PAUSED), 100.1)
    host.decide(100.1)
    assert host.engine.headroom_bytes == -OVERHEAD_MIB * MIB
    assert host.engine.uncovered_bytes == 0, "112 MiB of its charge it does not hold"


@pytest.mark.parametrize(
    ("weight", "kept"),
    [(200, "that is no more than its weight gives it"), (100, "is brought into its own swap slowly")],
)
def test_what_a_weight_is_worth_is_its_part_of_the_budget(weight: int, kept: str) -> None:
    """Of some 900 MiB a VM that uses all of its 512, without swap, leaves less than that to one with swap."""
    host = Host()
    host.add("db")
    config = build.config(limits=replace(build.LIMITS, weight=weight))
    host.engine.handle(hv.VmConfigChanged(UUID, config), host.now)
    host.engine.ledger.room_wanted["new"] = (4096 - 2 * OVERHEAD_MIB - 900) * MIB
    for uuid, swap_bytes in ((UUID, 4 * GIB), ("uuid-of-db", 0)):
        said = REPORT._replace(
            sequence=100, available_bytes=16 * MIB, free_bytes=16 * MIB, swap_disk_free_bytes=swap_bytes
        )
        host.engine.handle(hv.GuestSpoke(uuid, said), host.now)
    host.decide()
    decision = host.engine.decisions[UUID]
    assert (decision.action, decision.blocked_by) == (WAIT, f"it uses what it has, and {kept}")


def test_each_vm_is_told_its_pace_once() -> None:
    host = Host()
    paces = [one for one in host.decide() if isinstance(one, hv.SetPace)]
    assert paces == []
    host.engine.handle(hv.JobChanged(UUID, "save"), 100.0)
    assert [one for one in host.decide() if isinstance(one, hv.SetPace)] == [hv.SetPace(UUID, 0.5)]


def test_an_end_is_what_it_is_called() -> None:
    assert go(Stage.NAMING, "so") == Move(Stage.NAMING, "so")
    assert go(Stage.NAMING) == Move(Stage.NAMING, "")
    assert (done(), done("so")) == (Move(Outcome.DONE, ""), Move(Outcome.DONE, "so"))
    assert (failed(), failed("so")) == (Move(Outcome.FAILED, ""), Move(Outcome.FAILED, "so"))
    assert dropped("so") == Move(Outcome.DROPPED, "so")


@pytest.mark.parametrize(("waiting_bytes", "told"), [(MIB, True), (0, False)])
def test_patience_with_a_balloon_is_short_while_somebody_waits(
    waiting_bytes: int, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host()
    purses: list[bool] = []

    def purse(*arguments: Any) -> Purse:
        purses.append(arguments[3])
        return Purse(*arguments)

    monkeypatch.setattr(engine_module, "Purse", purse)
    host.vm.balloon.starts_with(300 * MIB)
    host.vm.progress.stands(512 * MIB, 100.0)
    host.hear(200, 100.1 + PATIENCE_IN_NEED)
    host.engine._budget.waiting_bytes = waiting_bytes
    host.decide(100.1 + PATIENCE_IN_NEED)
    assert any("did not follow its balloon target" in text for _, _, text in host.told()) is told
    assert purses == [False], "nobody waits, once all is laid out"
    host.engine.state.ledger.room_wanted["new"] = 8 * GIB
    host.hear(200, 110.0)
    host.decide(110.0)
    assert purses == [False, True]
