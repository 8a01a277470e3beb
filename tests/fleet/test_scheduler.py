"""Pacemaker's real scheduler, without a cluster: what would it do because of what we publish?"""

import random
import shutil
from xml.etree import ElementTree

import pytest

from bench.fleet import RandomCell, run
from host_controller.fleet.core.drain import harm
from host_controller.fleet.pacemaker.bans import forgiven
from host_controller.fleet.pacemaker.cib import changed, read_cib
from host_controller.fleet.pacemaker.needs import missing, prepared
from host_controller.fleet.pacemaker.pins import in_standby, pinned
from host_controller.fleet.pacemaker.tools import Tools

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.figures,
    pytest.mark.skipif(shutil.which("crm_simulate") is None, reason="needs pacemaker-cli-utils"),
]
PUBLICATIONS = 40
LONG_AGO = 1_700_000_000


def test_publications_stop_and_move_nobody_where_naive_ones_do() -> None:
    ours = run("dynmem", 8, 20, PUBLICATIONS, 3)
    theirs = run("naive", 8, 20, PUBLICATIONS, 3)
    print(f"{PUBLICATIONS} publications: ours {ours}, naive {theirs}")
    assert (ours.publications, ours.moved, ours.stopped) == (PUBLICATIONS, 0, 0)
    assert theirs.moved > 0


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


def test_init_would_restart_vms_that_run_with_other_parameters_so_it_is_refused_then() -> None:
    cell = RandomCell(2, 2, 0.3, random.Random(1))
    cib = read_cib(cell.xml(dict.fromkeys(cell.need, 1000), {"h0": 20000, "h1": 20000}))
    after = read_cib(prepared(cib))
    assert {one.what for one in missing(after)} == {"stonith-enabled"}
    disturbed = harm(Tools().simulate(ElementTree.tostring(after.root)).actions)
    assert {one.text for one in disturbed} == {"restart"}
