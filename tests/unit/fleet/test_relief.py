"""A host that stays short is relieved by one VM; on doubt nothing moves."""

from dataclasses import replace

import pytest

from host_controller.fleet.core.model import Cell, HostFigures, Node, Resource
from host_controller.fleet.core.relief import (
    REST_SECONDS,
    SHORT_SECONDS,
    STRICKEN_SECONDS,
    UNSEEN_SECONDS,
    Move,
    Relief,
    Strain,
    relieve,
    relieved,
    watch,
)
from host_controller.units import GIB
from tests.unit.fleet.cells import cell, host, vm

FULL = (vm("big", 40 * GIB), vm("mid", 15 * GIB), vm("small", 8 * GIB))
LONG = {name: Strain(short=True, short_seconds=SHORT_SECONDS) for name in "abcdef"}
NOW = SHORT_SECONDS
TURN = 10.0
SHORT, WELL = host(*FULL), host()


def followed(strains: dict[str, Strain], figures: list[HostFigures]) -> dict[str, Strain]:
    """Host a, looked at in each turn from 0 on."""
    for turn, one in enumerate(figures):
        strains = watch(strains, {"a": one}, turn * TURN)
    return strains


def due(one: Cell, **more: object) -> Relief:
    return relieve(one, LONG, {}, NOW, **more)  # type: ignore[arg-type]


def test_the_smallest_vm_that_helps_goes_to_the_emptiest_host() -> None:
    one = cell({"a": host(*FULL), "b": host(vm("x", 30 * GIB)), "c": host(vm("y", 20 * GIB))})
    (move,) = due(one).moves
    assert (move.vm, move.source, move.destination) == ("small", "a", "c")
    assert move.reserve_bytes == 8 * GIB


def test_a_vm_that_would_not_bring_the_host_down_far_enough_is_passed_over() -> None:
    vms = (*FULL[:2], vm("tiny", 2 * GIB), vm("small", 6 * GIB))
    assert due(cell({"a": host(*vms), "b": host()})).moves[0].vm == "small"


def test_where_no_single_vm_is_enough_the_largest_that_can_go_goes() -> None:
    vms = (*(vm(f"v{i}", 2 * GIB) for i in range(30)), vm("w", 3 * GIB), vm("big", 10 * GIB))
    one = cell({"a": host(*vms), "b": host(admits_bytes=9 * GIB)})
    assert due(one).moves[0].vm == "w"


@pytest.mark.parametrize(
    ("figures", "since"),
    [
        (host(*FULL), SHORT_SECONDS),
        (host(overdraft=True), STRICKEN_SECONDS),
        (host(emergency="the host swaps"), STRICKEN_SECONDS),
    ],
)
def test_a_host_is_short_only_after_its_time(figures: HostFigures, since: float) -> None:
    strains = followed({}, [figures] * round(since / TURN))
    assert not strains["a"].due(since - TURN)
    strains = watch(strains, {"a": figures}, since)
    assert strains["a"].due(since)


def test_a_host_that_is_not_short_is_not_due_however_long_it_was() -> None:
    strains = followed({}, [SHORT] * 100 + [WELL])
    assert not strains["a"].due(100 * TURN)


@pytest.mark.parametrize("strain", [LONG["a"], Strain(stricken_since=0.0)], ids=["short", "stricken"])
def test_a_host_that_is_well_by_its_last_figures_is_not_relieved_whatever_it_was(strain: Strain) -> None:
    assert strain.due(NOW)
    assert relieve(cell({"a": host(vm("small", 8 * GIB)), "b": host()}), {"a": strain}, {}, NOW) == Relief()


def test_what_a_host_recovers_is_half_of_the_time_in_which_it_is_not_short() -> None:
    assert followed({}, [SHORT] * 21 + [WELL] * 20)["a"].short_seconds == 21 * TURN - 19 * TURN / 2
    assert followed({}, [SHORT] * 21 + [WELL] * 43)["a"].short_seconds == 0.0


def test_a_host_whose_need_swings_is_due_if_it_is_short_for_half_of_the_time() -> None:
    assert followed({}, [SHORT, WELL] * 60 + [SHORT])["a"].due(120 * TURN)
    assert not followed({}, [SHORT, WELL] * 59 + [SHORT])["a"].due(118 * TURN)
    assert not followed({}, [SHORT, WELL, WELL] * 200 + [SHORT])["a"].due(600 * TURN)


def test_a_host_that_was_short_for_hours_recovers_within_minutes() -> None:
    strains = followed({}, [SHORT] * 1000)
    for turn in range(1000, 1072):
        strains = watch(strains, {"a": WELL}, turn * TURN)
    assert strains["a"].short_seconds < 2 * TURN


def test_a_host_that_falls_silent_begins_anew() -> None:
    strains = watch(followed({}, [SHORT] * 20), {}, 20 * TURN)
    strains = watch(strains, {"a": SHORT}, 21 * TURN)
    assert strains["a"].short_seconds == 0.0


def test_what_was_not_looked_at_for_long_was_not_short_for_long() -> None:
    strains = watch(watch({}, {"a": SHORT}, 0.0), {"a": SHORT}, 3600.0)
    assert strains["a"].short_seconds == UNSEEN_SECONDS
    # A clock that was set back neither ends nor begins anything.
    assert watch(strains, {"a": SHORT}, 0.0)["a"].short_seconds == UNSEEN_SECONDS


