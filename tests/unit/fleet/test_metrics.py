"""What the arbiter knows is there for Prometheus, served by the controller of the host where it runs."""

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import structlog

from host_controller.api.schema.fleet import FleetView
from host_controller.api.server import Api
from host_controller.exposition import CONTENT_TYPE, Family, sample
from host_controller.fleet import arbiter, metrics
from host_controller.fleet.arbiter import PUBLISH_SECONDS, TURN_SECONDS, WARN_SECONDS
from host_controller.fleet.clock import Clock
from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import Resource
from host_controller.fleet.core.relief import SHORT_SECONDS
from host_controller.fleet.expiry import DAY, WARN_DAYS, ending, ends
from host_controller.fleet.metrics import FAMILIES, Tally, render
from host_controller.records import fleet_figures
from host_controller.records.fleet_figures import FRESH_SECONDS, LARGEST_BYTES, fresh, keep
from host_controller.units import GIB, MIB
from tests.support.serving import ask
from tests.support.virtual import Host, aside, run
from tests.unit.fleet.cells import cell, host, vm
from tests.unit.fleet.test_arbiter import Scene, scene

__all__ = ["scene"]


def text_of(one: Scene) -> str:
    return one.arbiter.state.with_name("metrics.prom").read_text()


def test_each_host_and_vm_is_told_of_with_what_is_known() -> None:
    here = cell(
        {"n1": host(vm("web", 8 * GIB), certificate_until=1e9), "n2": None},
        (Resource("new", None, 100, 100, {"n1": "refused"}),),
        {"web": 9216, "n1": 66560},
    )
    text = render(here, {"n2": "refused"}, 3, Tally()).decode()
    for line in (
        f'dynmem_fleet_host_capacity_bytes{{host="n1"}} {64 * GIB}',
        f'dynmem_fleet_host_need_bytes{{host="n1"}} {8 * GIB}',
        f'dynmem_fleet_host_booked_bytes{{host="n1"}} {9216 * MIB}',
        f'dynmem_fleet_host_published_bytes{{host="n1"}} {66560 * MIB}',
        'dynmem_fleet_host_certificate_end_seconds{host="n1"} 1000000000.0',
        'dynmem_fleet_host_up{host="n1"} 1',
        'dynmem_fleet_host_up{host="n2"} 0',
        f'dynmem_fleet_vm_booked_bytes{{vm="web",host="n1"}} {9216 * MIB}',
        f'dynmem_fleet_vm_booked_bytes{{vm="new",host=""}} {100 * MIB}',
        'dynmem_fleet_vm_bans{vm="new"} 1',
        "dynmem_fleet_notes 3",
    ):
        assert line in text.splitlines()
    assert 'capacity_bytes{host="n2"}' not in text  # what is not known is no zero


def test_a_name_ends_no_label() -> None:
    family = Family("f", "gauge", "")
    assert sample(family, {"vm": 'a"b\\c\nd'}, 1) == 'f{vm="a\\"b\\\\c\\nd"} 1'
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_names_of_metrics_are_given_once() -> None:
    names = [one.name for one in FAMILIES]
    assert len(names) == len(set(names))
    assert all(one.name.endswith("_total") == (one.kind == "counter") for one in FAMILIES)


def test_the_arbiter_counts_its_turns_and_who_is_not_believed(scene: Scene) -> None:
    del scene.hosts.said["n2"]
    scene.arbiter.turn()
    text = text_of(scene)
    assert 'dynmem_fleet_turns_total{result="published"} 1' in text
    assert 'dynmem_fleet_silent_total{host="n2"} 1' in text
    assert 'dynmem_fleet_host_up{host="n2"} 0' in text
    scene.go_on(PUBLISH_SECONDS + TURN_SECONDS)
    assert 'dynmem_fleet_turns_total{result="unchanged"} 1' in text_of(scene)
    scene.engine.rests = False
    scene.go_on(PUBLISH_SECONDS)
    assert 'dynmem_fleet_turns_total{result="engine_busy"}' in text_of(scene)


def test_what_is_held_back_and_what_relief_came_to_are_counted(scene: Scene) -> None:
    scene.go_on(400)
    assert 'dynmem_fleet_moves_total{result="done"} 1' in text_of(scene)
    stop = Action("stop", "db", "n1", text="stop")
    before = scene.engine.query().nodes
    scene.engine.would = lambda cib: (stop,) if cib.nodes != before else ()
    scene.hosts.said["n2"] = host(admits_bytes=7 * GIB)
    scene.go_on(PUBLISH_SECONDS + TURN_SECONDS)
    assert 'dynmem_fleet_turns_total{result="held_back"}' in text_of(scene)


def test_figures_that_cannot_be_kept_end_nothing(scene: Scene) -> None:
    scene.arbiter.state.parent.mkdir()
    scene.arbiter.state.with_name("metrics.new").mkdir()
    with structlog.testing.capture_logs() as logs:
        scene.arbiter.turn()
    assert "a file of the fleet cannot be kept" in [one["event"] for one in logs]


