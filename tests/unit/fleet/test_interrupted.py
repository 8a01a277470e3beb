"""Whoever moves VMs may be killed after any word with engine or host: the next one finishes what is left.

Each story is told once for every step at which it can end, until it comes to its own end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from host_controller.fleet import progress
from host_controller.fleet.arbiter import TURN_SECONDS, Arbiter
from host_controller.fleet.clearing import CLEAR_SECONDS
from host_controller.fleet.clock import Clock
from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import Cell
from host_controller.fleet.core.relief import REST_SECONDS, Move
from host_controller.fleet.draining import drain
from host_controller.fleet.errors import EngineError, FleetError
from host_controller.fleet.moving import carry_out
from host_controller.fleet.pacemaker.cib import Cib, failed_moves, read_cib
from host_controller.fleet.pacemaker.pins import (
    active,
    avoided,
    drained,
    marks,
    moved_at,
    pinned,
    pins,
    unmarked,
    unpinned,
)
from host_controller.fleet.pacemaker.tools import CLEAN_SECONDS
from host_controller.fleet.undraining import undrain
from host_controller.units import GIB
from tests.unit.fleet.cells import cell, host, vm
from tests.unit.fleet.cluster import FakeEngine, cib_text, failed_move
from tests.unit.fleet.test_arbiter import Fleet
from tests.unit.fleet.test_moving import Time

WEB, DB = vm("web", 8 * GIB), vm("db", 4 * GIB)
FIGURES = {"n1": host(WEB, DB), "n2": host(), "n3": host()}
MOVE = Move("web", "n1", "n2", 8 * GIB, "short")
LOOKS = 3
"""So often the engine is found at work, once it has begun something."""


class Engine(FakeEngine):
    """Takes its time. A VM whose migration has failed is left alone until that is forgotten."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__(cib_text({"web": 1, "db": 1}, dict.fromkeys(FIGURES, 1)), {"web": "n1", "db": "n1"})
        self.refuses, self.would = refuses, self.decides
        self.under_way: tuple[Action, ...] = ()
        self.looks = 0
        self.home: dict[str, str] = {}
        """Of VMs that prefer a host: they go there whenever it takes any."""

    def decides(self, cib: Cib) -> tuple[Action, ...]:
        found = cib.root.iterfind("configuration/constraints/rsc_location[@score='INFINITY']")
        wanted = {one.get("rsc", ""): one.get("node", "") for one in found}
        if drained(cib, "n1"):
            wanted |= {name: "n2" for name, node in self.places.items() if node == "n1"}
        else:
            wanted = self.home | wanted
        return tuple(
            Action("migrate", name, self.places[name], there, "migrate")
            for name, there in wanted.items()
            if self.places[name] != there and name not in failed_moves(cib)
        )

    def idle(self) -> bool:
        if self.under_way:
            self.looks -= 1
            if self.looks <= 0:
                self._end()
            return False
        return True

    def obey(self, actions: tuple[Action, ...]) -> None:
        assert set(self.under_way) <= set(actions), "a VM on its way is stopped on both hosts"
        self.under_way, self.looks = actions, LOOKS

    def clean_up(self, vm: str, node: str, operation: str = "start") -> None:
        super().clean_up(vm, node, operation)
        self.obey(self.would(self.query()))

    def _end(self) -> None:
        ended, self.under_way = self.under_way, ()
        if not self.refuses:
            super().obey(ended)
            return
        root = self.query().root
        status = root.find("status")
        assert status is not None
        for one in ended:
            status.append(ElementTree.fromstring(failed_move(one.vm, str(one.source))))
        self.text = ElementTree.tostring(root)


class Killed(BaseException):
    """Nothing is said any more, also by what would be done at the end."""


@dataclass
class Life:
    words: int

    def of(self, real: Any) -> Any:
        """The real one, as long as this life lasts."""
        life = self

        class Spoken:
            def __getattr__(self, name: str) -> Callable[..., Any]:
                def say(*given: Any) -> Any:
                    if not life.words:
                        raise Killed
                    life.words -= 1
                    return getattr(real, name)(*given)

                return say

        return Spoken()


