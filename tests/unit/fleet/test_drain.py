"""A drain that would stop a VM is refused, with what each other host lacks for it."""

from dataclasses import replace

import pytest

from host_controller.fleet.core.drain import Action, Closed, harm, plan_drain
from host_controller.fleet.core.model import Cell, Huge, Node, Resource
from host_controller.fleet.core.why import why
from host_controller.fleet.pacemaker.cib import read_cib, strangers
from host_controller.fleet.pacemaker.needs import missing
from host_controller.fleet.pacemaker.simulation import read_simulation
from host_controller.units import GIB
from tests.unit.fleet.cells import cell, host, unmanaged, vm
from tests.unit.fleet.cluster import cib_text

TWO = {"a": host(vm("web", 8 * GIB)), "b": host(vm("db", 60 * GIB)), "c": host()}


def test_a_drain_whose_vms_all_migrate_is_safe() -> None:
    found = plan_drain(cell(TWO), "a", [Action("migrate", "web", "a", "c")])
    assert [(one.vm, one.destination, one.reserve_bytes) for one in found.moves] == [("web", "c", 8 * GIB)]
    assert found.refusals == ()


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Action("stop", "web", "a"), "would be stopped: no other host has room"),
        (Action("move", "web", "a", "c"), "cannot be migrated live"),
        (Action("other", "web", "a", None, "restart"), "the engine would restart it"),
        (None, "would leave it there"),
    ],
)
def test_whatever_does_not_migrate_refuses_the_drain(action: Action | None, said: str) -> None:
    found = plan_drain(cell(TWO), "a", [action] if action else [])
    (refusal,) = found.refusals
    assert said in refusal.reason
    missing = {one.host: one.shortfall_mib for one in refusal.obstacles}
    assert missing == {"c": 0, "b": 4 * 1024}


def test_a_host_whose_libvirt_does_not_answer_is_not_drained_and_takes_nothing() -> None:
    """Each migration would fail, or keep the engine at work for an hour."""
    goes, text = Action("migrate", "web", "a", "c"), "the libvirt of {} does not answer"
    plain = replace(cell({**TWO, "a": replace(TWO["a"], connected=False)}), strangers=frozenset({"plain"}))
    found = plan_drain(plain, "a", [goes, Action("migrate", "plain", "a", "c")])
    assert [(one.vm, one.reason) for one in found.refusals] == [
        (name, text.format("a")) for name in ("web", "plain")
    ]
    away = host(connected=False, admits_bytes=0)
    assert plan_drain(cell({**TWO, "c": away}), "a", [goes]).closed == (Closed("web", "c", text.format("c")),)
    (obstacle,) = [one for one in why(cell({"c": away}), Resource("x", None, 1), 1) if one.host == "c"]
    assert "its libvirt does not answer" in obstacle.reasons


def test_a_vm_that_its_host_has_stopped_for_a_while_is_not_taken_from_it() -> None:
    """The host that it comes to takes it for one that its user has suspended."""
    stands = host(vm("web", 8 * GIB, settled=False, stands_still=True))
    (refusal,) = plan_drain(cell({**TWO, "a": stands}), "a", [Action("migrate", "web", "a", "c")]).refusals
    assert "stands still after a reset" in refusal.reason


def test_a_vm_that_is_not_placed_by_demand_may_not_be_stopped_by_a_drain_either() -> None:
    moves = Action("migrate", "web", "a", "c")
    plain = replace(cell(TWO), strangers=frozenset({"plain"}))
    for kind, said in (("stop", "would be stopped"), ("move", "cannot be migrated live")):
        (refusal,) = plan_drain(plain, "a", [moves, Action(kind, "plain", "a", "c")]).refusals
        assert (refusal.vm, said in refusal.reason) == ("plain", True)
    assert plan_drain(plain, "a", [moves, Action("migrate", "plain", "a", "c")]).refusals == ()
    assert plan_drain(plain, "a", [moves, Action("stop", "an-address", "a")]).refusals == ()


def test_vms_of_templates_and_of_clones_are_vms_that_a_drain_does_not_stop() -> None:
    more = (
        '<template type="VirtualDomain" id="tpl"/><template type="IPaddr2" id="address"/>'
        '<primitive id="of-it" template="tpl"/><primitive id="ip" template="address"/>'
        '<clone id="c"><primitive type="VirtualDomain" id="cloned"/></clone>'
    )
    cib = read_cib(cib_text({"web": 1}, {"a": 1}, more))
    assert strangers(cib) == {"of-it", "cloned"}
    assert [one.what for one in missing(cib) if "template" in one.found] == ["of-it: settings"]
    text = (
        '<pacemaker-result><cluster_status><resources/></cluster_status><actions><rsc_action action="stop" '
        'resource="{}" node="a"/></actions><status code="0"/></pacemaker-result>'
    )
    one = replace(cell({"a": host(), "c": host()}), strangers=strangers(cib))
    for name, refused in (("of-it", ["of-it"]), ("cloned:0", ["cloned"]), ("ip", [])):
        actions = read_simulation(text.format(name).encode()).actions
        assert [refusal.vm for refusal in plan_drain(one, "a", actions).refusals] == refused


def test_what_lies_in_huge_pages_is_to_be_promised_beside_the_ordinary_memory() -> None:
    one = vm("web", 2 * GIB, huge_bytes=8 * GIB, huge_page_bytes=0)
    (move,) = plan_drain(cell({**TWO, "a": host(one)}), "a", [Action("migrate", "web", "a", "c")]).moves
    assert (move.reserve_bytes, move.huge) == (2 * GIB, Huge(8 * GIB, 0))


