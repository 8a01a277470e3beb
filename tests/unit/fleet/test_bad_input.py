"""Whatever is wrong with a host or its cluster is told of, counted and shown; nothing is moved on doubt."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from host_controller.fleet.arbiter import PUBLISH_SECONDS, TURN_SECONDS, Arbiter
from host_controller.fleet.clock import Clock
from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import HostFigures
from host_controller.fleet.core.relief import SHORT_SECONDS
from host_controller.fleet.errors import HostSilent
from host_controller.fleet.pacemaker.cib import UNFENCED, read_cib
from host_controller.fleet.pacemaker.pins import pins
from host_controller.fleet.reading import CLOCK_SECONDS, read_figures
from host_controller.units import GIB, TIB
from tests.unit.fleet.cells import CAPACITY, host, vm
from tests.unit.fleet.cluster import FakeEngine, cib_text
from tests.unit.fleet.test_moving import Destinations, Time

NOW = 1_700_000_000.0
SHORT = host(vm("web", 8 * GIB), vm("db", 56 * GIB))
EMPTY = {
    "at": NOW,
    "capacity_bytes": CAPACITY,
    "reserved_bytes": 0,
    "admits_bytes": CAPACITY,
    "overdraft": False,
    "emergency": None,
    "vms": [],
}
LARGE = {
    "uuid": "u",
    "name": "one",
    "need_bytes": 300 * TIB,
    "minimum_bytes": 0,
    "charge_bytes": 0,
    "beside_bytes": 0,
    "arrival_bytes": 0,
    "settled": True,
}


@dataclass
class Words(Destinations):
    """n1 is short and believed. n2 says something, which is read as it is read of a real host."""

    said: bytes = b""

    def figures(self, hosts: Iterable[str]) -> tuple[dict[str, HostFigures], dict[str, str]]:
        try:
            return {"n1": SHORT, "n2": read_figures("n2", self.said, NOW)}, {}
        except HostSilent as error:
            return {"n1": SHORT}, {"n2": error.message}


@dataclass
class Scene:
    engine: FakeEngine
    hosts: Words
    arbiter: Arbiter
    clock: Time
    told: list[dict[str, Any]] = field(default_factory=list)

    def go_on(self, seconds: float) -> None:
        with structlog.testing.capture_logs() as logs:
            end = self.clock.now + seconds
            while self.clock.now < end:
                self.arbiter.turn()
                self.clock.sleep(TURN_SECONDS)
        self.told += logs

    def text(self) -> str:
        return self.arbiter.state.with_name("metrics.prom").read_text()

    def nothing_has_moved(self) -> bool:
        still = {"web": "n1", "db": "n1"}
        return self.engine.places == still and not pins(self.engine.query()) and not self.hosts.asked


def scene_of(tmp_path: Path, **change: object) -> Scene:
    engine = FakeEngine(cib_text({"web": 1, "db": 1}, {"n1": 1, "n2": 1}), {"web": "n1", "db": "n1"})
    # It would do as a pin says, so that it is not the engine that keeps anybody.
    engine.would = lambda cib: tuple(
        Action("migrate", name, engine.places[name], "n2", "migrate")
        for name in pins(cib)
        if engine.places[name] != "n2"
    )
    hosts = Words(said=json.dumps(EMPTY | change).encode())
    clock = Time(NOW)
    one = Arbiter(engine, hosts, tmp_path / "bookings.json", Clock(clock, clock, clock.sleep))  # type: ignore[arg-type]
    return Scene(engine, hosts, one, clock)


def test_that_this_host_would_be_relieved_if_the_other_were_believed(tmp_path: Path) -> None:
    scene = scene_of(tmp_path)
    scene.go_on(SHORT_SECONDS + TURN_SECONDS)
    assert scene.hosts.asked > 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"at": NOW + 3600}, "its clock is 3600 s from ours"),
        ({"at": NOW - CLOCK_SECONDS - 1}, "its clock is -61 s from ours"),
        ({"at": 1e300}, "its clock is"),
        ({"capacity_bytes": -1}, "its figures cannot be"),
        ({"capacity_bytes": 1 << 80}, "its figures cannot be"),
        ({"admits_bytes": CAPACITY + 1}, "more than its capacity"),
        ({"capacity_bytes": 2000 * TIB}, "its figures cannot be"),
        ({"vms": [LARGE, {**LARGE, "name": "two"}]}, "its VMs need more than any host has"),
        ({"vms": [{"name": "web"}]}, "its figures cannot be"),
        ({"vms": None}, "its figures cannot be"),
        ({"overdraft": "no"}, "its figures cannot be"),
        ({"emergency": "half a letter: \ud800"}, "its figures cannot be"),
    ],
    ids=[
        *(
            "ahead",
            "stale",
            "end of time",
            "negative",
            "endless",
            "absurd",
            "huge",
            "greedy",
            "older",
            "newer",
            "type",
        ),
        "no text",
    ],
)
def test_a_host_that_is_not_believed_is_told_of_counted_and_offered_nothing(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    scene = scene_of(tmp_path, **change)
    scene.go_on(SHORT_SECONDS + 10 * TURN_SECONDS)
    (silent,) = (one for one in scene.told if one["event"].startswith("a host is silent"))
    assert silent["host"] == "n2"
    assert reason in silent["why"]
    assert 'dynmem_fleet_host_up{host="n2"} 0' in scene.text()
    assert 'dynmem_fleet_silent_total{host="n2"} 40' in scene.text()
    assert scene.engine.query().nodes["n2"] == 0
    assert scene.nothing_has_moved()


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        ('name="stonith-enabled" value="true"', 'name="stonith-enabled" value="false"', UNFENCED),
        ('id="web-s" name="dynmem" value="1"', 'id="web-s" name="dynmem" value="1G"', "which is no size"),
        ('uname="n2"><utilization id="u2"><nvpair id="c2" name="dynmem" value="1"',
         'uname="n2"><utilization id="u2"><nvpair id="c2" name="dynmem" value="-7"', "which is no size"),
    ],
    ids=["no fencing", "a size that is spoilt", "a capacity that is spoilt"],
)  # fmt: skip
def test_what_is_wrong_with_a_cluster_is_told_once_and_counted(
    tmp_path: Path, old: str, new: str, note: str
) -> None:
    scene = scene_of(tmp_path)
    assert scene.engine.text.count(old.encode()) == 1
    scene.engine.text = scene.engine.text.replace(old.encode(), new.encode())
    scene.arbiter.turn()
    assert "dynmem_fleet_notes 1" in scene.text()
    scene = scene_of(tmp_path)
    scene.engine.text = scene.engine.text.replace(old.encode(), new.encode())
    scene.go_on(2 * PUBLISH_SECONDS)
    assert len([one for one in scene.told if note in str(one.get("what"))]) == 1
    cib = read_cib(scene.engine.text)  # what is ours is set right again
    assert {one.size_mib for one in cib.vms} == {9216, 64512}
    assert scene.nothing_has_moved()


def test_a_vm_in_two_cells_is_believed_of_neither_host_alone_and_told_of(tmp_path: Path) -> None:
    twin = {
        "uuid": "u",
        "name": "web",
        "need_bytes": GIB,
        "minimum_bytes": 0,
        "charge_bytes": GIB,
        "beside_bytes": 0,
        "arrival_bytes": GIB,
        "settled": True,
    }
    scene = scene_of(tmp_path, vms=[twin], admits_bytes=0)
    scene.go_on(SHORT_SECONDS + TURN_SECONDS)
    notes = [one["what"] for one in scene.told if one["event"] == "not believed"]
    assert notes == ["web: n2 runs it and the engine has it on n1"]
    assert "dynmem_fleet_notes 1" in scene.text()
    assert 'dynmem_fleet_vm_need_bytes{vm="web",host="n1"} ' + str(8 * GIB) in scene.text()
    assert scene.nothing_has_moved()


def test_a_configuration_that_is_edited_meanwhile_costs_a_turn_and_is_counted(tmp_path: Path) -> None:
    scene = scene_of(tmp_path)

    def meanwhile() -> None:
        scene.engine.text = scene.engine.text.replace(b'epoch="7"', b'epoch="8"')
        scene.engine.meanwhile = lambda: None

    scene.engine.meanwhile = meanwhile
    scene.go_on(2 * TURN_SECONDS)
    assert len(scene.engine.commits) == 1
    assert 'dynmem_fleet_turns_total{result="failed"} 1' in scene.text()
    (left_out,) = (one for one in scene.told if one["event"] == "turns are left out")
    assert "changed meanwhile" in left_out["problem"]
    assert scene.nothing_has_moved()
