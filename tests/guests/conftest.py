"""Real guests for tests: one lab for the whole run, guests by name, and nothing left at the end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from host_controller.verify.observer import Observer, Sight
from host_controller.verify.processes import processes_of
from lab.controller import Controller, Limits, enable
from lab.domain import GuestSpec
from lab.guest import Guest
from lab.image import Image
from lab.lab import Lab
from lab.session import Session

GuestFactory = Callable[[GuestSpec], Guest]


@dataclass
class Rig:
    """A host under test: managed guests, the controller, and the observer that watches both.

    It may give `capacity` MiB.
    """

    lab: Lab
    capacity: int
    session: Session
    observer: Observer
    controller: Controller
    guests: dict[str, Guest] = field(default_factory=dict)

    def define(
        self, name: str, limits: Limits | None = None, *, image: Image | None = None, **spec: Any
    ) -> Guest:
        """A guest that `dynmem enable` has prepared, off. image: another than the lab's own."""
        limits = limits or Limits()
        guest = self.lab.guest(GuestSpec(name, limits.startup, **spec), self.session, image=image)
        self.guests[name] = guest
        enable(guest, limits)
        return guest

    def start(self, *guests: Guest) -> None:
        """Start them, observed from the first moment, and wait until they are managed."""
        for guest in guests:
            guest.start()
            self.observer.start(guest)
        for guest in guests:
            guest.wait_booted()

    def add(self, name: str, limits: Limits | None = None, **spec: Any) -> Guest:
        """A guest that runs and is managed, with its agent."""
        guest = self.define(name, limits, **spec)
        self.start(guest)
        self.controller.wait_managed(guest)
        return guest

    def assert_within(self) -> None:
        """Rule 1, as far as it was seen. Whether that is enough is said of the whole run: see `sights`."""
        self.observer.assert_within(self.capacity << 20)

    def close(self) -> None:
        """End the guests, the controller and the observer."""
        self.controller.stop()
        for guest in self.guests.values():
            guest.remove()
        self.observer.stop()


RigFactory = Callable[..., Rig]


@dataclass
class Hosts:
    """Two hosts with a controller each, and the one guest that is now here, now there."""

    here: Rig
    there: Rig
    guest: Guest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/guests" in item.path.as_posix() and item.get_closest_marker("bootless") is None:
            item.add_marker(pytest.mark.guests)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        print(f"\nlab: {lab.accelerator.name} ({lab.accelerator.reason}), guests run as {lab.account.name}")
        yield lab
    assert processes_of(lab.directory) == []
    assert not lab.directory.exists()


@pytest.fixture(scope="session")
def sights() -> Iterator[list[Sight]]:
    """How well each rig's observer saw. What all of them together saw is enough, or nobody knows."""
    seen: list[Sight] = []
    yield seen
    if seen:
        whole = sum(seen[1:], seen[0])
        print(f"all observers: {whole}")
        whole.demand_clear()


def _make(lab: Lab) -> Iterator[GuestFactory]:
    made: list[Guest] = []

    def make(spec: GuestSpec) -> Guest:
        guest = lab.guest(spec)
        made.append(guest)
        return guest

    yield make
    for guest in made:
        guest.remove()


def _make_rigs(lab: Lab, sights: list[Sight], name: str) -> Iterator[RigFactory]:
    made: list[Rig] = []

    def make(capacity: int, session: Session = lab.session, **settings: Any) -> Rig:
        directory = lab.directory / f"controller-{name}-{len(made)}"
        observer = Observer()
        observer.__enter__()
        rig = Rig(lab, capacity, session, observer, Controller(directory, session.uri, capacity, **settings))
        made.append(rig)
        rig.controller.start()
        return rig

    yield make
    for rig in made:
        rig.close()
        sight = rig.observer.sight()
        print(f"observer: {sight}{'' if sight.clear else ': inconclusive, the machine was busy'}")
        sights.append(sight)


@pytest.fixture
def make_rig(lab: Lab, sights: list[Sight], request: pytest.FixtureRequest) -> Iterator[RigFactory]:
    """Hosts under test that live as long as the test. `capacity` in MiB, settings as of Controller.

    On the lab's own libvirt, or on that of another `session`.
    """
    yield from _make_rigs(lab, sights, request.node.name[:40])


@pytest.fixture(scope="module")
def make_shared_rig(lab: Lab, sights: list[Sight], request: pytest.FixtureRequest) -> Iterator[RigFactory]:
    """Hosts under test that live as long as the module."""
    yield from _make_rigs(lab, sights, request.node.name.replace("/", "-")[:60])


@pytest.fixture
def make_guest(lab: Lab) -> Iterator[GuestFactory]:
    """Defines guests that live as long as the test."""
    yield from _make(lab)


@pytest.fixture(scope="module")
def make_shared_guest(lab: Lab) -> Iterator[GuestFactory]:
    """Defines guests that live as long as the module: for tests that leave a guest as they found it."""
    yield from _make(lab)


@pytest.fixture
def observer() -> Iterator[Observer]:
    """A running observer; `observer.start(guest)` after the guest's start."""
    with Observer() as observer:
        yield observer
