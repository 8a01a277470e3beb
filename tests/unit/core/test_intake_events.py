"""Each event, one by one: what it changes in what is known, and what the operator is told."""

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.books.ledger import Ledger
from host_controller.core.intake import apply
from host_controller.core.intake.memory import TELL_AGAIN_SECONDS
from host_controller.core.model import BalloonStats, Dimm, Growth, HostFacts, RunState, Unmanaged
from host_controller.core.operations import Plug, Resize, Unplug
from host_controller.core.operations.operation import ONLINE_LIMIT
from host_controller.core.operations.stages import Outcome, Stage
from host_controller.core.operations.standstill import Stage as Stand
from host_controller.core.operations.standstill import Standstill
from host_controller.core.operator_events import HoldVm, MakeRoom, Release, Reserve, SettingsChanged
from host_controller.core.policy import virtio_mem_plan
from host_controller.core.policy.spare import spare_bytes
from host_controller.core.state import Notice, State
from host_controller.core.vm import phases
from host_controller.core.vm.demand import margin_bytes
from host_controller.core.vm.growth import Rest
from host_controller.core.vm.inheritance import InheritedBoot, InheritedPlug
from host_controller.core.vm.record import Phase, Vm
from host_controller.core.vm.report_validation import RESTART_SECONDS
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import GIB, MIB
from tests.support import build
from tests.support.words import REPORT

UUID = "uuid-of-web"
HELLO = wire.Hello("0123abcd-0000-0000-0000-000000000000", "1", "6.1", 128 * MIB, True, "offline", "kernel")


def state_of(*vms: Vm, capacity_mib: int = 4096, **settings: Any) -> State:
    made = build.settings(capacity_mib, **settings)
    return State(made, Ledger(made), {vm.config.uuid: vm for vm in vms})


def after(vm: Vm, *events: Any, now: float = 100.0) -> State:
    state = state_of(vm)
    for event in events:
        apply(state, event, now)
    return state


def told(state: State) -> list[tuple[str, str | None, str]]:
    assert None not in {one.at for one in state.notices}
    return [(one.kind, one.vm, one.text) for one in state.notices]


def says(**fields: Any) -> hv.GuestSpoke:
    return hv.GuestSpoke(UUID, REPORT._replace(**fields))


def appears(vm: Vm | None = None, **changes: Any) -> hv.VmAppeared:
    values: dict[str, Any] = {
        "vm": UUID,
        "config": (vm or build.vm()).config,
        "state": RunState.RUNNING,
        "dimms": (),
        "actual_bytes": 300 * MIB,
        "booted": False,
    }
    return hv.VmAppeared(**values | changes)


# --- the host and its operator ---


def test_each_event_about_a_vm_makes_it_due_and_one_about_a_stranger_changes_nothing_else() -> None:
    state = after(build.vm(), hv.BalloonChanged(UUID, 200 * MIB), hv.VmReset("stranger"))
    assert state.dirty == {UUID, "stranger"}
    assert list(state.vms) == [UUID]


def test_a_second_makes_those_due_whose_time_has_come_and_drops_reservations() -> None:
    web, db = build.vm(), build.vm(config={"uuid": "db", "name": "db"})
    web.pace.look(5.0, 100.0)
    db.pace.look(5.0, 100.1)
    state = state_of(web, db)
    state.ledger.reservations["new"] = Reserve("new", MIB, 100.0)
    apply(state, hv.Tick(), 100.0)
    assert state.dirty == {UUID}
    assert state.ledger.reservations == {}
    assert list(state.notices) == [
        Notice(100.0, "reservation", None, None, "the reservation for new ran out")
    ]


def test_a_connection_that_is_lost_and_found_is_told() -> None:
    state = after(build.vm(), hv.ConnectionChanged(False, "broken pipe"))
    assert not state.connected
    apply(state, hv.ConnectionChanged(True, "qemu:///system"), 101.0)
    assert state.connected
    assert told(state) == [
        ("connection", None, "the hypervisor was lost: broken pipe"),
        ("connection", None, "the hypervisor was reached: qemu:///system"),
    ]


def test_new_settings_are_in_force_for_every_vm_and_a_capacity_that_fell_is_a_cause() -> None:
    state = state_of(build.vm())
    apply(state, SettingsChanged(build.settings(5000)), 1.0)
    assert (state.last_cause, state.dirty, state.settings.capacity_bytes) == ("start", {UUID}, 5000 * MIB)
    apply(state, SettingsChanged(build.settings(5000)), 2.0)
    assert state.last_cause == "start"
    apply(state, SettingsChanged(build.settings(3000)), 3.0)
    assert state.last_cause == "capacity was lowered"
    assert state.ledger.capacity() == 3000 * MIB


def test_room_is_wanted_then_promised_then_released() -> None:
    state = state_of()
    apply(state, MakeRoom("new", 700 * MIB), 1.0)
    assert (state.ledger.wanted(), state.ledger.reserved()) == (700 * MIB, 0)
    apply(state, Reserve("new", 700 * MIB, 60.0, huge_page_bytes=2 * MIB, huge_bytes=GIB), 2.0)
    assert state.ledger.wanted() == 0
    assert state.ledger.reservations == {"new": Reserve("new", 700 * MIB, 60.0, 2 * MIB, GIB)}
    apply(state, MakeRoom("new", 100 * MIB), 3.0)
    apply(state, Release("new"), 4.0)
    apply(state, Release("new"), 5.0)
    apply(state, Reserve("other", MIB, 60.0), 6.0)
    assert (state.ledger.wanted(), list(state.ledger.reservations)) == (0, ["other"])


