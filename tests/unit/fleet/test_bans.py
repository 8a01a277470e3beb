"""A host that refused a start is tried again when it has room, and nobody is disturbed for that."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import structlog

from host_controller.fleet.arbiter import PUBLISH_SECONDS, TURN_SECONDS, Arbiter
from host_controller.fleet.clock import Clock
from host_controller.fleet.core.bans import (
    AGAIN_SECONDS,
    LONGEST_SECONDS,
    MOST_IN_VAIN,
    REFUSED_SECONDS,
    Lift,
    Pair,
    Tried,
    bans_to_lift,
    follow_bans,
    hopeless,
    lifted,
)
from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import Cell, Node, Resource
from host_controller.fleet.errors import EngineError, RaceLost
from host_controller.fleet.pacemaker.cib import Cib, read_cib
from host_controller.fleet.pacemaker.lifting import forgiven, lift
from host_controller.units import GIB, MIB
from tests.unit.fleet.cells import cell, host, vm
from tests.unit.fleet.cluster import FakeEngine, cib_text, failed_start
from tests.unit.fleet.test_arbiter import Fleet
from tests.unit.fleet.test_moving import Time

SIZE = 4096


def refused(*nodes: str, forbidden: str = "", **more: object) -> Resource:
    """A stopped VM of 4 GiB that these nodes have refused."""
    bans = dict.fromkeys(filter(None, (*nodes, forbidden)), "refused")
    one = Resource("new", None, SIZE, SIZE, bans, frozenset(nodes))
    return replace(one, **more)  # type: ignore[arg-type]


def two(first_mib: int, second_mib: int, one: Resource) -> Cell:
    """Two hosts with so much free."""
    figures = {name: host(admits_bytes=free * MIB) for name, free in (("n1", first_mib), ("n2", second_mib))}
    return cell(figures, (one,))


def pairs(found: tuple[Lift, ...]) -> list[Pair]:
    return [(one.vm, one.node) for one in found]


def test_a_ban_is_lifted_as_soon_as_the_host_has_room() -> None:
    known = {("new", "n1"): Tried(0.0)}
    assert bans_to_lift(two(SIZE - 1, 0, refused("n1")), known, 1.0) == ()
    (found,) = bans_to_lift(two(SIZE, 0, refused("n1")), known, 1.0)
    assert (found.vm, found.node) == ("new", "n1")
    assert "4096 MiB are free there by now" in found.reason


def test_what_is_coming_to_a_host_is_no_room() -> None:
    coming = Resource("coming", "n1", 1)
    full = cell({"n1": host(admits_bytes=SIZE * MIB)}, (refused("n1"), coming))
    assert bans_to_lift(full, {}, 0.0) == ()


def test_of_hosts_with_room_the_emptiest_comes_first_and_one_at_a_time() -> None:
    assert pairs(bans_to_lift(two(SIZE, SIZE + 9, refused("n1", "n2")), {}, 0.0)) == [("new", "n2")]


def test_a_start_that_keeps_failing_is_tried_ever_more_seldom() -> None:
    here, known, now, at = two(10, 0, refused("n1", "n2")), {}, 0.0, []
    while now < 10 * LONGEST_SECONDS:
        known = follow_bans(known, here, now)
        for one in bans_to_lift(here, known, now):
            at.append(now)
            known = lifted(known, one, now)
            known = follow_bans(known, two(10, 0, refused("n2")), now)  # it is away, and soon there again
        now += 10.0
    pauses = [after - before for before, after in pairwise(at)]
    assert pauses[:3] == [REFUSED_SECONDS * 2**one for one in range(3)]
    assert set(pauses[3:]) == {LONGEST_SECONDS}


def fail_with_room(until: float) -> tuple[dict[Pair, Tried], list[float]]:
    """A start that fails though there is room: what is known at the end, and when it was tried."""
    here, known, now, at = two(SIZE, 0, refused("n1")), {}, 0.0, []
    while now < until:
        known = follow_bans(known, here, now)
        for one in bans_to_lift(here, known, now):
            at.append(now)
            known = follow_bans(lifted(known, one, now), two(SIZE, 0, refused()), now)
        now += 10.0
    return known, at


def test_a_start_that_fails_again_and_again_where_there_is_room_is_left_to_people() -> None:
    known, at = fail_with_room(10 * LONGEST_SECONDS)
    pauses = [after - before for before, after in pairwise(at)]
    assert pauses == [AGAIN_SECONDS * 2**one for one in range(MOST_IN_VAIN - 1)]
    assert hopeless(two(SIZE, 0, refused("n1")), known) == {("new", "n1")}
    assert hopeless(two(SIZE, 0, refused()), known) == frozenset()  # somebody has cleaned it up


def test_what_was_tried_in_vain_is_forgotten_once_the_vm_runs_or_the_ban_is_long_away() -> None:
    known, at = fail_with_room(LONGEST_SECONDS)
    away = two(SIZE, 0, refused())
    assert follow_bans(known, away, at[-1] + LONGEST_SECONDS - 1) != {}
    assert follow_bans(known, away, at[-1] + LONGEST_SECONDS) == {}
    elsewhere = follow_bans(known, two(SIZE, 0, refused(node="n2")), at[-1] + 1)
    assert elsewhere["new", "n1"].with_room == 0


def test_what_the_engine_would_not_lift_was_not_tried() -> None:
    known = lifted({}, Lift("new", "n1", "room"), 0.0, done=False)
    assert (known["new", "n1"].lifted, known["new", "n1"].with_room) == (1, 0)


def test_when_all_have_refused_the_one_that_lacks_least_is_tried_again_by_and_by() -> None:
    here = two(10, 20, refused("n1", "n2"))
    known = follow_bans({}, here, 0.0)
    assert bans_to_lift(here, known, REFUSED_SECONDS - 1) == ()
    (found,) = bans_to_lift(here, known, REFUSED_SECONDS)
    assert (found.node, found.reason) == ("n2", "all hosts have refused it, and this one lacks least")
    known = lifted(known, found, REFUSED_SECONDS)
    assert bans_to_lift(here, known, 2 * REFUSED_SECONDS - 1) == ()
    assert pairs(bans_to_lift(here, known, 2 * REFUSED_SECONDS)) == [("new", "n2")]


def test_while_another_host_has_not_refused_nobody_is_tried_that_has_no_room() -> None:
    assert bans_to_lift(two(10, 20, refused("n1")), {("new", "n1"): Tried(0.0)}, 1e6) == ()


def test_a_host_that_takes_none_does_not_count_among_all() -> None:
    here = two(10, 20, refused("n1"))
    here = replace(here, nodes=(Node("n1"), Node("n2", takes=False)))
    assert pairs(bans_to_lift(here, {("new", "n1"): Tried(0.0)}, REFUSED_SECONDS)) == [("new", "n1")]
    here = replace(here, nodes=(Node("n1", takes=False), Node("n2")))
    assert bans_to_lift(here, {}, 1e6) == ()


@pytest.mark.parametrize("figures", [None, host(overdraft=True), host(emergency="short")])
def test_nothing_is_lifted_on_doubt(figures: object) -> None:
    here = cell({"n1": figures, "n2": None}, (refused("n1"),))  # type: ignore[dict-item]
    assert bans_to_lift(here, {}, 1e6) == ()
    unknown = refused("n1", published_mib=None, startup_mib=None)
    assert bans_to_lift(two(60000, 0, unknown), {}, 0.0) == ()


def test_a_vm_that_a_host_runs_without_the_engines_knowledge_is_started_nowhere_by_us() -> None:
    here = two(60000, 0, refused("n1"))
    assert pairs(bans_to_lift(here, {}, 0.0)) == [("new", "n1")]
    there = replace(here, figures={**here.figures, "n2": host(vm("new", GIB))})
    assert bans_to_lift(there, {}, 1e6) == ()


def test_a_running_vm_needs_what_it_would_arrive_with() -> None:
    figures = {"n1": host(vm("new", GIB, arrival_bytes=8 * GIB)), "n2": host(admits_bytes=8 * GIB)}
    here = cell(figures)
    one = refused("n2", node="n1", published_mib=1, startup_mib=None)
    here = replace(here, resources=(one,))
    assert pairs(bans_to_lift(here, {}, 0.0)) == [("new", "n2")]
    less = {**figures, "n2": host(admits_bytes=8 * GIB - 1)}
    assert bans_to_lift(replace(here, figures=less), {}, 0.0) == ()


def test_a_ban_is_forgotten_once_the_vm_runs_there() -> None:
    known = {("new", "n1"): Tried(0.0, 3, 5.0), ("new", "n2"): Tried(0.0)}
    runs = two(0, 0, refused(node="n1"))
    assert follow_bans(known, runs, 9.0) == {}
    elsewhere = two(0, 0, refused(node="n2"))
    assert follow_bans(known, elsewhere, 9.0) == {("new", "n1"): Tried(0.0, 3, 5.0)}
    assert follow_bans(known, two(0, 0, replace(refused(), name="other")), 9.0) == {}


def cib(vms: dict[str, int] | None = None) -> bytes:
    return cib_text(vms or {"new": SIZE}, {"n1": 60000, "n2": 60000}, status=failed_start("new", "n1"))


def test_only_bans_that_a_clean_up_lifts_are_of_failed_starts() -> None:
    (new,) = read_cib(cib()).vms
    assert (new.failed_on, set(new.bans)) == (frozenset({"n1"}), {"n1"})
    never = b'<constraints><rsc_location id="never" rsc="new" node="n1" score="-INFINITY"/></constraints>'
    (new,) = read_cib(cib().replace(b"<constraints/>", never)).vms
    assert (new.failed_on, set(new.bans)) == (frozenset(), {"n1"})


@pytest.mark.parametrize("code", [2, 4, 5, 6])
def test_a_start_that_failed_for_another_reason_than_a_refusal_stays_banned(code: int) -> None:
    status = failed_start("new", "n1").replace('rc-code="1"', f'rc-code="{code}"')
    (new,) = read_cib(cib_text({"new": SIZE}, {"n1": 1}, status=status)).vms
    assert (new.failed_on, set(new.bans)) == (frozenset(), {"n1"})


@pytest.mark.parametrize(
    ("threshold", "counts", "banned", "refused"),
    [
        ("INFINITY", {"monitor_10000": 5}, False, False),
        ("3", {"monitor_10000": 2}, False, False),
        ("3", {"monitor_10000": 3}, True, False),
        ("3", {"monitor_10000": 2, "start_0": 1}, True, True),
        ("3", {"monitor_10000": 2, "start_0": "INFINITY"}, True, True),
        ("3", {"monitor_10000": 3, "start_0": "INFINITY"}, True, False),
        ("INFINITY", {"stop_0": "INFINITY"}, True, False),
        ("0", {"start_0": "INFINITY"}, False, False),
        ("9" * 5000, {"start_0": "x"}, False, False),
    ],
)
@pytest.mark.parametrize("whose", ["its own", "of its group", "of all"])
def test_all_failures_together_ban_a_node_and_only_those_of_a_start_are_forgiven(
    threshold: str, counts: dict[str, object], banned: bool, refused: bool, whose: str
) -> None:
    """(fact: failures-add-up)"""
    pairs = "".join(
        f'<nvpair id="{name}" name="fail-count-new#{name}" value="{count}"/>'
        for name, count in counts.items()
    )
    inner = f'<instance_attributes id="i">{pairs}</instance_attributes>'
    status = (
        f'<node_state uname="n1"><transient_attributes id="1">{inner}</transient_attributes></node_state>'
    )
    meta = f'<meta_attributes id="t"><nvpair id="tp" name="migration-threshold" value="{threshold}"/>'
    meta += "</meta_attributes>"
    text = cib_text({"new": SIZE}, {"n1": 1, "n2": 1}, status=status).decode()
    begin, end = text.index("<primitive"), text.index("</resources>")
    one = text[begin:end]
    text = {
        "its own": text.replace(one, one.replace("<utilization", f"{meta}<utilization", 1)),
        "of its group": text.replace(one, f'<group id="g">{meta}{one}</group>'),
        "of all": text.replace("</configuration>", f"<rsc_defaults>{meta}</rsc_defaults></configuration>"),
    }[whose]
    (new,) = read_cib(text.encode()).vms
    assert ("n1" in new.bans, "n1" in new.failed_on, "n2" in new.bans) == (banned, refused, False)
    assert all("crm_resource --cleanup -N n1 -r new" in why for why in new.bans.values())


def test_what_is_forgiven_is_the_start_there_and_nothing_else() -> None:
    text = cib_text({"new": 1}, {"n1": 1}, status=failed_start("new", "n1") + failed_start("new", "n2"))
    after = forgiven(read_cib(text), "new", "n1")
    assert read_cib(after).vms[0].failed_on == {"n2"}
    assert after.count(b"fail-count-new#monitor_10000") == 2
    assert after.count(b'operation="stop"') == 2
    assert after.count(b'operation="start"') == 1


def test_a_ban_stays_where_lifting_it_would_disturb_a_running_vm() -> None:
    engine = FakeEngine(cib({"new": 1, "web": 1}), {"web": "n1"})
    moves = Action("migrate", "web", "n1", "n2", "migrate")
    engine.would = lambda cib: () if cib.vms[0].failed_on else (moves,)
    assert lift(engine, Lift("new", "n1", "room")) == (moves,)
    assert engine.cleaned == []
    engine.would = lambda cib: (Action("start", "new", destination="n1"),) if not cib.vms[0].failed_on else ()
    assert lift(engine, Lift("new", "n1", "room")) == ()
    assert engine.cleaned == [("new", "n1")]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(cib(), {})


def arbiter_of(engine: FakeEngine, tmp_path: Path) -> tuple[Arbiter, Fleet, Time]:
    clock = Time(1000.0)
    hosts = Fleet(said={"n1": host(admits_bytes=GIB), "n2": host(admits_bytes=GIB)})
    one = Arbiter(engine, hosts, tmp_path / "bookings.json", Clock(clock, clock, clock.sleep))  # type: ignore[arg-type]
    return one, hosts, clock


def go_on(arbiter: Arbiter, clock: Time, seconds: float) -> None:
    end = clock.now + seconds
    while clock.now < end:
        arbiter.turn()
        clock.sleep(TURN_SECONDS)


def test_the_arbiter_lifts_a_ban_when_memory_has_come_back(engine: FakeEngine, tmp_path: Path) -> None:
    arbiter, hosts, clock = arbiter_of(engine, tmp_path)
    go_on(arbiter, clock, PUBLISH_SECONDS)
    assert engine.cleaned == []
    hosts.said["n1"] = host()
    engine.rests = False
    go_on(arbiter, clock, 2 * PUBLISH_SECONDS)
    assert engine.cleaned == []  # not while the engine is at work
    engine.rests = True
    with structlog.testing.capture_logs() as logs:
        go_on(arbiter, clock, 2 * PUBLISH_SECONDS)
    assert engine.cleaned == [("new", "n1")]
    (said,) = (one for one in logs if one["event"] == "a ban is lifted")
    assert (said["vm"], said["host"]) == ("new", "n1")
    go_on(arbiter, clock, 3 * PUBLISH_SECONDS)
    assert engine.cleaned == [("new", "n1")]


def test_the_arbiter_says_once_that_a_start_fails_for_another_reason_than_memory(
    engine: FakeEngine, tmp_path: Path
) -> None:
    arbiter, hosts, clock = arbiter_of(engine, tmp_path)
    hosts.said["n1"] = host()
    fails, clean_up = engine.text, engine.clean_up

    def fails_again(vm: str, node: str, operation: str = "start") -> None:
        clean_up(vm, node, operation)
        engine.text = fails

    engine.clean_up = fails_again  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        go_on(arbiter, clock, 3 * LONGEST_SECONDS)
    assert engine.cleaned == [("new", "n1")] * MOST_IN_VAIN
    (said,) = (one for one in logs if one["log_level"] == "error")
    assert (said["vm"], said["host"]) == ("new", "n1")


def test_a_ban_is_not_lifted_by_what_was_true_a_moment_ago() -> None:
    engine = FakeEngine(cib(), {})

    def somebody_else(text: Cib) -> tuple[Action, ...]:
        engine.text = engine.text.replace(b'num_updates="3"', b'num_updates="4"')
        return ()

    engine.would = somebody_else
    with pytest.raises(RaceLost):
        lift(engine, Lift("new", "n1", "room"))
    assert engine.cleaned == []


TWICE = failed_start("new", "n1") + failed_start("next", "n1")


def of_two(tmp_path: Path) -> tuple[FakeEngine, Arbiter, Time]:
    """Two VMs that a host has refused which has room for each of them by now."""
    engine = FakeEngine(cib_text({"new": SIZE, "next": SIZE}, {"n1": 60000}, status=TWICE), {})
    arbiter, hosts, clock = arbiter_of(engine, tmp_path)
    hosts.said = {"n1": host()}
    return engine, arbiter, clock


def test_of_two_vms_that_a_host_has_room_for_one_is_tried_at_a_time(tmp_path: Path) -> None:
    engine, arbiter, clock = of_two(tmp_path)
    clean_up = engine.clean_up

    def starts(vm: str, node: str, operation: str = "start") -> None:
        clean_up(vm, node, operation)
        engine.rests = False

    engine.clean_up = starts  # type: ignore[method-assign]
    go_on(arbiter, clock, PUBLISH_SECONDS)
    assert engine.cleaned == [("new", "n1")]
    engine.rests = True
    go_on(arbiter, clock, TURN_SECONDS)
    assert engine.cleaned == [("new", "n1"), ("next", "n1")]


def test_a_ban_that_the_engine_does_not_lift_keeps_no_other(tmp_path: Path) -> None:
    engine, arbiter, clock = of_two(tmp_path)
    clean_up = engine.clean_up

    def fails(vm: str, node: str, operation: str = "start") -> None:
        if vm == "new":
            raise EngineError("no such resource")
        clean_up(vm, node, operation)

    engine.clean_up = fails  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        go_on(arbiter, clock, PUBLISH_SECONDS)
    assert engine.cleaned == [("next", "n1")]
    assert [one["why"] for one in logs if one["event"] == "a ban stays"] == ["no such resource"]


def test_a_ban_that_stays_is_told_and_not_asked_about_at_each_turn(
    engine: FakeEngine, tmp_path: Path
) -> None:
    def would(cib: Cib) -> tuple[Action, ...]:
        return () if cib.vms[0].failed_on else (Action("stop", "other", "n1", text="stop"),)

    arbiter, hosts, clock = arbiter_of(engine, tmp_path)
    hosts.said["n1"], engine.would = host(), would
    with structlog.testing.capture_logs() as logs:
        go_on(arbiter, clock, AGAIN_SECONDS)
    (said,) = (one for one in logs if one["event"] == "a ban stays")
    assert said["why"] == "the engine would stop other"
    assert engine.cleaned == []
