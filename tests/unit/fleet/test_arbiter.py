"""The arbiter publishes now and then, relieves who is short for long, and goes on whatever happens."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog

from host_controller.fleet import arbiter
from host_controller.fleet.arbiter import PUBLISH_SECONDS, TURN_SECONDS, Arbiter
from host_controller.fleet.bookings import keep_bookings, read_bookings
from host_controller.fleet.clearing import CLEAR_SECONDS
from host_controller.fleet.clock import Clock
from host_controller.fleet.core.booking import Booking, wanted_mib
from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import HostFigures
from host_controller.fleet.core.relief import REST_SECONDS, SHORT_SECONDS, Move
from host_controller.fleet.errors import EngineError
from host_controller.fleet.pacemaker.cib import Cib, failed_moves, read_cib
from host_controller.fleet.pacemaker.pins import marks, pinned, pins, unpinned
from host_controller.fleet.pacemaker.simulation import Simulation
from host_controller.records import fleet_figures
from host_controller.units import GIB
from tests.unit.fleet.cells import host, vm
from tests.unit.fleet.cluster import FakeEngine, cib_text, failed_move
from tests.unit.fleet.test_moving import Destinations, Time

FULL = host(vm("web", 8 * GIB), vm("db", 56 * GIB))


@dataclass
class Fleet(Destinations):
    said: dict[str, HostFigures] = field(default_factory=dict)

    def figures(self, hosts: Iterable[str]) -> tuple[dict[str, HostFigures], dict[str, str]]:
        return self.said, {one: "refused" for one in hosts if one not in self.said}


@dataclass
class Scene:
    """An arbiter of two hosts, and the clock by which it works."""

    arbiter: Arbiter
    engine: FakeEngine
    hosts: Fleet
    clock: Time

    def go_on(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.arbiter.turn()
            self.clock.sleep(TURN_SECONDS)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    engine = FakeEngine(cib_text({"web": 1, "db": 1}, {"n1": 1, "n2": 1}), {"web": "n1", "db": "n1"})

    def would(cib: Cib) -> tuple[Action, ...]:
        moves = pins(cib) and engine.places["web"] == "n1"
        return (Action("migrate", "web", "n1", "n2", "migrate"),) if moves else ()

    engine.would = would
    clock = Time(1000.0)
    hosts = Fleet(said={"n1": FULL, "n2": host()})
    file = tmp_path / "fleet/bookings.json"
    arbiter = Arbiter(engine, hosts, file, Clock(clock, clock, clock.sleep))  # type: ignore[arg-type]
    return Scene(arbiter, engine, hosts, clock)


def test_figures_are_published_at_most_every_thirty_seconds(scene: Scene) -> None:
    scene.arbiter.turn()
    assert len(scene.engine.commits) == 1
    scene.hosts.said = {"n1": host(vm("web", 20 * GIB), vm("db", 40 * GIB)), "n2": host()}
    scene.clock.sleep(PUBLISH_SECONDS - 1)
    scene.arbiter.turn()
    assert len(scene.engine.commits) == 1
    scene.clock.sleep(1)
    scene.arbiter.turn()
    assert len(scene.engine.commits) == 2


def test_two_arbiters_do_not_publish_in_turns_and_it_is_said_once(scene: Scene) -> None:
    """As where somebody runs one beside the cluster's: each looks at other moments and books the most."""
    clock = scene.clock
    file = scene.arbiter.state.with_name("other.json")
    other = Arbiter(scene.engine, scene.hosts, file, Clock(clock, clock, clock.sleep))  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as logs:
        for _ in range(20):
            scene.hosts.said = {"n1": host(vm("web", 9 * GIB), vm("db", 8 * GIB)), "n2": host()}
            other.turn()
            scene.hosts.said = {"n1": host(vm("web", 8 * GIB), vm("db", 9 * GIB)), "n2": host()}
            scene.go_on(PUBLISH_SECONDS)
    assert len(scene.engine.commits) <= 3
    assert len([one for one in logs if "another arbiter" in one["event"]]) <= 2, "by each of them"
    assert scene.arbiter.bookings["web"].size_mib == other.bookings["web"].size_mib


