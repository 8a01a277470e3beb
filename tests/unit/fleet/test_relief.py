"""A host that stays short is relieved by one VM; on doubt nothing moves."""

import pytest

from host_controller.fleet.core.model import Cell, HostFigures, Node, Resource
from host_controller.fleet.core.relief import (
    REST_SECONDS,
    SHORT_SECONDS,
    STRICKEN_SECONDS,
    Move,
    Relief,
    Strain,
    relieve,
    watch,
)
from host_controller.units import GIB
from tests.unit.fleet.cells import cell, host, vm

FULL = (vm("big", 40 * GIB), vm("mid", 15 * GIB), vm("small", 8 * GIB))
LONG = {name: Strain(short_since=0.0) for name in "abcdef"}
NOW = SHORT_SECONDS


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
    one, strains = cell({"a": figures}), {}
    for now in (0.0, since / 2, since):
        strains = watch(strains, one.figures, now)
        assert strains["a"].due(now) == (now >= since)


def test_a_host_that_recovers_or_falls_silent_begins_anew() -> None:
    short, well, silent = cell({"a": host(*FULL)}), cell({"a": host()}), cell({"a": None})
    for between in (well, silent):
        strains = watch(watch({}, short.figures, 0.0), between.figures, 100.0)
        strains = watch(strains, short.figures, 200.0)
        assert strains["a"].short_since == 200.0


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
    found = relieve(cell({"a": host(*FULL), "b": other}), {"a": Strain(0.0)}, {}, NOW)
    assert found.moves == ()
    assert [one.host for one in found.alerts] == ["a"]


@pytest.mark.parametrize(
    "node", [Node("b", takes=False), Node("c")], ids=["standby", "unknown to the engine"]
)
def test_a_host_that_the_engine_does_not_use_is_no_destination(node: Node) -> None:
    one = cell({"a": host(*FULL), "b": host()})
    assert due(Cell((Node("a"), node), one.resources, one.figures)).moves == ()


def test_a_ban_of_the_engine_is_respected() -> None:
    one = cell({"a": host(*FULL), "b": host()})
    banned = tuple(Resource(vm.name, "a", bans={"b": "a start failed there"}) for vm in one.resources)
    assert due(Cell(one.nodes, banned, one.figures)).moves == ()


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