def test_what_is_kept_is_served_while_it_is_fresh(tmp_path: Path) -> None:
    file = tmp_path / "fleet/metrics.prom"
    assert fresh(1000.0, file) == b""
    keep(b"dynmem_fleet_notes 0\n", file)
    os.utime(file, (1000.0, 1000.0))
    assert fresh(1000.0 + FRESH_SECONDS, file) == b"dynmem_fleet_notes 0\n"
    assert fresh(1001.0 + FRESH_SECONDS, file) == b""
    assert fresh(999.0 - FRESH_SECONDS, file) == b""
    assert file.stat().st_mode & 0o077 == 0


def test_what_is_no_file_or_too_large_is_not_served(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    now = (tmp_path / "pipe").stat().st_mtime
    assert fresh(now, tmp_path / "pipe") == b""
    keep(b"x" * (LARGEST_BYTES + 1), tmp_path / "large")
    assert fresh((tmp_path / "large").stat().st_mtime, tmp_path / "large") == b""


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (WARN_DAYS, None),
        (29.5, "in 29 days"),
        (1.5, "within two days"),
        (0.5, "within a day"),
        (-1, "has expired"),
    ],
)
def test_a_certificate_that_expires_soon_is_told_of(days: float, said: str | None) -> None:
    text = ends("n1", 1e9 + days * DAY, 1e9)
    assert text is None if said is None else said in str(text)
    if text is not None:
        assert "dynmem fleet certificates n1" in text


def test_the_arbiter_warns_of_certificates_once_a_day(scene: Scene) -> None:
    # The file of figures is of this host's time, the certificate of the scene's.
    soon = scene.clock.now + 20 * DAY
    scene.hosts.said = {"n1": replace(host(), certificate_until=soon), "n2": host(certificate_until=1e12)}
    assert len(list(ending(scene.hosts.said, scene.clock.now))) == 1
    with structlog.testing.capture_logs() as logs:
        scene.go_on(3 * TURN_SECONDS)
        scene.clock.sleep(WARN_SECONDS)
        scene.arbiter.turn()
    told = [one["what"] for one in logs if one["event"] == "a certificate expires soon"]
    assert [one.partition(":")[0] for one in told] == [
        "the certificate of n1 expires in 20 days",
        "the certificate of n1 expires in 18 days",
    ]


def test_a_turn_that_fails_is_counted(scene: Scene) -> None:
    scene.arbiter.turn()
    scene.engine.text = b"<cib/>"
    scene.arbiter.turn()
    assert list(scene.arbiter.tally.samples(metrics.TURNS, "result"))[-1].endswith('{result="failed"} 1')


def test_the_controller_beside_the_arbiter_tells_of_the_fleet_and_others_of_none(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = scene.arbiter.state.with_name("status.json")
    monkeypatch.setattr(fleet_figures, "STATUS", file)

    async def told() -> FleetView:
        async with Host().controller() as controller:
            api = Api(controller, lambda: None)
            port = await api.start_tcp("127.0.0.1", 0)
            try:
                status, text = await aside(ask, port, "/v1/fleet")
            finally:
                await api.stop()
        assert status == 200
        return msgspec.json.decode(text, type=FleetView)

    nothing = FleetView(hosts=[], vms=[], notes=[])
    assert run(told()) == nothing
    scene.arbiter.turn()
    found = run(told())
    assert [(one.name, one.need_bytes, one.state) for one in found.hosts] == [
        ("n1", 64 * GIB, "short"),
        ("n2", 0, "ok"),
    ]
    assert [(one.name, one.host) for one in found.vms] == [("web", "n1"), ("db", "n1")]
    file.write_bytes(b'{"hosts": 7}')
    assert run(told()) == nothing


def told_need(scene: Scene) -> str:
    """What Prometheus is told that the VMs of n2 need."""
    name = 'dynmem_fleet_host_need_bytes{host="n2"}'
    (found,) = [one for one in text_of(scene).splitlines() if one.startswith(name)]
    return found.rpartition(" ")[2]


def test_an_engine_that_is_long_at_work_is_told_of_as_it_is(scene: Scene) -> None:
    scene.go_on(TURN_SECONDS)
    scene.engine.rests = False
    scene.engine.places["web"] = "n2"
    scene.hosts.said = {"n1": host(), "n2": host(vm("web", 8 * GIB))}
    scene.go_on(FRESH_SECONDS)
    assert told_need(scene) == str(8 * GIB)
    assert 'dynmem_fleet_vm_need_bytes{vm="web",host="n2"}' in text_of(scene)


def test_while_a_vm_is_on_its_way_what_there_is_is_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def takes_long(_: object, hosts: object, move: object, clock: Clock) -> None:
        for size in (2 * GIB, 3 * GIB):
            scene.hosts.said["n2"] = host(vm("other", size))
            end = scene.clock.now + FRESH_SECONDS / 2
            while scene.clock.now < end:
                clock.sleep(1.0)
            seen.append(told_need(scene))
        scene.hosts.said = {"n1": host(), "n2": host(vm("web", 8 * GIB))}

    monkeypatch.setattr(arbiter, "carry_out", takes_long)
    scene.go_on(SHORT_SECONDS + TURN_SECONDS)
    assert seen == [str(2 * GIB), str(3 * GIB)]
    scene.arbiter.turn()
    assert told_need(scene) == str(8 * GIB)
