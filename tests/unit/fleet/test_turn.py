"""A turn publishes only what disturbs nobody, and only while the engine rests."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from host_controller.fleet.core.booking import Booking
from host_controller.fleet.core.drain import Action
from host_controller.fleet.errors import EngineError, NoQuorum, RaceLost
from host_controller.fleet.pacemaker.cell import KNOWN_SECONDS, Turn, cell_of, commit, forget, publish
from host_controller.fleet.pacemaker.cib import WITHOUT_QUORUM, Cib, read_cib
from host_controller.fleet.pacemaker.pins import in_standby
from host_controller.fleet.pacemaker.simulation import read_simulation
from host_controller.fleet.pacemaker.tools import Tools
from host_controller.fleet.preparing import prepare
from host_controller.units import GIB
from tests.unit.fleet.cells import host, vm
from tests.unit.fleet.cluster import FakeEngine, cib_text
from tests.unit.fleet.test_draining import undo
from tests.unit.fleet.test_moving import Time

STOP = Action("stop", "web", "n1", text="stop")
FIGURES = {"n1": host(vm("web", 8 * GIB)), "n2": host()}


def engine() -> FakeEngine:
    return FakeEngine(cib_text({"web": 1024}, {"n1": 4000, "n2": None}), {"web": "n1"})


def turn(one: FakeEngine, **more: object) -> Turn:
    given: dict[str, object] = {"figures": FIGURES, "before": {}, "startup": lambda _: None, "now": 0.0}
    return publish(one, **given | more)  # type: ignore[arg-type]


def test_what_has_changed_is_published_in_one_commit_and_then_there_is_nothing_to_do() -> None:
    one = engine()
    done = turn(one)
    assert done.said == "published"
    assert len(one.commits) == 1
    cib = read_cib(one.text)
    assert cib.vms[0].size_mib == 9216
    assert cib.nodes == {"n1": 9216 + 56 * 1024, "n2": 64 * 1024}
    assert turn(one, before=done.bookings).said == "nothing has changed"
    assert len(one.commits) == 1


def test_nothing_is_published_while_the_engine_is_at_work() -> None:
    one = engine()
    one.rests = False
    assert turn(one).said == "the engine is at work"
    assert one.commits == []


def without_quorum(one: FakeEngine) -> FakeEngine:
    one.text = one.text.replace(b"<cib ", b'<cib have-quorum="0" ')
    return one


def test_without_quorum_nothing_is_published_moved_or_cleaned_up() -> None:
    one = engine()
    one.text = in_standby(one.query(), "n1")
    without_quorum(one)
    for changes in (
        lambda: turn(one),
        lambda: commit(one, one.query(), one.text),
        lambda: forget(one, one.query(), "web", "n1"),
        lambda: undo(one),
        lambda: prepare(one, clock=Time().clock),
    ):
        with pytest.raises(NoQuorum, match="no quorum"):
            changes()
    assert (one.commits, one.cleaned, one.refreshed) == ([], [], [])
    assert WITHOUT_QUORUM in one.query().notes


def test_where_a_vm_runs_there_is_room_for_it_also_while_the_engine_would_start_it_elsewhere() -> None:
    one = engine()
    found = read_simulation(ANSWER)
    cell = cell_of(one.query(), found, {}, lambda _: None)
    (web,) = cell.resources
    assert (web.node, web.also_on) == ("n2", {"n1"})
    blocked = replace(found, places={"web": "n1"}, several={"web": ("n1", "n2")})
    (web,) = cell_of(one.query(), blocked, {}, lambda _: None).resources
    assert (web.node, web.also_on) == ("n1", {"n2"})


def test_vms_of_the_engine_that_are_not_placed_by_demand_are_known_as_strangers() -> None:
    text = cib_text({"web": 1}, {"n1": 1}, '<primitive type="VirtualDomain" id="plain"/><primitive id="ip"/>')
    one = FakeEngine(text, {"web": "n1"})
    done = turn(one)
    assert done.cell is not None
    assert done.cell.strangers == {"plain"}


def test_what_the_scheduler_counts_of_others_by_our_attribute_is_known_of_each_node() -> None:
    counted = "".join(
        f'<utilization resource="{name}" node="{node}"><{kind}>{size}</{kind}></utilization>'
        for name, node, kind, size in (
            ("web", "n1", "dynmem", 1024),
            ("web-copy:0", "n1", "dynmem", 700),
            ("by-a-rule", "n1", "dynmem", 300),
            ("other", "n1", "cpu", 8),
            ("spoilt", "n1", "dynmem", "9" * 5000),
        )
    )
    text = ANSWER.replace(b"<actions", f"<utilizations>{counted}</utilizations><actions".encode(), 1)
    assert text != ANSWER
    nodes = cell_of(engine().query(), read_simulation(text), {}, lambda _: None).nodes
    assert {one.name: one.others_mib for one in nodes} == {"n1": 1000, "n2": 0}


def test_a_cluster_in_maintenance_takes_no_vm_anywhere() -> None:
    one = engine()
    pair = b'<nvpair id="m" name="maintenance-mode" value="%s"/></cluster_property_set>'
    for value, takes in ((b"true", False), (b"false", True)):
        cib = read_cib(one.text.replace(b"</cluster_property_set>", pair % value))
        nodes = cell_of(cib, one.simulate(one.text), {}, lambda _: None).nodes
        assert {node.takes for node in nodes} == {takes}
        assert {node.trouble for node in nodes} == ({""} if takes else {"the cluster is in maintenance"})


def test_what_the_engine_began_while_it_was_read_holds_a_publication_back() -> None:
    one = engine()
    query = one.query

    def begins_meanwhile() -> Cib:
        one.rests = False
        return query()

    one.query = begins_meanwhile  # type: ignore[method-assign]
    assert turn(one).said == "the engine is at work"
    assert one.commits == []


def test_nothing_is_published_that_would_stop_or_move_a_vm() -> None:
    one = engine()

    def would(cib: Cib) -> tuple[Action, ...]:
        return (STOP,) if cib.vms[0].size_mib != 1024 else ()

    one.would = would
    done = turn(one)
    assert done.harm == (STOP,)
    assert done.said == "held back: the engine would stop web"
    assert one.commits == []


def test_what_the_engine_would_do_anyway_and_starts_hold_nothing_back() -> None:
    one = engine()
    one.would = lambda cib: (STOP, *([Action("start", "new")] if cib.vms[0].size_mib != 1024 else []))
    assert turn(one).said == "published"


def test_a_lost_race_changes_nothing_and_the_next_turn_is_made_anew() -> None:
    one = engine()

    def meanwhile() -> None:
        one.text = one.text.replace(b'epoch="7"', b'epoch="8"')
        one.meanwhile = lambda: None

    one.meanwhile = meanwhile
    with pytest.raises(RaceLost):
        turn(one)
    assert one.commits == []
    assert turn(one).said == "published"


def test_what_the_scheduler_made_of_a_publication_is_not_asked_again_for_two_minutes() -> None:
    one = engine()
    asked: list[bytes] = []
    simulate = one.simulate
    one.simulate = lambda text: asked.append(text) or simulate(text)  # type: ignore[method-assign, func-returns-value]
    done = turn(one)
    assert len(asked) == 2, "before, and with what is published"
    one.text = one.text.replace(b'epoch="8"', b'epoch="8" cib-last-written="now" update-client="cibadmin"')
    one.text = one.text.replace(b'num_updates="0"', b'num_updates="1"')
    again = turn(one, before=done.bookings, known=done.known, now=KNOWN_SECONDS - 1)
    assert again.said == "nothing has changed"
    assert again.cell is not None
    assert again.cell.resources[0].node == "n1"
    assert len(asked) == 2
    grown = {"figures": {**FIGURES, "n1": host(vm("web", 16 * GIB))}, "before": again.bookings}
    assert turn(one, known=again.known, now=KNOWN_SECONDS - 1, **grown).said == "published"
    assert len(asked) == 3, "a publication is"
    turn(one, before=done.bookings, known=done.known, now=KNOWN_SECONDS - 1)
    assert len(asked) == 5, "and so is what is not the same"


@pytest.mark.parametrize("now", [KNOWN_SECONDS, -1.0])
def test_it_is_asked_again_after_them_and_when_the_clock_was_set_back(now: float) -> None:
    one = engine()
    done = turn(one)
    one.would = lambda _: (STOP,)
    found = turn(one, before=done.bookings, known=done.known, now=now)
    assert found.known is None, "it has something to do"


def test_where_the_scheduler_has_something_to_do_nothing_is_kept_of_it() -> None:
    one = engine()
    one.would = lambda _: (Action("start", "new"),)
    assert turn(one).known is None


GROWN = {"n1": host(vm("web", 16 * GIB)), "n2": host()}


def test_what_the_engine_has_come_to_want_since_it_was_asked_holds_nothing_back() -> None:
    one = engine()
    done = turn(one)
    one.would = lambda _: (STOP,)
    again = turn(one, figures=GROWN, before=done.bookings, known=done.known, now=1.0)
    assert (again.said, again.harm, again.known) == ("published", (), None)


def test_what_it_would_do_because_of_a_publication_holds_it_back_whatever_was_kept() -> None:
    one = engine()
    done = turn(one)
    one.would = lambda cib: (STOP,) if cib.vms[0].size_mib != 9216 else ()
    again = turn(one, figures=GROWN, before=done.bookings, known=done.known, now=1.0)
    assert (again.said, again.harm) == ("held back: the engine would stop web", (STOP,))
    assert again.known is not None
    assert again.known.at == 1.0, "it was asked anew, and that is kept"


def test_a_size_that_somebody_else_set_is_set_again() -> None:
    one = engine()
    done = turn(one)
    one.text = one.text.replace(b'value="9216"', b'value="1"')
    assert turn(one, before=done.bookings).said == "published"
    assert read_cib(one.text).vms[0].size_mib == 9216


def test_a_new_arbiter_goes_on_from_what_is_published() -> None:
    one = FakeEngine(cib_text({"web": 40000}, {"n1": 100000, "n2": 65536}), {"web": "n1"})
    done = turn(one, before={})
    assert done.bookings["web"] == Booking(40000, 0.0, 9216, ((0, 40000),))


def test_hosts_that_the_engine_does_not_know_are_not_asked_about() -> None:
    one = engine()
    done = turn(one, figures={**FIGURES, "stranger": host(vm("web", 50 * GIB))})
    assert done.cell is not None
    assert "stranger" not in done.cell.figures
    assert read_cib(one.text).vms[0].size_mib == 9216


ANSWER = b"""<pacemaker-result api-version="2.25" request="crm_simulate"><cluster_status><nodes>
<node name="n1" id="1" online="true" standby="false" standby_onfail="false" pending="false"
 maintenance="false" unclean="false" shutdown="false"/><node name="n2" id="2" online="true" standby="true"/>