@dataclass
class Scene:
    engine: Engine
    hosts: Fleet
    time: Time
    state: Path

    def relieve(self, life: Life) -> None:
        engine, hosts = life.of(self.engine), life.of(self.hosts)
        carry_out(engine, hosts, MOVE, self.time.clock)

    def drain(self, life: Life) -> None:
        engine, hosts = life.of(self.engine), life.of(self.hosts)
        drain(engine, hosts, self.cell, "n1", lambda _: None, self.time.clock)

    def undrain(self, life: Life) -> None:
        engine, hosts = life.of(self.engine), life.of(self.hosts)
        undrain(engine, hosts, self.cell, "n1", clock=self.time.clock)

    def cell(self) -> Cell:
        """As the hosts tell of it."""
        return cell(
            {
                name: host(*(one for one in (WEB, DB) if self.engine.places[one.name] == name))
                for name in FIGURES
            }
        )

    def arbiter(self) -> Arbiter:
        """A new one, that has looked around."""
        clock = self.time
        one = Arbiter(self.engine, self.hosts, self.state, Clock(clock, clock, clock.sleep))  # type: ignore[arg-type]
        one.start()
        for _ in range(2 * LOOKS):
            one.turn()
            clock.sleep(TURN_SECONDS)
        return one

    def assert_nothing_is_left(self) -> None:
        cib = self.engine.query()
        assert (pins(cib), marks(cib), failed_moves(cib)) == ((), {}, {})
        assert self.engine.places.keys() == {"web", "db"}