def test_what_has_started_stays_promised_until_a_hypervisor_tells_of_it_or_has_had_its_time() -> None:
    state = state_of()
    plain, before = (Unmanaged("u", "plain", GIB),), (Unmanaged("v", "new", GIB),)
    apply(state, Reserve("plain", GIB, 130.0, started_at=10.0), 10.0)
    apply(state, Reserve("new", GIB, 130.0), 10.0)
    apply(state, hv.HostSampled(HostFacts(9.5, 64 * GIB, 32 * GIB, unmanaged=plain)), 10.1)
    assert list(state.ledger.reservations) == ["plain", "new"], "what was seen is the VM's last run"
    apply(state, hv.HostSampled(HostFacts(10.5, 64 * GIB, 32 * GIB, unmanaged=(*before, *plain))), 10.6)
    assert list(state.ledger.reservations) == ["new"], "and the next run of the other is not there yet"
    apply(state, Reserve("plain", GIB, 130.0, started_at=11.0), 11.0)
    apply(state, hv.ConnectionChanged(up=False, detail="away"), 12.0)
    for now in (75.0, 131.0, 900.0):
        apply(state, hv.Tick(), now)
    assert list(state.ledger.reservations) == ["plain"]
    apply(state, hv.ConnectionChanged(up=True, detail="there"), 901.0)
    apply(state, hv.Tick(), 960.0)
    assert list(state.ledger.reservations) == ["plain"]
    apply(state, hv.Tick(), 1021.0)
    assert state.ledger.reservations == {}


def test_what_was_seen_before_it_was_said_to_have_started_is_promised_nothing_more() -> None:
    state = state_of(build.vm())
    apply(state, Reserve("web", GIB, 130.0), 10.0)
    assert list(state.ledger.reservations) == ["web"], "it may be about to start again"
    apply(state, Reserve("web", GIB, 130.0, started_at=10.0), 10.0)
    assert state.ledger.reservations == {}


def test_an_emergency_is_told_when_it_begins_and_when_it_ends() -> None:
    state = state_of(reserve_bytes=1000 * MIB)
    for available in (900, 100, 90, 990):
        apply(state, hv.HostSampled(HostFacts(1.0, 64 * GIB, available * MIB)), 1.0)
    assert [(kind, vm) for kind, vm, _ in told(state)] == [("emergency", None)] * 2
    first, last = (text for _, _, text in told(state))
    assert first.startswith("emergency: only 100 MiB")
    assert last == "the emergency is over"


def test_a_host_that_has_less_for_vms_is_a_cause() -> None:
    state = state_of(capacity_follows=True, reserve_follows=True)
    facts = HostFacts(1.0, 64 * GIB, 32 * GIB, ordinary_bytes=64 * GIB)
    apply(state, hv.HostSampled(facts), 1.0)
    apply(state, hv.HostSampled(replace(facts, foreign_bytes=GIB)), 2.0)
    assert state.last_cause == "QEMUs that are not this libvirt's hold 1 GiB more"
    assert state.host is not None
    assert state.host.facts.foreign_bytes == GIB


# --- a VM appears ---


def test_a_vm_whose_start_was_seen_starts_with_its_boot_target() -> None:
    config = replace(build.vm().config, growth=Growth.BALLOON)
    state = state_of()
    state.ledger.reservations["web"] = Reserve("web", GIB, 500.0)
    apply(state, appears(config=config, booted=True, actual_bytes=512 * MIB), 10.0)
    web = state.vms[UUID]
    assert (web.phase, web.since, web.booted_at) == (Phase.STARTING, 10.0, 10.0)
    assert (web.balloon.target_bytes, web.balloon.actual_at) == (512 * MIB, 10.0)
    assert not web.balloon.resend
    assert state.ledger.reservations == {}
    assert state.last_cause == "web was started"
    assert told(state) == [("appeared", UUID, "web was started")]


def test_a_vm_that_was_found_running_is_taken_over_and_its_definition_is_no_word_of_its_driver() -> None:
    state = state_of()
    dimm = Dimm("dimm0", 128 * MIB, None)
    found = appears(
        dimms=(dimm,), virtio_mem_bytes=64 * MIB, virtio_mem_requested_bytes=96 * MIB, state=RunState.PAUSED
    )
    apply(state, found, 10.0)
    web = state.vms[UUID]
    assert (web.phase, web.balloon.target_bytes, web.balloon.actual_at) == (Phase.TAKEOVER, None, -math.inf)
    assert web.balloon.actual_bytes == 300 * MIB
    assert web.dimms.plugged == (dimm,)
    device = web.virtio_mem
    assert (device.current_bytes, device.requested_bytes) == (64 * MIB, 96 * MIB)
    assert (device.may_hold_bytes, device.confirmed_bytes, device.moved_at) == (96 * MIB, 96 * MIB, 10.0)
    assert device.ceiling_bytes == 96 * MIB
    assert web.since == web.booted_at == 10.0
    assert web.pauses.state is RunState.PAUSED
    assert state.last_cause == "web was found running"


@pytest.mark.parametrize("booted", [True, False])
def test_a_vm_that_is_seen_again_keeps_what_was_seen_of_it_and_ends_what_was_under_way(booted: bool) -> None:
    known = build.vm(300, paused=True, overhead_bytes=90 * MIB, pending_bytes=128 * MIB)
    known.guest.count("json", 2)
    known.virtio_mem.ask(UUID, 1, 512 * MIB, 5.0)
    state = state_of(known)
    state.operations[UUID] = operation = Plug(state.ticket, size_bytes=128 * MIB)
    operation.stage = Stage.ATTACHING
    apply(state, appears(known, booted=booted), 10.0)
    web = state.vms[UUID]
    assert web is not known
    assert (web.pauses.paused, web.evidence.overhead_bytes, web.guest.noise) == (True, 90 * MIB, {"json": 2})
    assert state.operations == {}
    # A new QEMU was asked for nothing; of the same one both may still come.
    assert web.plug.pending_bytes == (0 if booted else 128 * MIB)
    assert web.virtio_mem.may_hold_bytes == (0 if booted else 512 * MIB)


