"""A host is emptied only where every destination has promised, and takes VMs again without a surprise."""

from dataclasses import replace
from typing import Literal

import pytest

from host_controller.errors import InputError
from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import Cell
from host_controller.fleet.draining import drain
from host_controller.fleet.errors import EngineBusy, EngineError, FleetError
from host_controller.fleet.moving import RENEW_SECONDS
from host_controller.fleet.pacemaker.cib import Cib, read_cib
from host_controller.fleet.pacemaker.pins import avoided, drained, in_standby, pinned, pins
from host_controller.fleet.progress import Progress
from host_controller.fleet.undraining import undrain
from host_controller.units import GIB
from tests.unit.fleet import cells
from tests.unit.fleet.cells import cell, host, vm
from tests.unit.fleet.cluster import FakeEngine, cib_text, failed_move
from tests.unit.fleet.test_moving import MIGRATE, Destinations, Time, engine

WEB, DB = vm("web", 8 * GIB), vm("db", 4 * GIB)
FIGURES = {"n1": host(WEB, DB), "n2": host(), "n3": host()}
AWAY = (MIGRATE, Action("migrate", "db", "n1", "n3", "migrate"))


def draining(actions: tuple[Action, ...] = AWAY) -> FakeEngine:
    one = engine()

    def would(cib: Cib) -> tuple[Action, ...]:
        return tuple(a for a in actions if drained(cib, "n1") and one.places.get(a.vm) == a.source)

    one.would = would
    return one


def empty(one: FakeEngine, hosts: Destinations, time: Time | None = None) -> tuple[object, list[Progress]]:
    told: list[Progress] = []
    time = time or Time()

    def view() -> Cell:
        return cell(FIGURES)

    return drain(one, hosts, view, "n1", told.append, time.clock), told


def undo(
    one: FakeEngine,
    hosts: Destinations | None = None,
    time: Time | None = None,
    told: list[Progress] | None = None,
    host: str = "n1",
) -> bool:
    hosts, time, told = hosts or Destinations(), time or Time(), [] if told is None else told
    there = {name: [each for each in (WEB, DB) if one.places.get(each.name) == name] for name in FIGURES}

    def view() -> Cell:
        return cell({name: cells.host(*here) for name, here in there.items()})

    return undrain(one, hosts, view, host, told.append, time.clock)


def test_a_drain_moves_every_vm_with_progress_and_can_be_undone() -> None:
    one, hosts = draining(), Destinations()
    found, told = empty(one, hosts)
    assert found.refusals == ()  # type: ignore[attr-defined]
    assert one.places == {"web": "n2", "db": "n3"}
    assert told[-1] == Progress((), ("db", "web"))
    assert hosts.held == {}
    assert drained(read_cib(one.text), "n1")
    assert undo(one)
    assert drained(read_cib(one.text), "n1") is False
    assert not undo(one)


def test_a_drain_that_would_stop_a_vm_is_refused_and_nothing_is_begun() -> None:
    one, hosts = draining((MIGRATE, Action("stop", "db", "n1", text="stop"))), Destinations()
    found, _ = empty(one, hosts)
    assert [one.vm for one in found.refusals] == ["db"]  # type: ignore[attr-defined]
    assert one.commits == []
    assert hosts.asked == 0


def test_a_destination_that_refuses_refuses_the_drain_and_the_others_promises_are_given_back() -> None:
    one, hosts = draining(), Destinations({"n3"})
    found, _ = empty(one, hosts)
    assert [(one.vm, one.reason) for one in found.refusals] == [  # type: ignore[attr-defined]
        ("db", "n3 has refused to take it")
    ]
    assert one.commits == []
    assert hosts.held == {}


def prefers_n3(one: FakeEngine) -> None:
    """Of a drain of n1: db goes to n3, or where it is banned there to n2."""

    def would(cib: Cib) -> tuple[Action, ...]:
        banned = any(vm.bans.get("n3") for vm in cib.vms if vm.name == "db")
        away = (MIGRATE, Action("migrate", "db", "n1", "n2" if banned else "n3", "migrate"))
        return tuple(a for a in away if drained(cib, "n1") and one.places.get(a.vm) == a.source)

    one.would = would