<node name="n3" id="3" online="false" unclean="true"/></nodes><resources>
<resource id="web" role="Started" managed="true"><node name="n1" id="1" cached="true"/></resource>
<group id="g"><resource id="in" role="Started"><node name="n1" id="1"/></resource></group>
<resource id="off" role="Stopped"/></resources></cluster_status><utilizations>
<capacity node="n1" comment="Original"><dynmem>8000</dynmem></capacity>
<utilization resource="web" node="n2" function="f"><dynmem>3000</dynmem></utilization></utilizations><actions>
<rsc_action action="migrate" resource="web" source="n1" dest="n2"/>
<rsc_action action="move" resource="u" source="n1" dest="n2"/>
<rsc_action action="stop" resource="v" node="n2" reason="node availability"/>
<rsc_action action="start" resource="off" node="n3"/>
<rsc_action action="restart" resource="w" source="n1"/>
<node_action task="fence" node="n3" reason="peer is no longer part of the cluster"/>
</actions><status code="0" message="OK"/></pacemaker-result>"""


def test_the_schedulers_answer_is_read() -> None:
    found = read_simulation(ANSWER)
    assert {one.name: (one.takes, one.trouble) for one in found.nodes} == {
        "n1": (True, ""),
        "n2": (False, "it is in standby"),
        "n3": (False, "it is offline"),
    }
    assert found.places == {"web": "n2", "in": "n1"}
    assert read_simulation(ANSWER.replace(b"<actions>", b"<actions><!-- a comment is no action -->")) == found
    kinds = [(one.kind, one.vm, one.source, one.destination) for one in found.actions]
    assert kinds == [
        ("migrate", "web", "n1", "n2"),
        ("move", "u", "n1", "n2"),
        ("stop", "v", "n2", None),
        ("start", "off", None, "n3"),
        ("other", "w", "n1", None),
        ("other", "n3", "n3", None),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"<pacemaker-result/>",
        b'<pacemaker-result><cluster_status/><status code="1" message="bad"/></pacemaker-result>',
        b'<pacemaker-result><status code="0"/></pacemaker-result>',
        b"Transition Summary:",
    ],
)
def test_an_answer_that_is_not_understood_is_an_error(text: bytes) -> None:
    with pytest.raises(EngineError):
        read_simulation(text)


def test_a_full_disk_and_a_tool_that_cannot_be_run_are_errors_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    for asks in (lambda: Tools().simulate(b""), lambda: Tools().replace(b"", b"")):
        with pytest.raises(EngineError, match="nothing can be written"):
            asks()
    (tmp_path / "cibadmin").touch(mode=0o600)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="cibadmin cannot be run"):
        Tools().query()