@pytest.mark.parametrize(
    ("stage", "pending_mib", "inherited"),
    [
        (Stage.ATTACHING, 128, True),
        (Stage.OVERDUE, 128, True),
        (Stage.NAMING, 128, False),
        (Stage.ATTACHING, 0, False),
        (None, 128, False),
    ],
)
def test_only_a_dimm_that_the_hypervisor_was_asked_for_may_come_after_a_reconnection(
    stage: Stage | None, pending_mib: int, inherited: bool
) -> None:
    known = build.vm(300, pending_bytes=pending_mib * MIB)
    state = state_of(known)
    if stage is not None:
        state.operations[UUID] = operation = Plug(state.ticket, size_bytes=128 * MIB)
        operation.stage = stage
    apply(state, appears(known), 10.0)
    assert state.vms[UUID].plug.awaited is inherited
    again = appears(known)
    apply(state, again, 20.0)
    assert state.vms[UUID].plug.awaited is inherited, "also after the second one"


@pytest.mark.parametrize(("dimms", "awaited"), [(0, True), (1, True), (2, False)])
def test_a_dimm_of_a_controller_before_us_is_awaited_unless_it_is_there(dimms: int, awaited: bool) -> None:
    state = state_of()
    state.inherited_plugs[UUID] = InheritedPlug(256 * MIB, 1)
    plugged = tuple(Dimm(f"dimm{number}", 128 * MIB, None) for number in range(dimms))
    apply(state, appears(dimms=plugged), 10.0)
    assert state.vms[UUID].plug.awaited is awaited
    assert state.vms[UUID].plug.pending_bytes == 256 * MIB * awaited
    assert state.inherited_plugs == {}


@pytest.mark.parametrize(("booted", "charged_mib"), [(False, 96), (True, 0)])
def test_what_a_controller_before_us_had_asked_a_device_for_is_charged_until_it_is_asked_anew(
    booted: bool, charged_mib: int
) -> None:
    state = state_of()
    state.inherited_sizes[UUID] = 96 * MIB
    apply(state, appears(booted=booted, config=build.config(virtio_mem_bytes=512 * MIB)), 10.0)
    device = state.vms[UUID].virtio_mem
    assert (device.may_hold_bytes, device.unsure) == (charged_mib * MIB, not booted)
    assert state.inherited_sizes == {}


@pytest.mark.parametrize(
    ("booted", "boot", "since"),
    [
        (False, InheritedBoot(4.0, None), (4.0, math.inf)),
        (False, InheritedBoot(4.0, 6.0), (4.0, 6.0)),
        (False, InheritedBoot(90.0, 91.0), (10.0, 10.0)),  # a damaged state has it start in the future
        (False, InheritedBoot(-49.0, None), (-49.0, math.inf)),
        (False, InheritedBoot(-50.0, None), (10.0, -math.inf)),  # it is over after a minute
        (False, InheritedBoot(-80.0, -49.0), (-80.0, -49.0)),  # of its agent's
        (False, InheritedBoot(-80.0, -50.0), (10.0, -math.inf)),
        (False, None, (10.0, -math.inf)),
        (True, InheritedBoot(4.0, 6.0), (10.0, math.inf)),  # it was started anew since
    ],
)
def test_a_boot_that_a_controller_before_us_saw_goes_on_unless_it_is_over(
    booted: bool, boot: InheritedBoot | None, since: tuple[float, float]
) -> None:
    state = state_of()
    if boot is not None:
        state.inherited_boots[UUID] = boot
    apply(state, appears(booted=booted), 10.0)
    assert (state.vms[UUID].booted_at, state.vms[UUID].reports_since) == since
    assert state.inherited_boots == {}


STOPPED = Standstill(since=1.0, until=21.0, stage=Stand.STOPPING, vcpu_seconds=5.0)


@pytest.mark.parametrize(
    ("event", "goes_on", "notice"),
    [
        ({}, True, None),
        ({"vcpu_seconds": 5.05}, True, None),
        ({"vcpu_seconds": 5.2}, False, "web ran after we had stopped it: it is left as it is"),
        ({"booted": True}, False, None),
        ({"state": RunState.RUNNING}, False, None),
    ],
)
@pytest.mark.parametrize("whose", ["inherited", "ours"])
def test_a_standstill_goes_on_unless_somebody_else_let_the_vm_run(
    whose: str, event: dict[str, Any], goes_on: bool, notice: str | None
) -> None:
    state = state_of(build.vm(300))
    standstills = state.inherited_standstills if whose == "inherited" else state.standstills
    standstills[UUID] = replace(STOPPED)
    apply(state, appears(**{"state": RunState.PAUSED, "vcpu_seconds": None} | event), 10.0)
    web = state.vms[UUID]
    assert (UUID in state.standstills, web.pauses.stopped) == (goes_on, goes_on)
    assert state.inherited_standstills == {}
    if goes_on:
        assert state.standstills[UUID].stage is Stand.STANDING
        assert (web.phase, web.reset_at) == (Phase.STARTING, STOPPED.since), "not as it is found"
    assert [text for kind, vm, text in told(state) if (kind, vm) == ("reset", UUID)] == [notice] * bool(
        notice
    )


@pytest.mark.parametrize(
    ("stage", "vcpu_seconds", "at", "awaited"),
    [
        (Stand.STOPPING, None, 10.0, True),
        (Stand.STANDING, None, 10.0, True),  # as a controller before us leaves it behind
        (Stand.STANDING, 5.0, 10.0, False),  # it was stopped: somebody else let it run
        (Stand.STARTING, None, 10.0, False),
        (Stand.DUE, None, 10.0, False),
        (Stand.STOPPING, None, 600.0, True),  # long after it was to run on: its QEMU may have hung
    ],
)
def test_a_stop_without_an_answer_may_yet_come_to_a_vm_that_runs(
    stage: Stand, vcpu_seconds: float | None, at: float, awaited: bool
) -> None:
    state = state_of()
    state.inherited_standstills[UUID] = replace(STOPPED, stage=stage, vcpu_seconds=vcpu_seconds)
    plugged = {"virtio_mem_bytes": 512 * MIB, "virtio_mem_requested_bytes": 512 * MIB}
    apply(state, appears(state=RunState.RUNNING, **plugged), at)
    web = state.vms[UUID]
    assert web.pauses.stopped is False
    if awaited:
        assert state.standstills[UUID].stage is Stand.INHERITED
        assert web.phase is Phase.TAKEOVER, "its kernel may have been up for long, and uses what it has"
        assert web.balloon.target_bytes is None
        assert virtio_mem_plan.unfinished(web, at) is None, "all of it was once asked back"
    else:
        assert UUID not in state.standstills


