"""Pacemaker's real scheduler, without a cluster: what would it do because of what we publish?"""

import random
import shutil
from dataclasses import dataclass
from xml.etree import ElementTree

import pytest

from bench.fleet import RandomCell, run
from host_controller.errors import InputError
from host_controller.fleet.core.drain import harm
from host_controller.fleet.core.model import HostFigures
from host_controller.fleet.core.publication import publication
from host_controller.fleet.core.relief import REST_SECONDS
from host_controller.fleet.pacemaker.cell import cell_of, disturbed_by
from host_controller.fleet.pacemaker.cib import Cib, changed, failed_moves, read_cib
from host_controller.fleet.pacemaker.history import arrived, departures, destination, probed
from host_controller.fleet.pacemaker.lifting import forgiven
from host_controller.fleet.pacemaker.needs import missing, prepared
from host_controller.fleet.pacemaker.pins import in_standby, marks, moved_at, pinned, unpinned
from host_controller.fleet.pacemaker.simulation import Simulation
from host_controller.fleet.pacemaker.tools import Tools
from host_controller.fleet.preparing import prepare

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.figures,
    pytest.mark.skipif(shutil.which("crm_simulate") is None, reason="needs pacemaker-cli-utils"),
]
PUBLICATIONS = 40
LONG_AGO = 1_700_000_000
RUN = "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"
"""Of the one that decided, in the engine's history."""
FEATURES = "3.16.1"
MAINTENANCE = b'<nvpair id="mm" name="maintenance-mode" value="true"/>'


@dataclass
class OneText:
    """A cluster that rests and has this configuration; its scheduler is the real one."""

    text: bytes

    def query(self) -> Cib:
        return read_cib(self.text)

    def idle(self) -> bool:
        return True

    def simulate(self, text: bytes) -> Simulation:
        return Tools().simulate(text)

    def replace(self, _before: bytes, after: bytes) -> None:
        self.text = after

    def clean_up(self, vm: str, node: str, operation: str = "start") -> None:
        raise NotImplementedError

    def refresh(self, vm: str, node: str) -> None:
        raise NotImplementedError


def test_publications_stop_and_move_nobody_where_naive_ones_do() -> None:
    ours = run("dynmem", 8, 20, PUBLICATIONS, 3)
    theirs = run("naive", 8, 20, PUBLICATIONS, 3)
    print(f"{PUBLICATIONS} publications: ours {ours}, naive {theirs}")
    assert (ours.publications, ours.moved, ours.stopped) == (PUBLICATIONS, 0, 0)
    assert theirs.moved > 0


@pytest.mark.parametrize("quorum", [False, True], ids=["without quorum", "fencing fails"])
def test_a_vm_stays_when_a_host_is_back_that_was_out_of_sight_when_figures_were_published(
    quorum: bool,
) -> None:
    cell, tools = RandomCell(3, 2, 0.3, random.Random(1)), Tools()
    vm, here = next(iter(cell.where.items()))
    cell.where = {vm: here}
    sizes, capacities = dict.fromkeys(cell.need, 1000), dict.fromkeys(cell.capacities, 5000)
    whole = cell.xml(sizes, capacities).decode()
    off = '<nvpair id="o2" name="stonith-enabled" value="false"/>'
    freeze = '<nvpair id="o4" name="no-quorum-policy" value="freeze"/>'
    device = '<primitive class="stonith" id="fence" type="fence_lab"/></resources>'
    whole = whole.replace(off, off.replace("false", "true") + freeze).replace("</resources>", device)
    lost = 'in_ccm="false" crmd="offline" join="down"'
    seen = f'uname="{here}" in_ccm="true" crmd="online" join="member"'
    text = whole.replace(seen, f'uname="{here}" {lost}')
    text = text if quorum else text.replace('have-quorum="1"', 'have-quorum="0"')
    found = tools.simulate(text.encode())
    assert found.running[vm] == here
    assert found.places[vm] != here, "where it would be started, were its host fenced"
    answers = {host: HostFigures(5000 << 20, 0, 5000 << 20) for host in cell.capacities if host != here}
    view = cell_of(read_cib(text.encode()), found, answers, lambda _: None)
    wanted, _ = publication(view, {}, 0.0)
    assert wanted.hosts[here] == 1000
    back = tools.simulate(changed(read_cib(whole.encode()), wanted.vms, wanted.hosts))
    assert harm(back.actions) == ()