def test_what_a_held_back_publication_would_book_is_nobody_elses_word(scene: Scene) -> None:
    scene.arbiter.turn()
    scene.engine.would = lambda cib: (
        (Action("stop", "db", "n1", text="stop"),) * (cib.text != scene.engine.text)
    )
    scene.hosts.said = {"n1": host(vm("web", 20 * GIB), vm("db", 20 * GIB)), "n2": host()}
    with structlog.testing.capture_logs() as logs:
        scene.go_on(3 * PUBLISH_SECONDS)
    assert not [one for one in logs if "another arbiter" in one["event"]]
    assert scene.arbiter.bookings["web"].size_mib == wanted_mib(20 * GIB)


def test_without_quorum_what_there_is_is_told_and_nothing_is_done(scene: Scene) -> None:
    whole = scene.engine.text
    scene.engine.text = pinned(read_cib(whole), "db", "n1").replace(b"<cib ", b'<cib have-quorum="0" ')
    before = scene.engine.text
    with structlog.testing.capture_logs() as logs:
        scene.arbiter.start()
        scene.go_on(SHORT_SECONDS + 2 * TURN_SECONDS)
        assert (scene.engine.text, scene.hosts.asked) == (before, 0)
        scene.engine.text = whole
        scene.go_on(TURN_SECONDS)
    assert len(scene.engine.commits) == 1
    assert [one["event"] for one in logs if "quorum" in one["event"]] == [
        "without quorum nothing is published, and nothing moved",
        "there is quorum again",
    ]
    assert scene.arbiter.state.with_name(fleet_figures.STATUS.name).exists()


def test_a_host_that_stays_short_is_relieved_once_and_the_vm_rests(scene: Scene) -> None:
    scene.go_on(SHORT_SECONDS - TURN_SECONDS)
    assert scene.engine.places["web"] == "n1"
    scene.go_on(3 * TURN_SECONDS)
    assert scene.engine.places["web"] == "n2"
    assert pins(read_cib(scene.engine.text)) == ()
    assert scene.hosts.held == {}
    scene.engine.places["web"] = "n1"
    scene.go_on(REST_SECONDS - 2 * TURN_SECONDS)
    assert scene.engine.places["web"] == "n1"


def test_a_destination_that_refuses_is_not_asked_at_each_turn(scene: Scene) -> None:
    scene.hosts.refusing = {"n2"}
    scene.go_on(SHORT_SECONDS + 10 * TURN_SECONDS)
    assert scene.engine.places["web"] == "n1"
    assert scene.hosts.asked <= 2  # each VM once, then it rests


def test_no_host_is_asked_for_a_vm_that_the_engine_leaves_alone(scene: Scene) -> None:
    status = b"<status>" + failed_move("web", "n1").encode() + b"</status>"
    scene.engine.text = scene.engine.text.replace(b"<status></status>", status)
    scene.engine.would = lambda _: ()
    scene.go_on(SHORT_SECONDS + 2 * TURN_SECONDS)
    assert scene.hosts.asked == 0


def test_another_way_is_taken_in_the_same_turn_when_a_destination_refuses(scene: Scene) -> None:
    scene.hosts.refusing = {"n2"}
    text = scene.engine.text.decode().replace('<node id="2"', '<node id="3" uname="n3"/><node id="2"')
    scene.engine.text = text.encode()
    scene.hosts.said["n3"] = host(vm("other", 10 * GIB))

    def would(cib: Cib) -> tuple[Action, ...]:
        moves = pins(cib) and scene.engine.places["web"] == "n1"
        return (Action("migrate", "web", "n1", "n3", "migrate"),) if moves else ()

    scene.engine.would = would
    scene.go_on(SHORT_SECONDS - TURN_SECONDS)
    assert scene.engine.places["web"] == "n1"
    scene.go_on(2 * TURN_SECONDS)
    assert scene.engine.places["web"] == "n3"