# --- what QEMU, libvirt and the operator do with it ---


def test_a_vm_that_is_gone_takes_all_that_was_under_way_with_it() -> None:
    state = state_of(build.vm())
    state.operations[UUID] = Plug(state.ticket)
    state.standstills[UUID] = replace(STOPPED)
    apply(state, hv.VmGone(UUID, "shut down"), 10.0)
    assert (state.vms, state.operations, state.standstills) == ({}, {}, {})
    assert told(state) == [("gone", UUID, "web is gone: shut down")]
    assert state.dirty == {UUID}


def test_a_vm_with_nothing_under_way_is_gone_without_an_error_of_ours() -> None:
    state = after(build.vm(), hv.VmGone(UUID, "migrated"))
    assert told(state) == [("gone", UUID, "web is gone: migrated")]


def test_what_cannot_be_read_and_what_gives_nothing_back_is_told_of_its_vm() -> None:
    web = build.vm()
    state = after(web, hv.HostSampled(HostFacts(1.0, GIB, GIB, unread=((UUID, "EPERM"),))))
    apply(state, hv.VmConfigChanged(UUID, replace(web.config, pinned="VFIO")), 101.0)
    assert [(kind, vm) for kind, vm, _ in told(state)] == [
        ("unread", UUID),
        ("config", UUID),
        ("pinned", UUID),
    ]


def test_a_definition_that_is_as_it_was_is_no_news() -> None:
    web = build.vm(300, dimms_mib=(128,))
    state = after(web, hv.VmConfigChanged(UUID, web.config))
    assert told(state) == []
    apply(state, hv.VmConfigChanged(UUID, replace(web.config, boot_ram_bytes=256 * MIB)), 11.0)
    assert told(state) == [("config", UUID, "the limits of web were changed")]
    assert web.ram_bytes == 384 * MIB


def test_the_state_of_its_vcpus_and_its_jobs_are_known_and_told() -> None:
    web = build.vm()
    state = after(
        web,
        hv.VmStateChanged(UUID, RunState.PAUSED),
        hv.JobChanged(UUID, "migration"),
        hv.JobChanged(UUID, "migration"),
    )
    assert (web.pauses.state, web.pauses.job, web.pauses.ran_at) == (RunState.PAUSED, "migration", -math.inf)
    apply(state, hv.JobChanged(UUID, None), 101.0)
    apply(state, hv.VmStateChanged(UUID, RunState.RUNNING), 102.0)
    assert (web.pauses.job, web.pauses.ran_at) == (None, 102.0)
    assert told(state) == [
        ("state", UUID, "web is paused"),
        ("job", UUID, "web: migration began"),
        ("job", UUID, "web: migration is over"),
        ("state", UUID, "web is running"),
    ]


def test_who_lets_a_vm_run_that_we_had_stopped_is_told_of() -> None:
    state = state_of(build.vm())
    state.standstills[UUID] = one = replace(STOPPED, stage=Stand.STANDING, notices=[])
    apply(state, hv.VmStateChanged(UUID, RunState.RUNNING), 10.0)
    assert (one.stage, one.notices) == (Stand.OVER, ["somebody else let web run"])


def test_a_reset_begins_a_standstill_whose_time_goes_on_with_the_next_reset() -> None:
    web = build.vm(300)
    state = state_of(web, reset_wait_seconds=7.0)
    state.operations[UUID] = plug = Plug(state.ticket)
    apply(state, hv.VmReset(UUID), 10.0)
    assert (state.standstills[UUID].since, state.standstills[UUID].until) == (10.0, 17.0)
    assert (web.phase, web.reset_at, web.guest.zone) == (Phase.STARTING, 10.0, None)
    assert plug.outcome is Outcome.DROPPED
    assert state.last_cause == "web was reset"
    apply(state, hv.VmReset(UUID), 12.0)
    assert state.standstills[UUID].until == 17.0
    assert told(state) == [("reset", UUID, "web was reset")] * 2


def test_a_reset_ends_the_rests_that_the_last_kernel_has_earned() -> None:
    """Not that of a VM for which a DIMM may still come (rule: within-capacity)."""
    web = build.vm(300)
    web.plug_rest.failed(3600.0, 5.0)
    web.unplug_rest.failed(3600.0, 5.0)
    waits = build.vm(300, config={"uuid": "waits", "name": "waits"})
    phases.await_plug(waits, 128 * MIB, 5.0)
    state = state_of(web, waits)
    for uuid in (UUID, "waits"):
        apply(state, hv.VmReset(uuid), 10.0)
    assert web.plug_rest == web.unplug_rest == Rest()
    assert waits.plug_rest.until == math.inf


def test_the_operators_pause_is_known_and_told() -> None:
    web = build.vm()
    state = after(web, HoldVm(UUID, True))
    assert web.pauses.paused
    apply(state, HoldVm(UUID, False), 101.0)
    assert not web.pauses.paused
    assert told(state) == [
        ("held", UUID, "web was paused here"),
        ("held", UUID, "web was resumed here"),
    ]