@pytest.mark.parametrize("counted", ["of a template", "of a clone"])
def test_a_full_host_keeps_its_vms_also_where_the_engine_counts_what_is_none_of_ours(counted: str) -> None:
    cell, tools = RandomCell(3, 2, 0.3, random.Random(1)), Tools()
    whole = cell.xml(dict.fromkeys(cell.need, 1000), dict.fromkeys(cell.capacities, 20000)).decode()
    kind = 'class="ocf" provider="heartbeat" type="VirtualDomain"'
    size = '<utilization id="tu"><nvpair id="tn" name="dynmem" value="900"/></utilization>'
    other = {
        "of a template": f'<template {kind} id="t">{size}</template><primitive id="theirs" template="t"/>',
        "of a clone": f'<clone id="t"><primitive {kind} id="theirs">{size}</primitive></clone>',
    }[counted]
    whole = whole.replace("</resources>", f"{other}</resources>")
    started = _operation("theirs", "start", 1)
    for node in cell.capacities if counted == "of a clone" else ("h0",):
        whole = _remember(whole, "theirs", node, started)
    cib, found = read_cib(whole.encode()), tools.simulate(whole.encode())
    assert harm(found.actions) == ()
    running = {vm: place for vm, place in found.running.items() if vm in cell.where}
    assert running == cell.where
    full = {host: HostFigures(20000 << 20, 0, 0) for host in cell.capacities}
    wanted, _ = publication(cell_of(cib, found, full, lambda _: None), {}, 0.0)
    assert wanted.hosts["h0"] == 2 * 1000 + 900
    assert harm(tools.simulate(changed(cib, wanted.vms, wanted.hosts)).actions) == ()
    without = {**wanted.hosts, "h0": 2 * 1000}
    assert harm(tools.simulate(changed(cib, wanted.vms, without)).actions) != (), "so it was held back"


def test_a_pin_and_a_standby_are_what_the_scheduler_understands() -> None:
    cell = RandomCell(2, 2, 0.3, random.Random(1))
    sizes, tools = dict.fromkeys(cell.need, 1000), Tools()
    cib = read_cib(cell.xml(sizes, {"h0": 20000, "h1": 20000}))
    vm, source = next(iter(cell.where.items()))
    (other,) = {"h0", "h1"} - {source}
    (move,) = tools.simulate(pinned(cib, vm, other)).actions
    assert (move.kind, move.vm, move.source, move.destination) == ("migrate", vm, source, other)
    away = tools.simulate(in_standby(cib, source)).actions
    assert {one.kind for one in away} == {"migrate"}
    assert {one.vm for one in away} == {name for name, host in cell.where.items() if host == source}
    full = read_cib(changed(cib, {}, {other: 3500}))
    assert "stop" in {one.kind for one in tools.simulate(in_standby(full, source)).actions}


def test_a_vm_that_leaves_makes_room_for_one_that_waits_and_a_move_to_no_room_moves_another() -> None:
    cell, tools = RandomCell(2, 3, 0.3, random.Random(1)), Tools()
    waits = next(iter(cell.where))
    del cell.where[waits]
    vm, source = next(iter(cell.where.items()))
    (other,) = {"h0", "h1"} - {source}
    held = {host: 1000 * list(cell.where.values()).count(host) for host in cell.capacities}
    sizes = dict.fromkeys(cell.need, 1000) | {waits: 1100}
    for room, also in ((1000, ("start", waits, source)), (999, None)):
        text = cell.xml(sizes, {source: held[source] + 100, other: held[other] + room})
        assert tools.simulate(text).actions == ()
        does = tools.simulate(pinned(read_cib(text), vm, other)).actions
        moved = [(one.kind, one.vm, one.destination) for one in does if one.vm != waits]
        if also is None:
            assert moved != [("migrate", vm, other)], "so a move waits for figures that tell of the room"
        else:
            assert moved == [("migrate", vm, other)]
            assert also in [(one.kind, one.vm, one.destination) for one in does]