def test_a_destination_that_refuses_is_left_out_and_the_drain_is_planned_anew() -> None:
    one, hosts = draining(), Destinations({"n3"})
    prefers_n3(one)
    found, _ = empty(one, hosts)
    assert found.refusals == ()  # type: ignore[attr-defined]
    assert one.places == {"web": "n2", "db": "n2"}
    assert hosts.held == {}
    assert avoided(read_cib(one.commits[0]), "n1")
    assert not avoided(one.query(), "n1"), "a drain that is over bans nobody"
    assert drained(one.query(), "n1")


def test_a_destination_that_is_full_by_its_own_figures_is_left_out_without_being_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, hosts = draining(), Destinations()
    prefers_n3(one)
    monkeypatch.setitem(FIGURES, "n3", host(admits_bytes=GIB))
    empty(one, hosts)
    assert one.places == {"web": "n2", "db": "n2"}
    assert hosts.asked == 2


def test_undrain_ends_the_bans_of_its_own_drain_and_cleans_up_what_was_refused() -> None:
    one = draining()
    status = failed_move("db", "n1")
    one.text = cib_text({"web": 1, "db": 1}, {"n1": 1, "n1-db": 1, "n2": 1}, status=status)
    one.text = in_standby(one.query(), "n1", [("db", "n2")])
    one.text = in_standby(one.query(), "n1-db", [("web", "n2")])
    assert undo(one)
    assert not avoided(one.query(), "n1")
    assert avoided(one.query(), "n1-db")
    assert one.cleaned == [("db", "n1")]


def test_undrain_waits_until_vms_on_their_way_have_arrived() -> None:
    one, time = draining(), Time()
    one.text = in_standby(one.query(), "n1")
    one.rests = False
    with pytest.raises(FleetError, match="at work"):
        undo(one, time=time)
    assert drained(one.query(), "n1")

    def rests() -> None:
        one.rests = True

    time.at = {time.now + 9.0: rests}
    assert undo(one, time=time)
    assert not drained(one.query(), "n1")


def prefers(one: FakeEngine, vm: str, node: str, *, kind: Literal["migrate", "stop"] = "migrate") -> None:
    """As a constraint does: it is sent there whenever that node takes VMs."""
    before = one.would

    def would(cib: Cib) -> tuple[Action, ...]:
        back = Action(kind, vm, one.places[vm], node, kind)
        banned = any(each.bans.get(node) for each in cib.vms if each.name == vm)
        goes = one.places[vm] != node and not drained(cib, node) and not banned
        return (*before(cib), *([back] if goes else ()))

    one.would = would


def test_a_vm_that_prefers_the_drained_host_goes_back_only_by_its_promise() -> None:
    one, hosts = draining(), Destinations()
    prefers(one, "web", "n1")
    empty(one, hosts)
    assert one.places == {"web": "n2", "db": "n3"}
    hosts.refusing, hosts.asked, commits = {"n1"}, 0, len(one.commits)
    with pytest.raises(FleetError, match="n1 stays drained: web would go back to n1, which does not promise"):
        undo(one, hosts)
    assert (drained(one.query(), "n1"), len(one.commits), hosts.asked) == (True, commits, 1)
    hosts.refusing = set()
    told: list[Progress] = []
    assert undo(one, hosts, told=told)
    assert one.places == {"web": "n1", "db": "n3"}
    assert (hosts.held, told) == ({}, [Progress((), ("web",))])


def test_what_was_promised_to_a_vm_that_goes_back_stays_so_while_the_configuration_changes() -> None:
    one, hosts = draining(), Destinations()
    prefers(one, "web", "n1")
    empty(one, hosts)
    hosts.asked = 0
    one.lose(3)
    assert undo(one, hosts)
    assert (one.places["web"], hosts.asked, hosts.held) == ("n1", 1, {})