# --- memory ---


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        ({}, True),
        ({"target_bytes": 500 * MIB}, False),  # nobody asked it to go where it is
        ({"target_bytes": 401 * MIB}, True),
        ({"target_bytes": 401 * MIB + 1}, False),
        ({"target_bytes": None}, False),
        ({"phase": Phase.STARTING}, False),
        ({"since": 98.5}, False),
        ({"since": 98.0}, False),
        ({"since": 97.9}, True),
        ({"changed_at": 98.5}, False),
    ],
)
def test_how_fast_a_balloon_inflates_is_learned_at_rest(changes: dict[str, Any], measured: bool) -> None:
    web = build.vm(500, **{"target_bytes": 300 * MIB, "actual_at": 99.0} | changes)
    after(web, hv.BalloonChanged(UUID, 400 * MIB))
    assert web.balloon.inflate_rate == (100 * MIB if measured else 0)


def test_a_guest_that_takes_memory_back_is_the_cause_and_for_how_long_nobody_knew() -> None:
    web = build.vm(300, actual_at=99.6)
    state = after(web, hv.BalloonChanged(UUID, 301 * MIB))
    assert state.last_cause == "web took memory back from its balloon"
    assert state.unseen_seconds == pytest.approx(0.4)
    granted = after(build.vm(300, ceiling_bytes=400 * MIB), hv.BalloonChanged(UUID, 400 * MIB))
    assert (granted.last_cause, granted.unseen_seconds) == ("start", 0.0)


def test_a_poll_that_shows_another_size_is_a_balloon_that_moved() -> None:
    web = build.vm(300, moved=False)
    after(web, hv.BalloonSampled(UUID, 300 * MIB, None), now=100.0)
    assert (web.balloon.moved, web.balloon.actual_at) == (False, 100.0)
    after(web, hv.BalloonSampled(UUID, 310 * MIB, None), now=101.0)
    assert (web.balloon.moved, web.balloon.actual_bytes) == (True, 310 * MIB)


@pytest.mark.parametrize(("actual_mib", "read_mib"), [(1024, 1024), (1025, 512), (1 << 40, 512)])
def test_a_balloon_size_that_wrapped_says_nothing(actual_mib: int, read_mib: int) -> None:
    web = build.vm(300)
    after(web, hv.BalloonChanged(UUID, actual_mib * MIB))
    assert web.balloon.actual_bytes == read_mib * MIB


def test_the_hosts_count_of_a_vm_is_taken_in() -> None:
    web = build.vm(300, claim_bytes=400 * MIB)
    after(web, hv.ResidentSampled(UUID, 250 * MIB, 70 * MIB, 30 * MIB))
    evidence = web.evidence
    assert (evidence.resident_bytes, evidence.overhead_bytes) == (250 * MIB, 70 * MIB)
    assert (evidence.huge_bytes, evidence.resident_at) == (30 * MIB, 100.0)
    assert web.balloon.claim_bytes == 300 * MIB


def test_dimms_that_somebody_else_changes_are_told_and_one_that_came_is_a_cause() -> None:
    web = build.vm(300)
    dimm = Dimm("dimm0", 256 * MIB, None)
    state = after(web, hv.DimmsChanged(UUID, (dimm,)))
    assert state.last_cause == "web got a DIMM from somebody else"
    assert web.dimms.changed_at == web.grown_at == 100.0
    state.last_cause = "start"
    apply(state, hv.DimmsChanged(UUID, (dimm,)), 101.0)
    apply(state, hv.DimmsChanged(UUID, ()), 102.0)
    assert state.last_cause == "start"
    assert told(state) == [("foreign", UUID, "somebody else changed the DIMMs of web")] * 2


def test_a_dimm_of_ours_moves_the_operation_on_and_is_nobody_elses() -> None:
    web = build.vm(300, pending_bytes=256 * MIB)
    web.guest.heard(build.facts(300, 200, at=99.0), 300 * MIB)
    state = state_of(web)
    state.operations[UUID] = plug = Plug(state.ticket, size_bytes=256 * MIB)
    plug.stage = Stage.ATTACHING
    apply(state, hv.DimmsChanged(UUID, (Dimm("dimm0", 256 * MIB, None),)), 100.0)
    assert (plug.stage, web.plug.pending_bytes) == (Stage.COMING_ONLINE, 0)
    assert told(state) == []


def test_an_inherited_dimm_that_came_ends_the_waiting_and_one_that_left_does_not() -> None:
    web = build.vm(300, dimms_mib=(128,), pending_bytes=256 * MIB, awaited_until=500.0)
    after(web, hv.DimmsChanged(UUID, ()))
    assert web.plug.awaited
    after(web, hv.DimmsChanged(UUID, (Dimm("x", 256 * MIB, None),)), now=101.0)
    assert (web.plug.awaited, web.plug.pending_bytes, web.plug_rest.until) == (False, 0, 101.0)


def test_a_size_of_virtio_mem_that_somebody_else_asked_for_is_told_and_is_a_cause() -> None:
    web = build.vm(300, virtio_mem=VirtioMem(0, 0, ceiling_bytes=512 * MIB))
    state = after(web, hv.VirtioMemChanged(UUID, 64 * MIB, 256 * MIB))
    text = "somebody else asked the virtio-mem device of web for 256 MiB"
    assert (state.last_cause, told(state)) == (text, [("foreign", UUID, text)])
    assert state.notices[0].at == 100.0
    assert web.virtio_mem.may_hold_bytes == 256 * MIB, "what we had promised is not to come any more"
    apply(state, hv.VirtioMemChanged(UUID, 128 * MIB), 101.0)
    assert (web.virtio_mem.current_bytes, web.virtio_mem.moved_at) == (128 * MIB, 101.0)
    assert len(state.notices) == 1


def test_of_virtio_mem_that_somebody_else_took_back_all_that_is_told_is_0_bytes() -> None:
    state = after(build.vm(300, virtio_mem=VirtioMem(0, 256 * MIB)), hv.VirtioMemChanged(UUID, 0, 0))
    assert state.last_cause == "somebody else asked the virtio-mem device of web for 0 B"