def test_a_vm_on_its_way_is_stopped_when_what_sent_it_is_taken_back_and_nothing_tells_before() -> None:
    cell, tools = RandomCell(3, 2, 0.3, random.Random(1)), Tools()
    text = cell.xml(dict.fromkeys(cell.need, 1000), dict.fromkeys(cell.capacities, 20000)).decode()
    vm, source = next(iter(cell.where.items()))
    there = max(set(cell.capacities) - {source})
    for on_its_way in (pinned, in_standby):
        for sent in (False, True):
            moving = _moving(text, vm, source, there, arrived=sent)
            cib = read_cib(moving)
            goes_on = on_its_way(cib, vm, there) if on_its_way is pinned else in_standby(cib, source)
            kinds = {one.vm: one.kind for one in tools.simulate(goes_on).actions}
            assert kinds[vm] == "migrate", "that is what it was sent by"
            taken_back = {one.vm: one.kind for one in tools.simulate(moving).actions}
            assert taken_back == ({vm: "move"} if sent else {}), "so `commit` asks for rest"


@pytest.mark.parametrize("timeout", ["", "30min"])
def test_a_failed_start_bans_a_host_until_it_is_forgiven_or_its_time_is_over(timeout: str) -> None:
    cell = RandomCell(2, 2, 0.3, random.Random(1))
    stopped, tools = next(iter(cell.where)), Tools()
    del cell.where[stopped]
    # Only h0 has room for it.
    text = cell.xml(dict.fromkeys(cell.need, 1000), {"h0": 20000, "h1": 2000}).decode()
    pairs = "".join(
        f'<nvpair id="{name}" name="{name}-{stopped}#start_0" value="{value}"/>'
        for name, value in (("fail-count", "INFINITY"), ("last-failure", LONG_AGO))
    )
    block = f'<instance_attributes id="s">{pairs}</instance_attributes>'
    failed = f'<transient_attributes id="1">{block}</transient_attributes>'
    text = text.replace('<lrm id="1">', failed + '<lrm id="1">')
    if timeout:
        meta = f'<nvpair id="ft" name="failure-timeout" value="{timeout}"/>'
        text = text.replace(f'<meta_attributes id="{stopped}m">', f'<meta_attributes id="{stopped}m">{meta}')
    cib = read_cib(text.encode())
    assert {one.name: set(one.failed_on) for one in cib.vms if one.failed_on} == {stopped: {"h0"}}
    starts = [(one.kind, one.vm, one.destination) for one in tools.simulate(text.encode()).actions]
    assert starts == ([("start", stopped, "h0")] if timeout else [])
    (start,) = tools.simulate(forgiven(cib, stopped, "h0")).actions
    assert (start.kind, start.vm, start.destination) == ("start", stopped, "h0")


@pytest.mark.parametrize(
    ("threshold", "counts"),
    [
        ("INFINITY", {"monitor_10000": 5}),
        ("3", {"monitor_10000": 2}),
        ("3", {"monitor_10000": 3}),
        ("3", {"monitor_10000": 2, "start_0": 1}),
        ("0", {"start_0": "INFINITY"}),
        ("x", {"start_0": "INFINITY"}),
        ("INFINITY", {"stop_0": "INFINITY"}),
    ],
)
def test_failures_ban_a_host_for_the_scheduler_as_for_us(threshold: str, counts: dict[str, object]) -> None:
    """(fact: failures-add-up)"""
    cell = RandomCell(2, 2, 0.3, random.Random(1))
    stopped = next(iter(cell.where))
    del cell.where[stopped]
    text = cell.xml(dict.fromkeys(cell.need, 1000), {"h0": 20000, "h1": 2000}).decode()
    pairs = "".join(
        f'<nvpair id="c-{name}" name="fail-count-{stopped}#{name}" value="{count}"/>'
        for name, count in counts.items()
    )
    block = f'<instance_attributes id="s">{pairs}</instance_attributes>'
    failed = f'<transient_attributes id="1">{block}</transient_attributes>'
    meta = f'<nvpair id="mt" name="migration-threshold" value="{threshold}"/>'
    text = text.replace('<lrm id="1">', failed + '<lrm id="1">')
    text = text.replace(f'<meta_attributes id="{stopped}m">', f'<meta_attributes id="{stopped}m">{meta}')
    (bans,) = [one.bans for one in read_cib(text.encode()).vms if one.name == stopped]
    starts = [one.destination for one in Tools().simulate(text.encode()).actions]
    assert starts == ([] if "h0" in bans else ["h0"])