def test_an_undrain_that_would_stop_a_vm_or_send_back_an_unknown_one_changes_nothing() -> None:
    one, hosts = draining(), Destinations()
    empty(one, hosts)
    hosts.asked, commits = 0, len(one.commits)
    prefers(one, "web", "n1", kind="stop")
    with pytest.raises(FleetError, match="n1 stays drained: the engine would stop web"):
        undo(one, hosts)
    one.would, one.places["web"] = draining(()).would, "n9"
    prefers(one, "web", "n1")
    with pytest.raises(FleetError, match="the controller of n9 does not tell of it"):
        undo(one, hosts)
    one.places["web"] = "n2"
    hung = cell({"n1": host(), "n2": host(WEB, connected=False), "n3": host(DB)})
    with pytest.raises(FleetError, match="the libvirt of n2 does not answer"):
        undrain(one, hosts, lambda: hung, "n1", clock=Time().clock)
    assert (drained(one.query(), "n1"), len(one.commits), hosts.asked) == (True, commits, 0)


def test_no_vm_goes_back_to_a_host_that_tells_that_it_runs_there() -> None:
    one, hosts = draining(), Destinations()
    prefers(one, "web", "n1")
    empty(one, hosts)
    hosts.asked, commits = 0, len(one.commits)
    twice = cell({"n1": host(), "n2": host(WEB), "n3": host(DB)})
    twice = replace(twice, figures={**twice.figures, "n1": host(WEB)})
    with pytest.raises(FleetError, match="n1 stays drained: n1 tells that web runs there, and"):
        undrain(one, hosts, lambda: twice, "n1", clock=Time().clock)
    assert (drained(one.query(), "n1"), len(one.commits), hosts.asked) == (True, commits, 0)


def test_a_drain_that_begins_afresh_has_nobody_come_back_who_prefers_its_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FIGURES, "n1", host(DB))
    monkeypatch.setitem(FIGURES, "n2", host(WEB))
    one, hosts = draining(), Destinations({"n1"})
    one.text = cib_text({"web": 1, "db": 1}, {"n1": 1, "n2": 1, "n3": 1}, status=failed_move("db", "n1"))
    one.text = in_standby(one.query(), "n1")
    one.places["web"] = "n2"
    prefers(one, "web", "n1")
    empty(one, hosts)
    assert one.places == {"web": "n2", "db": "n3"}
    assert (hosts.held, one.cleaned) == ({}, [("db", "n1")])
    assert drained(one.query(), "n1")
    assert not avoided(one.query(), "n1")


def test_bans_of_a_drain_stay_until_undrain_where_their_end_would_send_a_vm_on() -> None:
    one, hosts = draining((MIGRATE,)), Destinations({"n2"})

    def would(cib: Cib) -> tuple[Action, ...]:
        banned = any(each.bans.get("n2") for each in cib.vms if each.name == "web")
        away = Action("migrate", "web", "n1", "n3" if banned else "n2", "migrate")
        gone = Action("migrate", "db", "n1", "n3", "migrate")
        moves = (away, gone) if drained(cib, "n1") else ()
        return tuple(each for each in moves if one.places[each.vm] == each.source)

    one.would = would
    prefers(one, "web", "n2")
    one.places = {"web": "n1", "db": "n1"}
    first = one.would
    one.would = lambda cib: would(cib) if one.places["web"] == "n1" else first(cib)
    empty(one, hosts)
    assert one.places == {"web": "n3", "db": "n3"}
    assert avoided(one.query(), "n1"), "web would go on to n2, which has refused it"
    with pytest.raises(FleetError, match="web would go back to n2, which does not promise"):
        undo(one, hosts)
    hosts.refusing = set()
    assert undo(one, hosts)
    assert (one.places["web"], avoided(one.query(), "n1"), hosts.held) == ("n2", False, {})