def test_a_promise_of_ours_that_is_under_way_is_not_released_by_a_stranger() -> None:
    web = build.vm(300, virtio_mem=VirtioMem(0, 0, ceiling_bytes=512 * MIB))
    state = state_of(web)
    state.operations[UUID] = Resize(state.ticket, size_bytes=512 * MIB, zone="movable")
    apply(state, hv.VirtioMemChanged(UUID, 0, 256 * MIB), 100.0)
    assert web.virtio_mem.may_hold_bytes == 512 * MIB


def test_a_dimm_that_the_kernel_keeps_is_told_to_the_operation() -> None:
    web = build.vm(600, dimms_mib=(256,))
    state = state_of(web)
    state.operations[UUID] = unplug = Unplug(state.ticket, alias="dimm0")
    unplug.stage = Stage.LEAVING
    apply(state, hv.DimmRefused(UUID, "other"), 100.0)
    assert unplug.stage is Stage.LEAVING
    apply(state, hv.DimmRefused(UUID, "dimm0"), 100.0)
    assert unplug.stage is Stage.TURNING_BACK
    after(build.vm(), hv.DimmRefused(UUID, "dimm0"))  # nobody's


def test_the_end_of_a_command_reaches_whoever_gave_it() -> None:
    web = build.vm(300, virtio_mem=VirtioMem(0, 0))
    state = state_of(web)
    web.send_target(1, 400 * MIB, 99.0)
    web.virtio_mem.ask(UUID, 2, 64 * MIB, 99.0)
    state.standstills[UUID] = stand = Standstill(1.0, 21.0, Stand.STARTING, _ticket=3)
    state.operations[UUID] = plug = Plug(state.ticket, size_bytes=MIB)
    plug.stage, plug.ticket = Stage.ATTACHING, 4
    for ticket in (1, 2, 3):
        apply(state, hv.CommandDone(UUID, ticket, None), 100.0)
    assert (web.balloon.sent, web.virtio_mem.unanswered, stand.stage) == ({}, False, Stand.OVER)
    apply(state, hv.CommandDone(UUID, 4, "no answer", timed_out=True), 100.0)
    assert plug.stage is Stage.OVERDUE
    plug.stage = Stage.COMING_ONLINE
    plug.advance(web, 100.0, agent=True)
    assert plug._answered_at == 100.0
    assert ONLINE_LIMIT > 0


def test_a_command_that_failed_is_tried_again_later_and_told_once_for_all_its_figures() -> None:
    web = build.vm(300)
    state = state_of(web)
    web.send_target(1, 400 * MIB, 99.0)
    apply(state, hv.CommandDone(UUID, 1, "target 400 refused"), 100.0)
    assert web.balloon.retry_at > 100.0
    apply(state, hv.CommandDone(UUID, 2, "target 401 refused"), 101.0)
    apply(state, hv.CommandDone(UUID, 3, None), 102.0)
    assert len(state.notices) == 1
    assert web.last_error == ("target N refused", 100.0)
    apply(state, hv.CommandDone(UUID, 4, "target 500 refused"), 100.0 + TELL_AGAIN_SECONDS)
    assert told(state) == [
        ("command", UUID, "a command to web failed: target 400 refused"),
        ("command", UUID, "a command to web failed: target 500 refused"),
    ]


# --- the guest ---


def stats(total_mib: int = 200, available_mib: int = 20, updated: int = 2) -> BalloonStats:
    return BalloonStats(total_mib * MIB, available_mib * MIB, updated)


def sampled(statistics: BalloonStats | None, actual_mib: int = 300) -> hv.BalloonSampled:
    return hv.BalloonSampled(UUID, actual_mib * MIB, statistics)


def test_the_first_statistics_after_a_takeover_count_where_the_guest_has_less_by_them() -> None:
    """Its agent had 725 MiB available and fell silent; it used them, and was told to give them back."""
    web = build.vm(512)
    build.says(web, build.facts(512, 200, at=98.0))
    after(web, sampled(stats(412, available_mib=40), 512))
    assert spare_bytes(web) == 40 * MIB - margin_bytes(512 * MIB)


def test_statistics_stand_in_only_where_no_agent_speaks_and_only_when_the_driver_answered() -> None:
    web = build.vm(300)
    after(web, sampled(stats(updated=1)))
    assert (web.guest.facts, web.guest.stats) == (None, stats(updated=1)), "which may be of any time"
    after(web, sampled(stats(updated=1)), now=101.0)
    assert web.guest.facts is None
    after(web, sampled(stats(updated=2)), now=102.0)
    facts = web.guest.facts
    assert facts is not None
    assert (facts.from_agent, facts.at, facts.sequence) == (False, 102.0, 2)
    assert (facts.usable_bytes, facts.available_bytes) == (300 * MIB, 20 * MIB)
    speaks = build.vm(300, reported_at=100.0, stats=stats(updated=1))
    after(speaks, sampled(stats(updated=2)), now=115.0)
    assert speaks.guest.facts is None
    assert speaks.guest.stats_at == 115.0
    after(speaks, sampled(stats(updated=3)), now=115.1)
    assert speaks.guest.facts is not None


@pytest.mark.parametrize(
    ("changes", "last_mib", "kept_mib"),
    [
        ({}, 200, 100),
        ({}, 201, None),  # it moves
        ({"target_bytes": 299 * MIB}, 200, None),
        ({"dimms_mib": (128,)}, 200, None),
        ({"virtio_mem": VirtioMem(64 * MIB, 64 * MIB)}, 200, None),
    ],
)
def test_what_the_kernel_keeps_is_seen_at_rest_and_without_memory_that_may_be_offline(
    changes: dict[str, Any], last_mib: int, kept_mib: int | None
) -> None:
    web = build.vm(300, stats=stats(last_mib, updated=1), **deepcopy(changes))
    after(web, sampled(stats(200, updated=2)))
    assert web.guest.kernel_bytes == (None if kept_mib is None else kept_mib * MIB)


def test_a_kernel_never_keeps_less_than_nothing() -> None:
    web = build.vm(300, stats=stats(350, updated=1))
    after(web, sampled(stats(350, updated=2)))
    assert web.guest.kernel_bytes == 0