def test_a_vm_that_came_by_migration_is_cleaned_up_only_once_its_departure_is_forgotten() -> None:
    cell, tools = RandomCell(3, 2, 0.3, random.Random(1)), Tools()
    text = cell.xml(dict.fromkeys(cell.need, 1000), dict.fromkeys(cell.capacities, 20000)).decode()
    vm, here = next(iter(cell.where.items()))
    there = min(set(cell.capacities) - {here})
    arrived = _operation(vm, "migrate_from", 5, migrate_source=there, migrate_target=here)
    refused = _operation(vm, "migrate_to", 8, 1, migrate_source=here, migrate_target="h2")
    sent = _operation(vm, "migrate_to", 6, migrate_source=there, migrate_target=here)
    departed = _remember(text, vm, there, sent + _operation(vm, "stop", 7))
    for before, disturbed in ((departed, ["restart"]), (text, [])):
        cib = read_cib(_remember(before, vm, here, arrived + refused).encode())
        assert failed_moves(cib) == {vm: here}
        assert departures(cib, vm, here) == ((there,) if disturbed else ())
        assert [one.text for one in harm(tools.simulate(probed(cib, vm, here)).actions)] == disturbed
        rests = cib.text.replace(b"</cluster_property_set>", MAINTENANCE + b"</cluster_property_set>")
        known = read_cib(rests)
        assert tools.simulate(probed(known, vm, here)).actions == ()
        told = disturbed_by(OneText(rests), known, probed(known, vm, here))
        assert [one.text for one in told] == disturbed, "once the maintenance is over"


def test_a_mark_makes_the_scheduler_do_nothing_where_a_pin_would_begin_the_failed_move_anew() -> None:
    cell, tools = RandomCell(3, 2, 0.3, random.Random(1)), Tools()
    text = cell.xml(dict.fromkeys(cell.need, 1000), dict.fromkeys(cell.capacities, 20000)).decode()
    vm, here = next(iter(cell.where.items()))
    (there, *_) = sorted(set(cell.capacities) - {here})
    refused = _operation(vm, "migrate_to", 8, 1, migrate_source=here, migrate_target=there)
    cib = read_cib(_remember(text, vm, here, refused).encode())
    held = read_cib(pinned(cib, vm, there))
    marked = read_cib(unpinned(held, [vm], LONG_AGO, REST_SECONDS))
    assert moved_at(marked) == {vm: LONG_AGO}
    assert marks(marked) == {vm: here}
    before, after = (tools.simulate(one.text).actions for one in (cib, marked))
    assert after == before
    assert tools.simulate(probed(marked, vm, here)).actions == ()
    assert {(one.kind, one.vm) for one in tools.simulate(probed(held, vm, here)).actions} == {("migrate", vm)}