def test_a_host_from_which_a_vm_was_moved_begins_anew() -> None:
    strains = relieved(LONG | {"b": LONG["b"]}, "a")
    assert not watch(strains, {"a": SHORT}, NOW)["a"].due(NOW)
    assert strains["b"].due(NOW)


@pytest.mark.parametrize(
    "other",
    [
        None,
        host(vm("x", 48 * GIB)),
        host(emergency="the host swaps"),
        host(overdraft=True),
        host(admits_bytes=5 * GIB),
        host(capacity_bytes=0),
    ],
    ids=["silent", "too full with it", "in an emergency", "overdrawn", "admits too little", "no capacity"],
)
def test_without_a_good_destination_there_is_an_alert_and_nothing_moves(other: HostFigures | None) -> None:
    found = relieve(cell({"a": host(*FULL), "b": other}), {"a": LONG["a"]}, {}, NOW)
    assert found.moves == ()
    assert [one.host for one in found.alerts] == ["a"]


@pytest.mark.parametrize(
    "node", [Node("b", takes=False), Node("c")], ids=["standby", "unknown to the engine"]
)
def test_a_host_that_the_engine_does_not_use_is_no_destination(node: Node) -> None:
    one = cell({"a": host(*FULL), "b": host()})
    assert due(Cell((Node("a"), node), one.resources, one.figures)).moves == ()


@pytest.mark.parametrize(("offered", "destination"), [(None, "b"), (1000, "b"), (999, "c")])
def test_a_host_that_has_room_the_engine_does_not_know_of_is_no_destination_yet(
    offered: int | None, destination: str
) -> None:
    figures = {"a": host(*FULL), "b": host(), "c": host(vm("x", GIB))}
    one = cell(figures, published={"small": 900, "b": 0, "c": 60000, "x": 9})
    b = Node("b", published_mib=offered, others_mib=100)
    one = Cell((*(node for node in one.nodes if node.name != "b"), b), one.resources, one.figures)
    assert [(move.vm, move.destination) for move in due(one).moves] == [("small", destination)]


def test_where_the_engine_knows_of_no_room_that_is_said() -> None:
    figures = {"a": host(*FULL), "b": host()}
    (alert,) = due(cell(figures, published={"big": 1, "mid": 1, "small": 1, "b": 0})).alerts
    assert "the engine does not know yet" in alert.reason


def test_from_a_host_whose_libvirt_does_not_answer_nothing_is_moved() -> None:
    """The migration would fail, or keep the engine at work for an hour."""
    (alert,) = due(cell({"a": host(*FULL, connected=False), "b": host()})).alerts
    assert "libvirt does not answer" in alert.reason


def test_a_ban_of_the_engine_is_respected() -> None:
    one = cell({"a": host(*FULL), "b": host()})
    banned = tuple(Resource(vm.name, "a", bans={"b": "a start failed there"}) for vm in one.resources)
    assert due(Cell(one.nodes, banned, one.figures)).moves == ()


def test_a_vm_that_another_host_tells_of_too_is_not_moved_on_doubt() -> None:
    figures = {"a": host(*FULL), "b": host(vm("small", GIB)), "c": host()}
    sane = cell({**figures, "b": host()})
    one = Cell(sane.nodes, sane.resources, figures)
    assert [move.vm for move in due(sane).moves] == ["small"]
    assert [move.vm for move in due(one).moves] == ["mid"]
    whole = {"a": SHORT, "b": replace(SHORT, admits_bytes=0), "c": host()}
    (alert,) = due(Cell(sane.nodes, sane.resources, whole)).alerts[:1]
    assert alert.reason == "none of its VMs can be moved"
    back = replace(sane.resources[2], also_on=frozenset({"b"}))  # the engine has it on both
    assert back.name == "small"
    both = Cell(sane.nodes, (*sane.resources[:2], back), figures)
    assert [move.vm for move in due(both).moves] == ["small"]


def test_a_vm_that_moved_rests() -> None:
    one = cell({"a": host(*FULL), "b": host()})
    assert relieve(one, LONG, {"small": NOW - REST_SECONDS + 1}, NOW).moves[0].vm == "mid"
    assert relieve(one, LONG, {"small": NOW - REST_SECONDS}, NOW).moves[0].vm == "small"
    rested = dict.fromkeys(("big", "mid", "small"), NOW)
    assert "within the last 30 minutes" in relieve(one, LONG, rested, NOW).alerts[0].reason


def test_a_vm_with_which_something_is_being_done_stays() -> None:
    vms = (*FULL[:2], vm("small", 8 * GIB, settled=False))
    assert due(cell({"a": host(*vms), "b": host()})).moves[0].vm == "mid"


def test_at_most_two_move_in_a_cell_and_each_host_takes_part_in_one() -> None:
    short = {name: host(*(vm(f"{name}{i}", 8 * GIB) for i in range(8))) for name in "abc"}
    found = due(cell({**short, "d": host(), "e": host(), "f": host()}))
    assert len(found.moves) == 2
    hosts = [one for move in found.moves for one in (move.source, move.destination)]
    assert len(set(hosts)) == 4
    under_way = (Move("x", "a", "d", 1, ""),)
    (move,) = due(cell({**short, "d": host(), "e": host()}), under_way=under_way).moves
    assert move.source in "bc"
    assert move.destination == "e"


def test_the_fullest_host_comes_first() -> None:
    more = host(*(vm(f"b{i}", 9 * GIB) for i in range(8)))
    one = cell({"a": host(*(vm(f"a{i}", 8 * GIB) for i in range(8))), "b": more, "c": host()})
    assert [move.source for move in due(one).moves] == ["b"]