def test_a_drain_goes_on_while_the_node_that_decides_changes_and_keeps_its_promises() -> None:
    one, hosts, time = draining(), Destinations(), Time()
    one.obeys = False
    rests, silent = one.idle, [3]
    held: list[int] = []

    def idle() -> bool:
        if one.commits and silent[0]:
            silent[0] -= 1
            held.append(len(hosts.held))
            raise EngineError("no controller decides")
        if one.commits:
            one.obey(AWAY)
        return rests()

    one.idle = idle  # type: ignore[method-assign]
    _, told = empty(one, hosts, time)
    assert held == [2, 2, 2]
    assert told[-1] == Progress((), ("db", "web"))
    assert hosts.held == {}


def test_an_engine_that_stays_silent_ends_a_drain() -> None:
    one = draining()
    one.obeys = False
    rests = one.idle

    def idle() -> bool:
        if one.commits:
            raise EngineError("no controller decides")
        return rests()

    one.idle = idle  # type: ignore[method-assign]
    with pytest.raises(EngineError):
        empty(one, Destinations())


def test_a_drain_said_again_after_a_refused_migration_begins_afresh_with_promises() -> None:
    one, hosts = draining(), Destinations()
    one.text = cib_text({"web": 1, "db": 1}, {"n1": 1, "n2": 1, "n3": 1}, status=failed_move("db", "n1"))
    one.text = in_standby(one.query(), "n1")
    empty(one, hosts)
    assert one.cleaned == [("db", "n1")]
    assert drained(read_cib(one.commits[0]), "n1") is False
    assert one.places == {"web": "n2", "db": "n3"}
    assert hosts.asked == 2


def test_a_drain_that_stalls_says_what_is_left_and_goes_on_when_it_is_said_again() -> None:
    one, hosts = draining(), Destinations()
    one.obeys = False
    with pytest.raises(FleetError, match="leaves db, web on n1"):
        empty(one, hosts)
    assert hosts.held == {}
    one.obeys = True
    empty(one, hosts)
    assert one.places == {"web": "n2", "db": "n3"}


def test_a_drain_keeps_no_memory_for_a_vm_whose_migration_has_failed_while_others_are_on_their_way() -> None:
    """Its destination would squeeze its VMs for it at each renewal, and not answer about the others."""
    one, hosts, time = draining(), Destinations(), Time()
    one.obeys = False
    asked: list[str] = []

    def renew(host: str, vm: str, *_: object) -> bool:
        asked.append(vm)
        return True

    def fails() -> None:
        status = b"<status>" + failed_move("web", "n1").encode() + b"</status>"
        one.text = one.text.replace(b"<status></status>", status).replace(b"<status />", status)
        one.rests = False

    def goes_on() -> None:
        assert hosts.held.keys() == {"db"}
        one.rests = True
        one.places["db"] = "n3"

    hosts.renew = renew  # type: ignore[method-assign]
    time.at = {5.0: fails, 5.0 + 3 * RENEW_SECONDS: goes_on}
    with pytest.raises(FleetError, match="leaves web on n1"):
        empty(one, hosts, time)
    assert set(asked) == {"db"}
    assert hosts.held == {}


def test_a_plan_that_changes_while_destinations_are_asked_is_not_begun() -> None:
    one, hosts = draining(), Destinations()
    first = one.would
    asked: list[int] = []

    def would(cib: Cib) -> tuple[Action, ...]:
        asked.append(1)
        return first(cib) if len(asked) < 2 else first(cib)[:1]

    one.would = would
    with pytest.raises(FleetError, match="nothing was begun"):
        empty(one, hosts)
    assert one.commits == []


def busy_after_a_lost_race(one: FakeEngine, time: Time, seconds: float) -> None:
    """What came first made the engine start something, and its plan is another one until that is done."""
    would, faster = one.would, iter([True])

    def meanwhile() -> None:
        if next(faster, False):
            one.rests = False
            one.text = one.text.replace(b'num_updates="3"', b'num_updates="4"')
            time.at[time.now + seconds] = rests

    def rests() -> None:
        one.rests = True

    starts = Action("other", "probe", "n2", text="probe")
    one.would = lambda cib: would(cib) if one.rests else (*would(cib), starts)
    one.meanwhile = meanwhile