def test_a_host_that_has_just_come_to_have_room_is_used_as_soon_as_that_is_published(scene: Scene) -> None:
    """Until then the engine would make room there by moving others, or do nothing."""
    scene.hosts.said["n2"] = host(admits_bytes=0)

    def would(cib: Cib) -> tuple[Action, ...]:
        sizes = {one.name: one.size_mib or 0 for one in cib.vms}
        fits = sizes["web"] <= (cib.nodes["n2"] or 0)
        moves = pins(cib) and scene.engine.places["web"] == "n1" and fits
        return (Action("migrate", "web", "n1", "n2", "migrate"),) if moves else ()

    scene.engine.would = would
    scene.go_on(SHORT_SECONDS + TURN_SECONDS)
    since = scene.arbiter.published_at
    while scene.arbiter.published_at == since:
        scene.go_on(TURN_SECONDS)
    scene.hosts.said["n2"] = host()
    scene.go_on(PUBLISH_SECONDS + 2 * TURN_SECONDS)
    assert scene.engine.places["web"] == "n2"


def test_a_vm_whose_move_was_not_begun_does_not_rest(scene: Scene) -> None:
    scene.go_on(SHORT_SECONDS - TURN_SECONDS)
    scene.engine.rests = False
    scene.go_on(3 * TURN_SECONDS)
    assert scene.engine.places["web"] == "n1"
    scene.engine.rests = True
    scene.go_on(2 * TURN_SECONDS)
    assert scene.engine.places["web"] == "n2"


def test_a_second_move_is_decided_by_what_is_true_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"web": "n1", "db": "n1", "app": "n3", "mail": "n3"}
    engine = FakeEngine(
        cib_text(dict.fromkeys(places, 1), dict.fromkeys(("n1", "n2", "n3", "n4"), 1)), places
    )
    short = host(vm("app", 8 * GIB), vm("mail", 56 * GIB))
    fleet = Fleet(said={"n1": FULL, "n2": host(), "n3": short, "n4": host()})
    moved: list[str] = []

    def calms_all(_: object, hosts: Fleet, move: Move, __: Clock) -> None:
        moved.append(move.vm)
        hosts.said = {
            "n1": host(vm("db", GIB)),
            "n2": host(vm("web", GIB)),
            "n3": host(vm("app", GIB)),
            "n4": host(),
        }

    monkeypatch.setattr(arbiter, "carry_out", calms_all)
    clock = Time(1000.0)
    one = Arbiter(engine, fleet, tmp_path / "bookings.json", Clock(clock, clock, clock.sleep))  # type: ignore[arg-type]
    Scene(one, engine, fleet, clock).go_on(SHORT_SECONDS + 10 * TURN_SECONDS)
    assert len(moved) == 1


def test_without_a_way_out_there_is_one_alert_and_nothing_moves(scene: Scene) -> None:
    scene.hosts.said["n2"] = host(vm("other", 60 * GIB))
    with structlog.testing.capture_logs() as logs:
        scene.go_on(SHORT_SECONDS + 10 * TURN_SECONDS)
    alerts = [one for one in logs if one["event"] == "a host is short, and no move helps"]
    assert [one["host"] for one in alerts] == ["n1"]
    assert scene.engine.places["web"] == "n1"


def test_a_host_is_told_of_when_it_falls_silent_and_when_it_speaks_again(scene: Scene) -> None:
    said = scene.hosts.said.pop("n2")
    with structlog.testing.capture_logs() as logs:
        scene.go_on(5 * TURN_SECONDS)
        scene.hosts.said["n2"] = said
        scene.go_on(2 * TURN_SECONDS)
    told = [one["event"] for one in logs if one.get("host") == "n2"]
    assert told == ["a host is silent: it offers nothing", "a host is believed again"]


def test_what_is_not_believed_is_told_once(scene: Scene) -> None:
    scene.engine.text = cib_text({"web": 1}, {"n1": 1}, '<primitive type="VirtualDomain" id="bare"/>')
    with structlog.testing.capture_logs() as logs:
        scene.go_on(4 * PUBLISH_SECONDS)
    assert len([one for one in logs if "bare has no utilization" in str(one.get("what"))]) == 1


def test_an_engine_that_cannot_be_asked_costs_a_turn(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> Cib:
        raise EngineError("no cluster")

    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "query", fails)
        scene.arbiter.turn()
    scene.arbiter.turn()
    assert len(scene.engine.commits) == 1