def test_where_only_constraints_permit_hosts_a_pin_permits_one_and_a_mark_none() -> None:
    cell, tools = RandomCell(3, 2, 0.3, random.Random(1)), Tools()
    text = cell.xml(dict.fromkeys(cell.need, 1000), dict.fromkeys(cell.capacities, 20000)).decode()
    opt_in = '<nvpair id="sym" name="symmetric-cluster" value="false"/></cluster_property_set>'
    permits = {
        vm: f'<rsc_location id="at-{vm}" rsc="{vm}" node="{host}" score="0"/>'
        for vm, host in cell.where.items()
    }
    text = text.replace("</cluster_property_set>", opt_in)
    text = text.replace("<constraints/>", f"<constraints>{''.join(permits.values())}</constraints>")
    vm, here = next(iter(cell.where.items()))
    (there, other) = sorted(set(cell.capacities) - {here})
    cib = read_cib(text.encode())
    assert {one.name: set(one.bans) for one in cib.vms}[vm] == {there, other}, "so nobody is pinned there"
    (move,) = tools.simulate(pinned(cib, vm, there)).actions
    assert (move.kind, move.vm, move.destination) == ("migrate", vm, there)
    refused = _operation(vm, "migrate_to", 8, 1, migrate_source=here, migrate_target=there)
    without = _remember(text.replace(permits[vm], ""), vm, here, refused)
    marked = read_cib(unpinned(read_cib(without.encode()), [vm], LONG_AGO, REST_SECONDS))
    assert marks(marked) == {vm: here}
    stops = [(one.kind, one.vm) for one in tools.simulate(probed(marked, vm, here)).actions]
    assert stops == [("stop", vm)], "as nothing permits it anywhere"


def test_a_vm_whose_failed_migration_has_arrived_would_be_started_twice_but_for_a_look_there() -> None:
    cell, tools = RandomCell(3, 2, 0.3, random.Random(1)), Tools()
    text = cell.xml(dict.fromkeys(cell.need, 1000), dict.fromkeys(cell.capacities, 20000)).decode()
    vm, here = next(iter(cell.where.items()))
    (there, _) = sorted(set(cell.capacities) - {here})
    failed = _operation(vm, "migrate_to", 8, 1, migrate_source=here, migrate_target=there)
    missed, found = (_operation(vm, "monitor", call, code) for call, code in ((1, 7), (9, 0)))
    gone = _remember(_remember(text, vm, here, _operation(vm, "monitor", 10, 7)), vm, there, missed)
    assert [one.kind for one in tools.simulate(gone.encode()).actions] == ["start"], "it runs there"
    looked = read_cib(_remember(_remember(text, vm, here, failed), vm, there, found).encode())
    assert destination(looked, vm, here) == there
    assert [one.text for one in harm(tools.simulate(probed(looked, vm, here)).actions)] == ["restart"]


@pytest.mark.parametrize(
    ("location", "opt_in", "after"),
    [
        ("", False, []),
        ('<rsc_location id="l" rsc="{vm}" node="{here}" score="500"/>', False, []),
        ('<rsc_location id="l" rsc="{vm}" node="{here}" score="5000"/>', False, ["migrate"]),
        ('<rsc_location id="l" rsc-pattern="^{vm}$" node="{here}" score="5000"/>', False, ["migrate"]),
        ("", True, ["stop"]),
        (
            '<rsc_location id="l" rsc="{vm}"><rule id="r" score="0"><expression id="e" attribute="#uname" '
            'operation="eq" value="{there}"/></rule></rsc_location>',
            True,
            [],
        ),
        ('<rsc_location id="l" rsc-pattern="^{vm}$" node="{there}" score="0"/>', True, []),
        (
            '<rsc_location id="l" node="{there}" score="0"><resource_set id="s"><resource_ref id="{vm}"/>'
            "</resource_set></rsc_location>",
            True,
            [],
        ),
    ],
)
def test_whether_a_vm_would_stay_where_it_is_moved_is_known_however_constraints_are_written(
    location: str, opt_in: bool, after: list[str]
) -> None:
    cell, tools = RandomCell(2, 2, 0.3, random.Random(1)), Tools()
    vm, here = next(iter(cell.where.items()))
    (there,) = set(cell.capacities) - {here}
    text = cell.xml(dict.fromkeys(cell.need, 1000), dict.fromkeys(cell.capacities, 20000)).decode()
    permits = "".join(
        f'<rsc_location id="at-{one}" rsc="{one}" node="{host}" score="0"/>'
        for one, host in cell.where.items()
        if one != vm
    )
    own = location.format(vm=vm, here=here, there=there)
    text = text.replace("<constraints/>", f"<constraints>{permits}{own}</constraints>")
    if opt_in:
        asymmetric = '<nvpair id="sym" name="symmetric-cluster" value="false"/></cluster_property_set>'
        text = text.replace("</cluster_property_set>", asymmetric)
    cib = read_cib(text.encode())
    (mine,) = [one for one in cib.vms if one.name == vm]
    assert (there in mine.bans, there in mine.unsure) == (opt_in, bool(opt_in and location))
    assert [one.kind for one in tools.simulate(arrived(cib, vm, here, there)).actions] == after