def test_a_size_of_virtio_mem_that_was_refused_is_in_doubt_and_a_refused_dimm_costs_nothing() -> None:
    web = build.vm(300, virtio_mem=VirtioMem(0, 0), pending_bytes=128 * MIB)
    state = state_of(web)
    web.virtio_mem.ask(UUID, 1, 64 * MIB, 99.0)
    state.operations[UUID] = plug = Plug(state.ticket, size_bytes=128 * MIB)
    plug.stage, plug.ticket = Stage.ATTACHING, 2
    apply(state, hv.CommandDone(UUID, 1, "refused"), 100.0)
    apply(state, hv.CommandDone(UUID, 2, "no slot"), 100.0)
    assert web.virtio_mem.unsure
    assert (plug.outcome, web.plug.pending_bytes) == (Outcome.FAILED, 0)


def test_what_the_kernel_is_known_to_keep_is_not_taken_for_offline() -> None:
    web = build.vm(768, dimms_mib=(256,), kernel_bytes=300 * MIB, stats=stats(468, updated=1))
    after(web, sampled(stats(468, updated=2), 768))
    assert web.guest.facts is not None
    assert web.guest.facts.offline_bytes == 0


def test_what_is_offline_is_guessed_in_the_blocks_that_the_guest_has() -> None:
    web = build.vm(768, dimms_mib=(256,), kernel_bytes=100 * MIB, block_bytes=256 * MIB)
    web.guest.keep_stats(stats(500, updated=1))
    after(web, sampled(stats(500, updated=2), 768))
    assert web.guest.facts is not None
    assert web.guest.facts.offline_bytes == 0, "168 MiB are less than a block"


def test_a_vm_that_gives_nothing_back_is_told_of_when_it_appears() -> None:
    state = state_of()
    apply(state, appears(config=replace(build.config(), pinned="VFIO")), 10.0)
    assert [kind for kind, _, _ in told(state)] == ["appeared", "pinned"]
    assert {one.at for one in state.notices} == {10.0}


def test_a_report_that_is_late_is_counted_and_changes_nothing() -> None:
    web = build.vm(512)
    after(web, says(sequence=9))
    after(web, says(sequence=8, available_bytes=MIB), now=101.0)
    assert web.guest.noise == {"sequence-back": 1}
    assert web.guest.facts is not None
    assert web.guest.facts.sequence == 9


GONE = hv.GuestGone(UUID)
GREETS = hv.GuestSpoke(UUID, HELLO)


@pytest.mark.parametrize("news", [GONE, GREETS], ids=["its port was closed", "it said hello"])
def test_an_agent_that_starts_again_is_believed_at_once_and_once(news: Any) -> None:
    web = build.vm(512)
    state = after(web, says(sequence=9), news)
    apply(state, says(sequence=0, available_bytes=MIB), 101.0)
    assert web.guest.noise == {}
    assert web.guest.facts is not None
    assert (web.guest.facts.sequence, web.guest.facts.available_bytes) == (0, MIB)
    apply(state, says(sequence=1), 102.0)
    apply(state, says(sequence=0), 103.0)
    assert web.guest.noise == {"sequence-back": 1}


def test_a_report_of_the_last_agent_that_is_late_takes_nothing_from_the_next_one() -> None:
    web = build.vm(512)
    state = after(web, says(sequence=9), GONE)
    for sequence in (10, 0, 1):
        apply(state, says(sequence=sequence), 101.0)
    assert web.guest.noise == {}


def test_who_says_hello_before_each_frozen_report_is_believed_once_a_minute() -> None:
    web = build.vm(512)
    state = after(web, says(sequence=9))
    for second in range(120):
        apply(state, GREETS, 101.0 + second)
        apply(state, says(sequence=9), 101.0 + second)
    # By its hello, and then by the quarter of a minute in which nothing else of it was believed.
    believed = 120 - web.guest.noise["sequence-back"]
    assert believed <= 2 + 120 // RESTART_SECONDS


def test_a_minute_after_its_last_hello_an_agent_may_start_again_by_its_own_word() -> None:
    web = build.vm(512)
    state = after(web, says(sequence=9), GREETS, says(sequence=0))
    for now, number, counted in ((159.9, 500, 1), (160.0, 501, 1), (219.9, 502, 2)):
        apply(state, says(sequence=number), now - 0.05)
        apply(state, GREETS, now)
        apply(state, says(sequence=0), now)
        assert web.guest.noise.get("sequence-back", 0) == counted, now


def test_an_agent_that_answers_a_welcome_has_not_started_again() -> None:
    web = build.vm(512)
    answers = hv.GuestSpoke(UUID, HELLO._replace(welcomed=True))
    after(web, says(sequence=9), answers, says(sequence=0))
    assert web.guest.noise == {"sequence-back": 1}


def test_what_cannot_be_true_is_not_believed_of_an_agent_that_starts_again_either() -> None:
    web = build.vm(512)
    state = after(web, says(sequence=9), GONE)
    apply(state, says(sequence=0, total_bytes=GIB), 101.0)
    assert web.guest.noise == {"total-above-ram": 1}
    apply(state, says(sequence=0), 102.0)
    assert web.guest.noise == {"total-above-ram": 1}


def test_an_agent_that_says_the_same_number_again_has_started_anew() -> None:
    web = build.vm(512, zone="movable")
    state = after(web, says(sequence=7))
    assert web.guest.zone == "movable"
    apply(state, says(sequence=7), 101.0)
    assert web.guest.zone is None


def test_while_it_boots_a_stale_balloon_says_nothing_about_its_statistics() -> None:
    web = build.vm(176, phase=Phase.STARTING, moved=False, stats=stats(404, updated=1))
    after(web, sampled(stats(404, updated=2), 176))
    assert web.guest.facts is not None
    assert web.guest.facts.usable_bytes == 512 * MIB
    moved = build.vm(176, phase=Phase.STARTING, moved=True, stats=stats(100, updated=1))
    after(moved, sampled(stats(100, updated=2), 176))
    assert moved.guest.facts is not None
    assert moved.guest.facts.usable_bytes == 176 * MIB