@pytest.mark.parametrize("quorum", [b"1", b"0"])
def test_an_arbiter_that_has_not_seen_the_cluster_whole_yet_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, quorum: bytes
) -> None:
    """It comes up where the engine is at work, and whose scheduler does not answer at once."""

    def fails(*_: object) -> Simulation:
        raise EngineError("no answer")

    whole = scene.engine.text
    scene.engine.rests = False
    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "simulate", fails)
        scene.engine.text = whole.replace(b"<cib ", b'<cib have-quorum="' + quorum + b'" ')
        scene.arbiter.turn()
        scene.engine.text = whole
        scene.go_on(3 * TURN_SECONDS)
    scene.go_on(TURN_SECONDS)
    assert scene.arbiter.state.with_name(fleet_figures.STATUS.name).exists()
    scene.engine.rests = True
    scene.go_on(TURN_SECONDS)
    assert len(scene.engine.commits) == 1


def test_what_is_booked_outlives_the_arbiter_and_its_pins_do_not(scene: Scene) -> None:
    scene.arbiter.turn()
    booked = dict(scene.arbiter.bookings)
    scene.engine.text = pinned(read_cib(scene.engine.text), "web", "n2")
    after = Arbiter(scene.engine, scene.hosts, scene.arbiter.state)  # type: ignore[arg-type]
    after.start()
    assert after.bookings == booked
    assert pins(read_cib(scene.engine.text)) == ()


def test_what_was_booked_when_an_arbiter_ran_here_last_is_not_booked_anew(scene: Scene) -> None:
    """Another one has published since: what the engine has is younger than a file of this host."""
    scene.arbiter.turn()
    before = {one.name: one.size_mib for one in read_cib(scene.engine.text).vms}
    old = Booking(60_000, 5.0, 50_000, ((1, 60_000), (2, 40_000)))
    keep_bookings({**scene.arbiter.bookings, "web": old, "gone": old}, scene.arbiter.state)
    after = Arbiter(scene.engine, scene.hosts, scene.arbiter.state, scene.arbiter.clock)  # type: ignore[arg-type]
    after.start()
    assert after.bookings["gone"] == old
    after.turn()
    assert {one.name: one.size_mib for one in read_cib(scene.engine.text).vms} == before
    assert after.bookings["web"].hours[:1] == ((1, 60_000),)


def test_a_vm_goes_on_resting_when_its_arbiter_has_died_or_moved_to_another_host(
    scene: Scene, tmp_path: Path
) -> None:
    scene.go_on(SHORT_SECONDS + 2 * TURN_SECONDS)
    assert scene.engine.places["web"] == "n2"
    moved = scene.clock.now
    scene.engine.places["web"] = "n1"
    engine, hosts = scene.engine, scene.hosts
    scene.arbiter = Arbiter(
        engine, hosts, tmp_path / "other", Clock(scene.clock, scene.clock, scene.clock.sleep)
    )  # type: ignore[arg-type]
    scene.go_on(moved + REST_SECONDS - 3 * TURN_SECONDS - scene.clock.now)
    assert scene.engine.places["web"] == "n1"
    scene.go_on(4 * TURN_SECONDS)
    assert scene.engine.places["web"] == "n2"


@pytest.mark.parametrize(
    ("ahead", "rests"), [(1.0, True), (REST_SECONDS - 1, True), (REST_SECONDS, False), (1e9, False)]
)
def test_a_wrong_clock_of_an_arbiter_before_lets_a_vm_rest_for_no_more_than_twice_as_long(
    scene: Scene, ahead: float, rests: bool
) -> None:
    scene.engine.text = unpinned(scene.engine.query(), ["web"], scene.clock.now + ahead, REST_SECONDS)
    found = scene.arbiter._rest(scene.engine.query())
    assert found == ({"web": scene.clock.now} if rests else {})


def test_a_vm_that_an_arbiter_before_has_sent_on_its_way_arrives_before_its_pin_goes(scene: Scene) -> None:
    scene.engine.text = pinned(read_cib(scene.engine.text), "web", "n2")
    scene.engine.rests = False
    scene.arbiter.start()
    scene.arbiter.turn()
    assert pins(scene.engine.query()) == ("web",)
    scene.engine.rests = True
    scene.arbiter.turn()
    assert pins(scene.engine.query()) == ()


