"""A run written down: who is there, what befalls them when; and how to find the shortest that still fails."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from host_controller.core.model import Limits
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.checker import Violation
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, ramp, steady
from host_controller.simulator.world import MakeController, World
from host_controller.units import format_size


@dataclass(frozen=True, slots=True)
class Start:
    """Power on."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Power off."""

    name: str


@dataclass(frozen=True, slots=True)
class Reset:
    """The guest starts again."""

    name: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Somebody stops or continues the vCPUs."""

    name: str
    on: bool


@dataclass(frozen=True, slots=True)
class Move:
    """A job moves or copies it: see `World.move`."""

    name: str
    job: str
    seconds: float
    away_seconds: float | None


@dataclass(frozen=True, slots=True)
class Behave:
    """The guest takes on another behaviour, by its name."""

    name: str
    behaviour: str


@dataclass(frozen=True, slots=True)
class Ambush:
    """The guest takes on another behaviour the moment it is given a command of that kind."""

    name: str
    kind: str
    behaviour: str


@dataclass(frozen=True, slots=True)
class Use:
    """The programs go to another amount of anonymous memory and cache, over some seconds."""

    name: str
    anonymous_bytes: int
    working_set_bytes: int = 0
    over_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SetLimits:
    """The user exchanges the limits."""

    name: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Meddle:
    """Somebody else asks the virtio-mem device for another size; the controller is told some time later."""

    name: str
    requested_bytes: int
    told_seconds: float


@dataclass(frozen=True, slots=True)
class KillController:
    """The controller dies; another is started some seconds later."""

    down_seconds: float


_T = TypeVar("_T")

Action = Start | Stop | Reset | Pause | Move | Behave | Ambush | Use | SetLimits | Meddle | KillController


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is done to the world at a time."""

    at: float
    action: Action


@dataclass(frozen=True, slots=True)
class Scenario:
    """A deterministic run."""

    capacity_bytes: int
    guests: tuple[GuestSpec, ...]
    steps: tuple[Step, ...]
    seconds: float
    seed: int = 0
    resolution: float = 0.01

    def describe(self) -> str:
        """The scenario as lines to read."""
        lines = [f"host: {format_size(self.capacity_bytes)}, {self.seconds:.1f} s, seed {self.seed}"]
        for guest in self.guests:
            limits = guest.limits
            sizes = ", ".join(
                format_size(size)
                for size in (limits.minimum_bytes, limits.startup_bytes, limits.maximum_bytes)
            )
            lines.append(
                f"guest {guest.name}: {sizes}; {guest.growth}, weight {limits.weight}, "
                f"{guest.behaviour.name}{'' if guest.agent else ', no agent'}"
                f"{', pinned' if guest.pinned else ''}"
            )
        lines += [f"{step.at:9.2f} s  {step.action}" for step in self.steps]
        return "\n".join(lines)


def play(
    scenario: Scenario,
    make: MakeController,
    *,
    until_violation: bool = True,
    ignored: frozenset[str] = frozenset(),
) -> World:
    """Run a scenario; by default stop soon after the first violation of a rule that is not ignored."""
    world = World(scenario.capacity_bytes, seed=scenario.seed, resolution=scenario.resolution)
    world.checker.ignored = ignored
    for guest in scenario.guests:
        world.define(guest)
    world.control(make)
    for step in sorted(scenario.steps, key=lambda s: s.at):
        if step.at > scenario.seconds:
            break
        if not _run_to(world, step.at, until_violation):
            return world
        apply(world, step.action)
    _run_to(world, scenario.seconds, until_violation)
    return world


def apply(world: World, action: Action) -> None:
    """Do one action to the world."""
    match action:
        case Start():
            world.start(action.name)
        case Stop():
            world.stop(action.name)
        case Reset():
            world.reset(action.name)
        case Pause():
            vm = world.vm(action.name)
            vm.suspend() if action.on else vm.resume()
        case Move():
            world.move(action.name, action.job, action.seconds, action.away_seconds)
        case Behave():
            world.behave(action.name, BEHAVIOURS[action.behaviour])
        case Ambush():
            world.ambush(action.name, action.kind, BEHAVIOURS[action.behaviour])
        case Use():
            world.work(action.name, _towards(world, action))
        case SetLimits():
            world.limit(action.name, action.limits)
        case Meddle():
            world.meddle(action.name, action.requested_bytes, action.told_seconds)
        case KillController():
            world.kill_controller()
            world.agenda.after(action.down_seconds, world.restart_controller)


def shortest(scenario: Scenario, fails: Callable[[Scenario], Violation | None]) -> Scenario:
    """The scenario with as few steps and guests as possible that still breaks the same rule.

    Delta debugging (Zeller and Hildebrandt, 2002): leave out ever smaller parts as long as it fails.
    """
    first = fails(scenario)
    if first is None:
        return scenario

    def still(candidate: Scenario) -> bool:
        found = fails(candidate)
        return found is not None and found.rule == first.rule

    best = replace(scenario, seconds=first.at + scenario.resolution)
    best = best if still(best) else scenario
    while True:
        smaller = _without_guests(_without_steps(best, still), still)
        if smaller == best:
            return best
        best = smaller


def _without_steps(scenario: Scenario, still: Callable[[Scenario], bool]) -> Scenario:
    return replace(
        scenario, steps=_minimal(scenario.steps, lambda kept: still(replace(scenario, steps=kept)))
    )


def _without_guests(scenario: Scenario, still: Callable[[Scenario], bool]) -> Scenario:
    kept = _minimal(scenario.guests, lambda guests: _possible(scenario, guests, still))
    return replace(scenario, guests=kept)


def _possible(scenario: Scenario, guests: tuple[GuestSpec, ...], still: Callable[[Scenario], bool]) -> bool:
    names = {guest.name for guest in guests}
    used = {name for step in scenario.steps if (name := getattr(step.action, "name", None))}
    return used <= names and still(replace(scenario, guests=guests))


def _minimal(items: tuple[_T, ...], still: Callable[[tuple[_T, ...]], bool]) -> tuple[_T, ...]:
    size = max(1, len(items) // 2)
    while items:
        at = 0
        while at < len(items):
            kept = items[:at] + items[at + size :]
            if still(kept):
                items = kept
            else:
                at += size
        if size == 1:
            break
        size = max(1, size // 2)
    return items


def _run_to(world: World, when: float, until_violation: bool) -> bool:
    """Run up to a time; False if a violation ended it."""
    while when - world.now >= world.agenda.resolution:
        world.run(min(1.0, when - world.now))
        if until_violation and world.violations:
            return False
    return True


def _towards(world: World, use: Use) -> Workload:
    vm = world.vm(use.name)
    now = world.now
    there = float(use.anonymous_bytes)
    curve = ramp(vm.memory.ideal, there, now, use.over_seconds) if use.over_seconds else steady(there)
    return replace(vm.workload, anonymous=curve, working_set=steady(float(use.working_set_bytes)))


def violations_of(
    make: MakeController, ignored: frozenset[str] = frozenset()
) -> Callable[[Scenario], Violation | None]:
    """For `shortest`: the first violation of a scenario under a kind of controller."""

    def fails(scenario: Scenario) -> Violation | None:
        found: Sequence[Violation] = play(scenario, make, ignored=ignored).violations
        return found[0] if found else None

    return fails