Story = Callable[[Scene, Life], None]
WHOLE = 10_000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain that stalls says the same at every look: a few of them are enough."""
    monkeypatch.setattr(progress, "STALLED_SECONDS", 3.0)


def made(directory: Path, *, refuses: bool) -> Iterator[Scene]:
    """As many scenes as are asked for."""
    for _ in count():
        yield Scene(Engine(refuses=refuses), Fleet(said=dict(FIGURES)), Time(), directory / "bookings.json")


@pytest.fixture(params=[False, True], ids=["it goes well", "migrations fail"])
def scenes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    return made(tmp_path, refuses=request.param)


def each_end(scenes: Iterator[Scene], story: Story, before: Story = lambda *_: None) -> Iterator[Scene]:
    """The scene after each step of the story at which it can end. Promises of the dead expire."""
    for words in count():
        scene, life = next(scenes), Life(words)
        tell(before, scene, Life(WHOLE))
        ended = tell(story, scene, life)
        scene.hosts.held.clear()
        yield scene
        if ended:
            assert words > 2 * LOOKS
            return


def tell(story: Story, scene: Scene, life: Life) -> bool:
    """Whether it came to its own end, good or bad."""
    try:
        story(scene, life)
    except Killed:
        return False
    except FleetError:
        return True
    return True


def test_of_a_relief_nothing_is_left_once_there_is_an_arbiter_again(scenes: Iterator[Scene]) -> None:
    for scene in each_end(scenes, Scene.relieve):
        scene.arbiter()
        scene.assert_nothing_is_left()


def test_a_drain_can_be_ended_wherever_it_was_cut_off(scenes: Iterator[Scene]) -> None:
    for scene in each_end(scenes, Scene.drain):
        scene.undrain(Life(WHOLE))
        scene.assert_nothing_is_left()
        assert not drained(scene.engine.query(), "n1")
        assert not avoided(scene.engine.query(), "n1")


def test_a_drain_that_is_said_again_goes_on_wherever_it_was_cut_off(scenes: Iterator[Scene]) -> None:
    for scene in each_end(scenes, Scene.drain):
        scene.engine.refuses = False
        while scene.engine.under_way:
            scene.engine.idle()
        scene.drain(Life(WHOLE))
        scene.assert_nothing_is_left()
        assert scene.engine.places == {"web": "n2", "db": "n2"}


@pytest.mark.parametrize("story", [Scene.undrain, Scene.drain], ids=["undrain", "drain said again"])
def test_what_comes_after_a_drain_that_failed_is_finished_by_others(tmp_path: Path, story: Story) -> None:
    for scene in each_end(made(tmp_path, refuses=True), story, Scene.drain):
        scene.arbiter()
        if drained(scene.engine.query(), "n1"):
            scene.undrain(Life(WHOLE))
        scene.assert_nothing_is_left()


def test_an_undrain_that_was_cut_off_can_be_said_again_without_an_arbiter(scenes: Iterator[Scene]) -> None:
    for scene in each_end(scenes, Scene.undrain, Scene.drain):
        scene.undrain(Life(WHOLE))
        scene.assert_nothing_is_left()


def test_an_undrain_that_sends_a_vm_back_can_be_said_again_wherever_it_was_cut_off(tmp_path: Path) -> None:
    def drained_with_a_preference(scene: Scene, life: Life) -> None:
        scene.engine.home = {"web": "n1"}
        scene.drain(life)
        assert scene.engine.places == {"web": "n2", "db": "n2"}

    for scene in each_end(made(tmp_path, refuses=False), Scene.undrain, drained_with_a_preference):
        scene.undrain(Life(WHOLE))
        while scene.engine.under_way:
            scene.engine.idle()
        assert scene.engine.places == {"web": "n1", "db": "n2"}
        assert scene.hosts.held == {}
        scene.assert_nothing_is_left()


@pytest.mark.parametrize("after", [Scene.drain, Scene.undrain], ids=["drain", "undrain"])
def test_a_relief_that_was_cut_off_is_in_the_way_of_nobody_where_there_is_no_arbiter(
    scenes: Iterator[Scene], after: Story
) -> None:
    for scene in each_end(scenes, Scene.relieve):
        while scene.engine.under_way:
            scene.engine.idle()
        scene.engine.refuses = False
        after(scene, Life(WHOLE))
        assert (pins(scene.engine.query()), failed_moves(scene.engine.query())) == ((), {})
        if after is Scene.drain:
            assert scene.engine.places == {"web": "n2", "db": "n2"}


def test_a_vm_is_marked_by_the_change_that_lets_it_go_and_by_no_constraint() -> None:
    engine = Engine(refuses=True)
    engine.text = pinned(engine.query(), "web", "n2")
    engine.obey(engine.would(engine.query()))
    while engine.under_way:
        engine.idle()
    for _ in range(2):
        engine.text = unpinned(engine.query(), ["web", "db"], 7.5, REST_SECONDS)
        root = engine.query().root
        assert list(root.iterfind("configuration/constraints/*")) == [], "any would permit the VM that node"
        ids = [one.get("id") for one in root.iterfind("configuration//*[@id]")]
        assert len(set(ids)) == len(ids)
        assert marks(engine.query()) == {"web": "n1"}
    before = engine.text
    engine.text = unmarked(engine.query(), ["web"])
    assert marks(engine.query()) == {}
    assert moved_at(engine.query()) == moved_at(read_cib(before)) == {"web": 7.0, "db": 7.0}


def test_a_host_whose_engine_hangs_does_not_keep_the_arbiter_from_its_turns(tmp_path: Path) -> None:
    scene = next(made(tmp_path, refuses=True))
    tell(Scene.drain, scene, Life(WHOLE))
    scene.engine.text = active(scene.engine.query(), "n1")
    assert len(marks(scene.engine.query())) == 2

    def hangs(*_: str) -> None:
        scene.time.sleep(CLEAN_SECONDS)
        raise EngineError("no answer")

    scene.engine.clean_up = hangs  # type: ignore[method-assign]
    arbiter = scene.arbiter()
    scene.time.sleep(CLEAR_SECONDS)
    for _ in range(2):
        began = scene.time()
        arbiter.turn()
        assert scene.time() - began <= CLEAN_SECONDS, "nothing is published meanwhile"
    assert set(arbiter.clearing.unclean) == {"web", "db"}


def test_one_vm_that_cannot_be_looked_after_keeps_no_other_from_it_and_is_tried_again(tmp_path: Path) -> None:
    scene = next(made(tmp_path, refuses=True))
    tell(Scene.drain, scene, Life(WHOLE))
    cleans = scene.engine.clean_up

    def fails_for_db(vm: str, node: str, operation: str = "start") -> None:
        if vm == "db":
            raise EngineError("no answer")
        cleans(vm, node, operation)

    scene.engine.clean_up = fails_for_db  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="no answer"):
        scene.undrain(Life(WHOLE))
    assert marks(scene.engine.query()) == {"db": "n1"}
    assert scene.engine.cleaned == [("web", "n1")]
    arbiter = scene.arbiter()
    assert arbiter.clearing.unclean == {"db": "no answer"}
    scene.engine.clean_up = cleans  # type: ignore[method-assign]
    scene.time.sleep(CLEAR_SECONDS)
    arbiter.turn()
    scene.assert_nothing_is_left()