def test_a_start_of_a_higher_priority_stops_a_vm_that_runs_and_one_of_the_same_does_not() -> None:
    cell, tools = RandomCell(2, 2, 0.3, random.Random(1)), Tools()
    stopped = next(iter(cell.where))
    del cell.where[stopped]
    held = {host: 1300 if list(cell.where.values()).count(host) == 1 else 2300 for host in cell.capacities}
    text = cell.xml(dict.fromkeys(cell.need, 1000), held).decode()
    for priority, stops in (("0", 0), ("10", 1)):
        pair = f'<nvpair id="p" name="priority" value="{priority}"/>'
        after = text.replace(f'<meta_attributes id="{stopped}m">', f'<meta_attributes id="{stopped}m">{pair}')
        assert [one.kind for one in tools.simulate(after.encode()).actions].count("stop") == stops
        assert (f"{stopped}: priority" in {one.what for one in missing(read_cib(after.encode()))}) == stops


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ('<cluster_property_set id="o">', "maintenance-mode", "true"),
        ('<meta_attributes id="d">', "is-managed", "false"),
        ('<meta_attributes id="d">', "maintenance", "true"),
        ('<meta_attributes id="{vm}m">', "is-managed", "false"),
        ('uname="{host}">', "maintenance", "true"),
    ],
)
def test_init_restarts_no_vm_when_a_maintenance_ends(where: str, name: str, value: str) -> None:
    """(fact: maintenance-hides)"""
    cell = RandomCell(2, 1, 0.3, random.Random(1))
    stopped, vm = cell.where
    host = cell.where[vm]
    del cell.where[stopped]
    text = cell.xml(dict.fromkeys(cell.need, 1000), {"h0": 20000, "h1": 20000}).decode()
    place, pair = where.format(vm=vm, host=host), f'<nvpair id="x" name="{name}" value="{value}"/>'
    if place.startswith("uname"):
        pair = f'<instance_attributes id="y">{pair}</instance_attributes>'
    assert place in text
    one = OneText(text.replace(place, place + pair).encode())
    assert harm(one.simulate(prepared(one.query())).actions) == (), "nothing is told"
    with pytest.raises(InputError, match=f"the engine would restart {vm}"):
        prepare(one)
    cell.where.clear()
    one.text = cell.xml(dict.fromkeys(cell.need, 1000), {"h0": 20000, "h1": 20000})
    one.text = one.text.replace(place.encode(), (place + pair).encode())
    prepare(one)
    assert {need.what for need in missing(one.query())} == {"stonith-enabled"}


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ('<{} id="a">{true}</{}><{} id="b">{false}</{}>', "false"),
        ('<{} id="a">{false}</{}><{} id="b">{true}</{}>', "true"),
        ('<{} id="a">{true}{false}</{}>', "true"),
        ('<{} id="a" score="5">{false}</{}><{} id="b">{true}</{}>', "false"),
        ('<{} id="cib-bootstrap-options">{false}</{}><{} id="b" score="5">{true}</{}>', "false"),
        (
            '<{} id="a">{true}</{}><{} id="b" score="5"><rule id="r" score="0"><date_expression id="e" '
            'operation="lt" end="2001-01-01"/></rule>{false}</{}>',
            "true",
        ),
    ],
)
def test_of_several_blocks_of_settings_that_counts_which_we_take(blocks: str, said: str) -> None:
    """(fact: last-block-counts)"""
    cell, option = RandomCell(2, 2, 0.3, random.Random(1)), "symmetric-cluster"
    text = cell.xml(dict.fromkeys(cell.need, 1000), dict.fromkeys(cell.capacities, 20000)).decode()
    values = {
        value: f'<nvpair id="n-{value}" name="{option}" value="{value}"/>' for value in ("true", "false")
    }
    filled = blocks.replace("{}", "cluster_property_set").format(**values)
    text = text.replace("</crm_config>", f"{filled}</crm_config>")
    assert read_cib(text.encode()).options[option] == said
    actions = Tools().simulate(text.encode()).actions
    assert {one.kind for one in actions} == ({"stop"} if said == "false" else set()), "none is permitted"