def test_a_failed_move_that_could_not_be_cleaned_up_at_once_is_later(scene: Scene) -> None:
    cleans = scene.engine.clean_up

    def fails(vm: str, node: str, operation: str = "start") -> None:
        raise EngineError("no answer")

    def refused(actions: tuple[Action, ...]) -> None:
        if actions:
            status = f"<status>{failed_move('web', 'n1')}</status>".encode()
            scene.engine.text = scene.engine.text.replace(b"<status />", status)

    scene.engine.obey = refused  # type: ignore[method-assign]
    scene.engine.clean_up = fails  # type: ignore[method-assign]
    scene.go_on(SHORT_SECONDS - TURN_SECONDS)
    scene.go_on(2 * TURN_SECONDS)
    assert failed_moves(scene.engine.query()) == {"web": "n1"}
    scene.engine.clean_up = cleans  # type: ignore[method-assign]
    scene.go_on(CLEAR_SECONDS)
    assert scene.engine.cleaned == [("web", "n1")]
    assert failed_moves(scene.engine.query()) == {}


def test_a_failed_move_that_cannot_be_cleaned_up_is_told_once_and_the_arbiter_goes_on(scene: Scene) -> None:
    scene.engine.text = scene.engine.text.replace(
        b"<status></status>", f"<status>{failed_move('web', 'n1')}</status>".encode()
    )
    scene.engine.text = unpinned(scene.engine.query(), ["web"], 0.0, REST_SECONDS)
    restarts = (Action("other", "web", "n1", text="restart"),)
    scene.engine.would = lambda cib: () if failed_moves(cib) else restarts
    scene.hosts.said = {"n1": host(vm("web", 8 * GIB)), "n2": host()}
    with structlog.testing.capture_logs() as logs:
        scene.go_on(3 * CLEAR_SECONDS)
    assert [one["event"] for one in logs if one["log_level"] == "error"] == [
        "what was left of moves is not cleared"
    ]
    assert scene.engine.cleaned == []
    assert marks(scene.engine.query()) == {"web": "n1"}
    assert len(scene.engine.commits) == 1


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b'{"web": 1}', b'{"web": {"size_mib": "x"}}', b"\xff"),
        b'{"web": {"size_mib": 7, "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"web": {"size_mib": 7, "hours": [[3, 99999999999999]]}}',
        b'{"web": {"size_mib": -7}}',
    ],
    ids=range(8),
)
def test_a_damaged_file_of_bookings_is_none(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "bookings.json"
    file.write_bytes(text)
    assert read_bookings(file) == {}
    keep_bookings({"web": Booking(7, 1.0, 5, ((3, 7),))}, file)
    assert read_bookings(file) == {"web": Booking(7, 1.0, 5, ((3, 7),))}
    assert file.stat().st_mode & 0o077 == 0


def test_what_stays_is_told_once_and_that_it_is_over(scene: Scene) -> None:
    """A disk that is full, an engine that cannot be asked, somebody else's constraint: each for an hour."""
    folder = scene.arbiter.state.parent
    folder.touch()
    stop = Action("stop", "db", "n1", text="stop")
    query, nodes = scene.engine.query, scene.engine.query().nodes

    def fails() -> Cib:
        raise EngineError("cibadmin failed with 102: no connection")

    with structlog.testing.capture_logs() as logs:
        scene.engine.would = lambda cib: (stop,) if cib.nodes != nodes else ()
        scene.go_on(1800)
        scene.engine.query = fails  # type: ignore[method-assign]
        scene.go_on(1800)
        scene.engine.query, scene.engine.would = query, lambda cib: ()  # type: ignore[method-assign]
        folder.unlink()
        scene.go_on(100)
    told = Counter(one["event"] for one in logs)
    for event, times in {
        "a file of the fleet cannot be kept": 3,
        "a file of the fleet is kept again": 3,
        "held back: the engine would stop db": 1,
        "turns are left out": 1,
        "turns go on": 1,
    }.items():
        assert told[event] == times, event