def test_virtio_mem_comes_on_top_of_the_balloon_also_what_was_not_told_yet() -> None:
    device = VirtioMem(64 * MIB, 128 * MIB)
    web = build.vm(512, virtio_mem=device, kernel_bytes=108 * MIB, stats=stats(600, updated=1))
    after(web, sampled(stats(600, updated=2), 512))
    assert web.guest.facts is not None
    assert web.guest.facts.usable_bytes == (512 + 128) * MIB
    after(web, sampled(stats(468, updated=5), 512), now=100.5)
    assert web.guest.facts.usable_bytes == 576 * MIB
    after(web, sampled(stats(641, updated=3), 512), now=101.0)
    assert web.guest.noise == {"total-above-ram": 1}


def test_what_cannot_be_true_is_counted_and_changes_nothing() -> None:
    web = build.vm(300, facts=build.facts(300, at=50.0, sequence=1), boot_id="0123abcd")
    before = web.guest.facts
    state = after(web, says(total_bytes=GIB), hv.GuestNoise(UUID, "json", 3))
    apply(state, hv.GuestSpoke(UUID, wire.Error("what?")), 101.0)
    assert web.guest.facts is before
    assert web.guest.noise == {"total-above-ram": 1, "json": 3, "error-from-agent": 1}
    assert told(state) == []


def test_a_report_becomes_the_facts_and_names_the_kernel() -> None:
    web = build.vm(512, block_bytes=256 * MIB)
    state = after(web, says())
    facts = web.guest.facts
    assert facts is not None
    assert (facts.at, facts.boot_id, facts.block_bytes) == (100.0, "0123abcd", 256 * MIB)
    assert (web.guest.boot_id, web.guest.reported_at) == ("0123abcd", 100.0)
    assert web.guest.actual_when_heard_bytes == 512 * MIB
    assert told(state) == []


def test_a_device_counts_in_a_report_only_where_the_vm_has_one() -> None:
    said = says(online_bytes=640 * MIB, total_bytes=560 * MIB)
    without = build.vm(512, virtio_mem=VirtioMem(128 * MIB, 128 * MIB))
    after(without, said)
    assert without.guest.noise == {"total-above-ram": 1}
    config = {"virtio_mem_bytes": 512 * MIB}
    has_one = build.vm(512, virtio_mem=VirtioMem(128 * MIB, 128 * MIB), config=config)
    after(has_one, said)
    assert has_one.guest.facts is not None
    assert has_one.guest.facts.usable_bytes == 640 * MIB


def test_another_kernel_ends_what_was_under_way_for_the_last_one() -> None:
    web = build.vm(512)
    state = after(web, says())
    web.guest.confirm_zone("movable")
    state.operations[UUID] = plug = Plug(state.ticket)
    apply(state, hv.GuestGone(UUID), 100.5)
    web.guest.confirm_zone("movable")
    apply(state, says(boot_id_prefix="89abcdef", sequence=1), 101.0)
    assert (web.guest.boot_id, web.guest.zone, plug.outcome) == ("89abcdef", None, Outcome.DROPPED)
    assert told(state) == [
        ("agent", UUID, "the agent of web left"),
        ("reset", UUID, "web runs another kernel"),
    ]


def test_an_agent_is_greeted_and_its_version_told_once() -> None:
    web = build.vm(300, zone="movable")
    state = after(web, hv.GuestSpoke(UUID, HELLO._replace(block_bytes=256 * MIB)))
    assert (web.guest.agent_version, web.guest.block_bytes, web.guest.psi) == ("1", 256 * MIB, True)
    assert (web.guest.next_boot_id, web.guest.zone) == ("0123abcd", None)
    apply(state, hv.GuestSpoke(UUID, HELLO._replace(block_bytes=0, welcomed=True)), 101.0)
    apply(state, hv.GuestSpoke(UUID, HELLO._replace(block_bytes=5)), 102.0)
    assert (web.guest.block_bytes, web.guest.noise) == (256 * MIB, {"block-size": 1})
    assert told(state) == [("agent", UUID, "web runs dynmem-agent 1")]


def test_an_answer_of_the_agent_reaches_the_operation_and_nobody_else() -> None:
    web = build.vm(300)
    state = after(web, hv.GuestSpoke(UUID, wire.Ack(5, ok=True)))
    state.operations[UUID] = plug = Plug(state.ticket, zone="kernel")
    plug.stage, plug.request = Stage.NAMING, 5
    apply(state, hv.GuestSpoke(UUID, wire.Ack(6, ok=True)), 101.0)
    assert plug.stage is Stage.NAMING
    apply(state, hv.GuestSpoke(UUID, wire.Ack(5, ok=True)), 102.0)
    assert (plug.stage, web.guest.zone) == (Stage.NAMED, "kernel")


def test_a_port_is_told_as_it_is() -> None:
    web = build.vm(300)
    state = after(web, hv.ChannelChanged(UUID, "no /run/lock"), hv.GuestGone(UUID))
    assert [(kind, vm) for kind, vm, _ in told(state)] == [("channel", UUID), ("agent", UUID)]


def test_who_holds_a_guests_memory_decides_nothing() -> None:
    assert told(after(build.vm(), hv.GuestSpoke(UUID, wire.Held(1, "services", (("web.service", 1),))))) == []


def test_the_answer_to_a_size_of_virtio_mem_has_the_time_at_which_it_came() -> None:
    vm = build.vm(config={"virtio_mem_bytes": 512 * MIB})
    vm.virtio_mem.ask(UUID, 7, 256 * MIB, 97.0)
    after(vm, hv.CommandDone(UUID, 7, None), now=100.0)
    assert vm.virtio_mem.raised_at == 100.0