def test_init_would_restart_vms_that_run_with_other_parameters_so_it_is_refused_then() -> None:
    cell = RandomCell(2, 2, 0.3, random.Random(1))
    cib = read_cib(cell.xml(dict.fromkeys(cell.need, 1000), {"h0": 20000, "h1": 20000}))
    after = read_cib(prepared(cib))
    assert {one.what for one in missing(after)} == {"stonith-enabled"}
    disturbed = harm(Tools().simulate(ElementTree.tostring(after.root)).actions)
    assert {one.text for one in disturbed} == {"restart"}


def _operation(vm: str, name: str, call: int, code: int = 0, **more: str) -> str:
    key = f"{call}:1:0:{RUN}"
    place = "last" if name in ("stop", "migrate_from") else name
    extra = "".join(f'{one}="{value}" ' for one, value in more.items())
    return (
        f'<lrm_rsc_op id="{vm}_{place}_0" operation_key="{vm}_{name}_0" operation="{name}" interval="0" '
        f'{extra}crm_feature_set="{FEATURES}" transition-key="{key}" transition-magic="0:{code};{key}" '
        f'call-id="{call}" rc-code="{code}" op-status="0" last-rc-change="{LONG_AGO + call}" '
        'op-digest="f2317cad3d54cec5d7d7aa7d0bf35cf8"/>'
    )


def _remember(text: str, vm: str, node: str, operations: str) -> str:
    """The node's history of the VM is this one."""
    before, found, after = text.partition(f'uname="{node}" in_ccm')
    head, begin, rest = after.partition("<lrm_resources>")
    mine, end, others = rest.partition("</lrm_resources>")
    own = f'<lrm_resource id="{vm}" class="ocf" provider="heartbeat" type="VirtualDomain">'
    first, there, last = mine.partition(own)
    kept = last.partition("</lrm_resource>")[2] if there else ""
    return before + found + head + begin + first + kept + own + operations + "</lrm_resource>" + end + others


def _moving(text: str, vm: str, source: str, there: str, *, arrived: bool) -> bytes:
    """With a migration under way, and its memory sent or not yet."""
    key = f"5:2:0:{RUN}"
    code, status, call = (0, 0, 7) if arrived else (193, -1, -1)
    common = f'crm_feature_set="{FEATURES}" interval="0" op-digest="f2317cad3d54cec5d7d7aa7d0bf35cf8"'
    sent = (
        f'<lrm_rsc_op id="{vm}_migrate_to_0" operation_key="{vm}_migrate_to_0" operation="migrate_to" '
        f'{common} transition-key="{key}" transition-magic="{status}:{code};{key}" call-id="{call}" '
        f'rc-code="{code}" op-status="{status}" migrate_source="{source}" migrate_target="{there}"/>'
    )
    probed = (
        f'<lrm_resource id="{vm}" class="ocf" provider="heartbeat" type="VirtualDomain"><lrm_rsc_op {common} '
        f'id="{vm}_last_0" operation_key="{vm}_monitor_0" operation="monitor" transition-key="3:0:7:{RUN}" '
        f'transition-magic="0:7;3:0:7:{RUN}" call-id="1" rc-code="7" op-status="0"/></lrm_resource>'
    )
    before, found, after = text.replace("1:1:0:a", f"1:1:0:{RUN}").partition(f'<lrm_resource id="{vm}"')
    history, end, rest = after.partition("</lrm_resource>")
    text = before + found + history + sent + end + rest
    before, found, after = text.partition(f'uname="{there}" in_ccm')
    head, begin, rest = after.partition("<lrm_resources>")
    return (before + found + head + begin + probed + rest).encode()
