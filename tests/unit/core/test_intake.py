"""What events change in what is known, where no other test says it."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from agent import wire
from host_controller.core.books.charge import charge
from host_controller.core.books.ledger import Ledger
from host_controller.core.intake import apply
from host_controller.core.interface import (
    BalloonChanged,
    BalloonSampled,
    ChannelChanged,
    GuestGone,
    GuestSpoke,
    HostSampled,
    VmAppeared,
    VmConfigChanged,
    VmGone,
    VmReset,
)
from host_controller.core.model import BalloonStats, HostFacts, RunState, Trust
from host_controller.core.state import State
from host_controller.core.vm.record import Phase
from host_controller.units import MIB
from tests.support.build import facts, settings, vm
from tests.support.words import REPORT

HELLO = wire.Hello("0123abcd-0000-0000-0000-000000000000", "1", "6.1", 128 * MIB, True, "offline", "kernel")


def test_an_agent_that_left_its_port_is_stood_in_for_at_once() -> None:
    web = vm(300, facts=facts(300, 150, at=10.0), reported_at=10.0, stats=_stats(updated=9))
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    apply(state, BalloonSampled(web.config.uuid, 300 * MIB, _stats(updated=11)), 11.0)
    assert web.guest.facts is not None
    assert web.guest.facts.from_agent, "as long as an agent speaks, it is the one who is believed"
    apply(state, GuestGone(web.config.uuid), 11.5)
    apply(state, BalloonSampled(web.config.uuid, 300 * MIB, _stats(updated=12)), 12.0)
    assert not web.guest.facts.from_agent
    assert web.guest.facts.available_bytes == 20 * MIB


def test_a_kexec_is_known_when_the_new_kernels_agent_speaks_though_the_old_one_left_first() -> None:
    web = vm(300, dimms_mib=(128,))
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    apply(state, GuestSpoke(web.config.uuid, REPORT), 10.0)
    apply(state, GuestGone(web.config.uuid), 11.0)
    web.guest.heard(facts(300, 150, at=12.0, from_agent=False), 300 * MIB)
    apply(state, GuestSpoke(web.config.uuid, REPORT._replace(boot_id_prefix="89abcdef", sequence=1)), 20.0)
    assert web.guest.boot_id == "89abcdef"
    assert web.phase is Phase.LIVE, "its new driver was watched, so it is charged with what that says"
    assert [one.text for one in state.notices if one.kind == "reset"] == ["web runs another kernel"]


@pytest.mark.parametrize(
    "restart",
    [
        GuestGone,
        lambda web: GuestSpoke(web, HELLO),
        lambda web: GuestSpoke(web, REPORT._replace(sequence=0)),
        VmReset,
    ],
    ids=["left its port", "says hello", "counts anew", "reset"],
)
def test_an_agent_that_starts_anew_has_no_zone_for_new_memory(restart: Callable[[str], object]) -> None:
    web = vm(300)
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    apply(state, GuestSpoke(web.config.uuid, REPORT._replace(sequence=5)), 10.0)
    web.guest.confirm_zone("movable")
    apply(state, GuestSpoke(web.config.uuid, HELLO._replace(welcomed=True)), 10.5)
    apply(state, GuestSpoke(web.config.uuid, REPORT._replace(sequence=6)), 11.0)
    assert web.guest.zone == "movable"
    apply(state, restart(web.config.uuid), 60.0)
    assert web.guest.zone is None


def _stats(updated: int) -> BalloonStats:
    return BalloonStats(total_bytes=200 * MIB, available_bytes=20 * MIB, updated=updated)


def test_a_vm_that_gives_nothing_back_is_told_once_with_where_the_remedy_is() -> None:
    state = State(settings(), Ledger(settings()), {})
    config = replace(vm(300).config, pinned="no balloon")
    apply(state, VmAppeared(config.uuid, config, RunState.RUNNING, (), 300 * MIB, booted=True), 1.0)
    apply(state, VmConfigChanged(config.uuid, replace(config, trust=Trust.NONE)), 2.0)
    apply(state, VmConfigChanged(config.uuid, replace(config, pinned="VFIO")), 3.0)
    apply(state, VmConfigChanged(config.uuid, replace(config, pinned=None)), 4.0)
    assert [one.text for one in state.notices if one.kind == "pinned"] == [
        f"{config.name} is charged all of its RAM: {why}; `dynmem doctor {config.name}` says what to do"
        for why in ("no balloon", "VFIO")
    ]


def test_a_port_that_this_host_cannot_open_is_known_and_forgotten_once_it_is_open() -> None:
    web = vm(300)
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    apply(state, ChannelChanged(web.config.uuid, "no /run/lock"), 1.0)
    assert web.guest.channel_error == "no /run/lock"
    apply(state, ChannelChanged(web.config.uuid, None), 2.0)
    assert web.guest.channel_error is None
    assert [one.text for one in state.notices] == [
        "the agent's port of web cannot be opened on this host: no /run/lock",
        "the agent's port of web is open",
    ]


def test_a_vm_that_cannot_be_read_is_told_once_and_again_when_it_comes_back() -> None:
    web = vm(300)
    uuid = web.config.uuid
    state = State(settings(), Ledger(settings()), {uuid: web})
    blind, well = ((uuid, "CAP_SYS_PTRACE is missing"), ("gone", "x")), ()
    for now, unread in enumerate((well, blind, blind, blind, well, blind)):
        apply(state, HostSampled(HostFacts(float(now), 64 * MIB, MIB, unread=unread)), float(now))
    told = [one for one in state.notices if one.kind == "unread"]
    assert [one.at for one in told] == [1.0, 5.0]
    assert "what web holds cannot be read" in told[0].text
    assert "CAP_SYS_PTRACE is missing" in told[0].text


def test_a_new_boot_id_restarts_counters_and_changes_nothing_that_others_have_to_pay_for() -> None:
    web = vm(300, dimms_mib=(128,))
    uuid = web.config.uuid
    state = State(settings(), Ledger(settings()), {uuid: web})
    apply(state, GuestSpoke(uuid, REPORT), 10.0)
    web.guest.confirm_zone("movable")
    before = charge(web, settings())
    for number in range(1, 20):
        boot_id = f"{number:08x}"
        apply(state, GuestSpoke(uuid, HELLO._replace(boot_id=f"{boot_id}-0000")), 10.0 + number)
        apply(state, GuestSpoke(uuid, REPORT._replace(boot_id_prefix=boot_id)), 10.5 + number)
        assert web.guest.boot_id == boot_id
        assert web.guest.demand.slope == 0.0
        assert web.guest.zone is None
    assert (web.phase, web.booted_at, web.reset_at) == (Phase.LIVE, 0.0, -math.inf)
    assert web.balloon.target_bytes == 300 * MIB
    assert not web.balloon.resend
    assert charge(web, settings()) == before
    assert state.last_cause == "start"


def test_a_report_of_a_kernel_that_nobody_has_heard_of_is_late_and_is_dropped() -> None:
    web = vm(300)
    uuid = web.config.uuid
    state = State(settings(), Ledger(settings()), {uuid: web})
    apply(state, GuestSpoke(uuid, REPORT), 10.0)
    believed = web.guest.facts
    apply(state, GuestSpoke(uuid, REPORT._replace(boot_id_prefix="ffffffff", sequence=9)), 11.0)
    assert web.guest.facts is believed
    assert web.guest.noise == {"boot-id": 1}
    assert not [one for one in state.notices if one.kind == "reset"]


def test_what_a_new_kernel_takes_shows_in_its_balloon() -> None:
    web = vm(300)
    uuid = web.config.uuid
    state = State(settings(), Ledger(settings()), {uuid: web})
    apply(state, GuestSpoke(uuid, REPORT), 10.0)
    apply(state, GuestGone(uuid), 11.0)
    apply(state, BalloonChanged(uuid, 512 * MIB), 15.0)
    assert charge(web, settings()) >= 512 * MIB
    assert state.last_cause == "web took memory back from its balloon"


def test_a_notice_names_the_vm_by_its_uuid_since_another_may_come_to_have_its_name() -> None:
    first, second = (replace(vm(300).config, uuid=uuid) for uuid in ("first", "second"))
    state = State(settings(), Ledger(settings()), {})
    apply(state, VmAppeared("first", first, RunState.RUNNING, (), 300 * MIB, booted=True), 1.0)
    apply(state, VmGone("first", "shut down"), 2.0)
    apply(state, VmAppeared("second", second, RunState.RUNNING, (), 300 * MIB, booted=True), 3.0)
    assert [(one.vm, one.name) for one in state.notices] == [
        ("first", "web"), ("first", "web"), ("second", "web"),
    ]  # fmt: skip