def test_a_drain_is_planned_by_no_engine_that_is_at_work() -> None:
    one, hosts, time = draining(), Destinations(), Time()
    busy_after_a_lost_race(one, time, 5.0)
    empty(one, hosts, time)
    assert one.places == {"web": "n2", "db": "n3"}
    assert time.now >= 5.0


def test_a_drain_begins_once_the_engine_rests() -> None:
    one, hosts, time = draining(), Destinations(), Time()
    one.rests = False
    with pytest.raises(EngineBusy, match="at work"):
        empty(one, hosts, time)
    assert (one.commits, hosts.asked) == ([], 0)

    def rests() -> None:
        one.rests = True

    time.at = {time.now + 9.0: rests}
    empty(one, hosts, time)
    assert one.places == {"web": "n2", "db": "n3"}


@pytest.mark.parametrize("when", ["before", "while destinations are asked"])
def test_no_drain_begins_while_a_pin_is_there_that_would_send_a_vm_back(when: str) -> None:
    one, hosts, time = draining(), Destinations(), Time()
    pin = pinned(one.query(), "db", "n1")

    def rests() -> None:
        one.rests = True

    if when == "before":  # a dead arbiter's
        one.text, one.rests, time.at = pin, False, {9.0: rests}
        empty(one, hosts, time)
        assert one.places == {"web": "n2", "db": "n3"}
    else:
        hosts.meanwhile = lambda: setattr(one, "text", pin)
        with pytest.raises(EngineBusy, match="being moved"):
            empty(one, hosts, time)
    standbys = [cib for cib in map(read_cib, one.commits) if drained(cib, "n1")]
    assert [pins(cib) for cib in standbys] == [()] * len(standbys)
    assert hosts.held == {}


def test_a_standby_that_somebody_else_wishes_while_destinations_are_asked_stays_theirs() -> None:
    one, hosts = draining(), Destinations()
    theirs = in_standby(one.query(), "n1").replace(b'name="dynmem-drain" value="yes"', b'name="x" value=""')
    hosts.meanwhile = lambda: setattr(one, "text", theirs)
    with pytest.raises(InputError, match="somebody else's wish"):
        empty(one, hosts)
    assert (one.text, one.commits, hosts.held) == (theirs, [], {})


def test_a_standby_that_is_somebody_elses_by_the_time_the_engine_rests_is_not_ended() -> None:
    one, time = draining(), Time()
    one.text = in_standby(one.query(), "n1")
    theirs = one.text.replace(b'name="dynmem-drain" value="yes"', b'name="x" value=""')
    one.rests = False

    def rests() -> None:
        one.rests, one.text = True, theirs

    time.at = {3.0: rests}
    with pytest.raises(InputError, match="somebody else's wish"):
        undo(one, time=time)
    assert one.text == theirs


def test_a_standby_of_somebody_else_is_left_alone() -> None:
    one = engine()
    text = in_standby(read_cib(one.text), "n1").replace(
        b'name="dynmem-drain" value="yes"', b'name="x" value=""'
    )
    one.text = text
    for action in (lambda: empty(one, Destinations()), lambda: undo(one)):
        with pytest.raises(InputError, match="somebody else's wish"):
            action()
    assert one.text == text


def test_a_node_that_is_none_is_an_error() -> None:
    with pytest.raises(FleetError, match="no node"):
        undo(engine(), host="n9")


def test_a_failed_migration_of_a_vm_that_is_not_placed_by_demand_is_none_of_ours() -> None:
    one = draining()
    status = failed_move("db", "n1") + failed_move("stranger", "n1")
    one.text = cib_text({"web": 1, "db": 1}, {"n1": 1, "n2": 1}, status=status)
    one.text = in_standby(one.query(), "n1")
    undo(one)
    assert one.cleaned == [("db", "n1")]