def test_a_destination_that_admits_too_little_or_does_not_answer_is_no_way() -> None:
    two = cell({"a": host(vm("u", 8 * GIB), vm("v", 8 * GIB)), "b": host(admits_bytes=15 * GIB)})
    actions = [Action("migrate", name, "a", "b") for name in "uv"]
    (closed,) = plan_drain(two, "a", actions).closed
    assert closed == Closed("v", "b", "1024 MiB are missing beside what else would arrive")
    silent = Cell(two.nodes, two.resources, {"a": two.figures["a"]})
    assert [one.vm for one in plan_drain(silent, "a", actions).closed] == ["u", "v"]


def test_what_is_promised_is_not_asked_of_a_destinations_figures_once_more() -> None:
    two = cell({"a": host(vm("u", 8 * GIB), vm("v", 8 * GIB)), "b": host(admits_bytes=9 * GIB)})
    actions = [Action("migrate", name, "a", "b") for name in "uv"]
    assert plan_drain(two, "a", actions, promised=[("u", "b")]).closed == ()


def test_a_vm_of_which_its_host_does_not_tell_refuses_the_drain() -> None:
    one = cell({"a": host(), "c": host()}, (Resource("web", "a", 100),))
    found = plan_drain(one, "a", [Action("migrate", "web", "a", "c")])
    assert "does not tell of it" in found.refusals[0].reason


def test_a_vm_that_another_host_tells_of_too_refuses_the_drain() -> None:
    one = replace(cell(TWO), figures={**TWO, "b": host(vm("web", GIB))})
    (refusal,) = plan_drain(one, "a", [Action("migrate", "web", "a", "c")]).refusals
    assert refusal.reason == "b tells that it runs there: two hosts may not both be believed"


def test_a_vm_that_its_host_does_not_manage_goes_by_a_promise_of_all_that_it_costs() -> None:
    figures = {"a": host(unmanaged=(unmanaged("fixed", 8 * GIB),)), "c": host(admits_bytes=8 * GIB)}
    one = cell(figures, (Resource("fixed", "a", 100),))
    actions = [Action("migrate", "fixed", "a", "c")]
    assert [move.reserve_bytes for move in plan_drain(one, "a", actions).moves] == [8 * GIB]
    less = replace(one, figures={**figures, "c": host(admits_bytes=8 * GIB - 1)})
    assert plan_drain(less, "a", actions).closed != ()


def test_a_drain_that_disturbs_vms_elsewhere_is_refused() -> None:
    actions = [Action("migrate", "web", "a", "c"), Action("stop", "db", "b", text="stop")]
    found = plan_drain(cell(TWO), "a", actions)
    assert [one.vm for one in found.refusals] == ["db"]


def test_a_destination_that_has_changed_its_mind_is_not_asked_again() -> None:
    said = (Closed("web", "c", "448 MiB are missing"),)
    found = plan_drain(cell(TWO), "a", [Action("migrate", "web", "a", "c")], said)
    assert found.refusals[0].reason == "c has refused to take it"


def test_what_hosts_have_refused_is_said_where_no_other_is_left() -> None:
    said = (Closed("web", "c", "448 MiB are missing"), Closed("db", "b", "said of another VM"))
    (refusal,) = plan_drain(cell(TWO), "a", [Action("stop", "web", "a")], said).refusals
    assert {one.host: one.reasons for one in refusal.obstacles} == {"b": (), "c": ("448 MiB are missing",)}


def test_only_starts_harm_nobody_and_what_was_to_be_done_anyway_is_not_counted() -> None:
    start, stop, fence = Action("start", "new"), Action("stop", "web"), Action("other", "b")
    assert harm([start, stop, fence]) == (stop, fence)
    assert harm([start, stop, fence], [stop]) == (fence,)


def test_why_names_each_hosts_shortfall_its_holders_and_other_reasons() -> None:
    full = host(*(vm(f"v{i}", (i + 1) * GIB) for i in range(10)))
    new = Resource("new", None, bans={"d": "a start failed there"})
    one = cell({"a": full, "b": None, "c": host(), "d": host()}, (new,))
    nodes = (*one.nodes, Node("e", takes=False, trouble="it is in standby"))
    found = {at.host: at for at in why(Cell(nodes, one.resources, one.figures), new, 10 * 1024)}
    assert found["a"].shortfall_mib == 1024
    assert [holder.name for holder in found["a"].holders] == ["v9", "v8", "v7", "v6", "v5"]
    assert found["b"].reasons == ("its controller does not answer",)
    assert found["c"].takes
    assert found["d"].reasons == ("a start failed there",)
    assert found["e"].reasons[0] == "it is in standby"
    assert not any(found[name].takes for name in "abde")


def test_why_says_when_a_vm_is_larger_than_a_host() -> None:
    (found,) = why(cell({"a": host()}), Resource("new"), 65 * 1024)
    assert found.reasons == ("it is larger than the host's whole capacity of 65536 MiB",)


def test_why_counts_what_the_engine_is_bringing() -> None:
    one = cell({"a": host()}, (Resource("coming", "a", 60 * 1024),))
    (found,) = why(one, Resource("new"), 5 * 1024)
    assert (found.free_mib, found.shortfall_mib) == (4 * 1024, 1024)
