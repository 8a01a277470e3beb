"""What the base's own code records, all of it seeded: simulated hosts, and the benchmarks of the engine.

The stories are told with names of the base; the tree that is compared with it does not have to know them.
"""

import contextlib
import importlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from names import the

STORY_SECONDS: Final = 200.0
SEESAW_GUESTS: Final = 12
DEED_SECONDS: Final = 8.0
"""Mean time between two deeds of the operator."""
SCALE_VMS: Final = 100
FAST_SECONDS: Final = 300.0
FAST_HOST_SHARE: Final = 1.1
FAST_KERNEL_BYTES: Final = 400 << 20
MIB: Final = 1 << 20


class Lives:
    """Makes engines that are recorded as the daemon records them: a file for each life of a controller."""

    def __init__(self, directory: Path, story: str) -> None:
        self._stem = directory / story
        self._count = 0
        self._recorder: Any = None
        self._engine: Any = None

    def engine(self, settings: Any, now: float = 0.0) -> Any:
        """The next one. What the one before has left lies beside its recording."""
        self.close()
        self._count += 1
        path = self._stem.with_name(f"{self._stem.name}-{self._count}.jsonl")
        if self._engine is not None:
            path.with_suffix(".state.json").write_bytes(msgspec.json.encode(_left_by(self._engine, now)))
        self._recorder = the("Recorder")(path, settings, now)
        self._engine = _recorded(self._recorder)(settings)
        return self._engine

    def close(self) -> None:
        """The story ends, or its next life begins."""
        if self._recorder is not None:
            self._recorder.close()


def _recorded(recorder: Any) -> Any:
    class Recorded(the("Engine")):  # type: ignore[misc] # known when it runs
        def handle(self, event: Any, now: float) -> None:
            heard = _as_heard(event)
            recorder.handled(heard, now)
            super().handle(heard, now)

        def decide(self, now: float) -> Any:
            commands = super().decide(now)
            recorder.decided(commands, now)
            return commands

    return Recorded


def _as_heard(event: Any) -> Any:
    """A simulated agent's figures are bytes; those of a real one's line, and of a recording's, are KiB."""
    if not hasattr(event, "untrusted_message"):
        return event
    line = the("encode", "agent")(event.untrusted_message).rstrip()
    return replace(event, untrusted_message=the("decode_from_guest", "agent")(line))


def _left_by(engine: Any, now: float) -> Any:
    """What its state directory would hold: the operator's pauses come in as events anyway."""
    state = engine.state
    reservations = state.ledger.reservations.values()
    left = [reservations, (), False, state.standstills, the("plugs_under_way")(state.vms)]
    with contextlib.suppress(LookupError):  # of a base that did not keep them yet
        left.append(the("sizes_under_way")(state.vms))
        left.append(the("boots_under_way")(state.vms, state.settings.settle_seconds, now))
    return the("remembered")(*left)


def record(directory: Path, stories: int) -> None:
    """Record everything, a file for each life of a controller."""
    for seed in range(stories):
        _host(seed, Lives(directory, f"story-{seed:02d}"))
    _scale(Lives(directory, "bench.scale"))
    _fast(Lives(directory, "bench.fast"))


# --- the benchmarks ---------------------------------------------------------------------------------


def _scale(lives: Lives) -> None:
    scale: Any = importlib.import_module("bench.scale")
    hello = scale._hello  # noqa: SLF001 # its boot ids are cut short, which no recording can hold

    def whole(number: int) -> Any:
        said = hello(number)
        return said._replace(boot_id=f"{said.boot_id}-0000-0000-0000-000000000000")

    scale.Engine, scale._hello = lives.engine, whole  # noqa: SLF001
    bench = scale.Bench(SCALE_VMS)
    for changed in (SCALE_VMS, 1, 10):
        bench.change(bench.names[:changed])
        bench.step((), tick=True)
    lives.close()


def _fast(lives: Lives) -> None:
    runner: Any = importlib.import_module("bench.runner")
    runner.ours = lambda capacity: lives.engine(the("Settings")(capacity, overhead_floor_bytes=0))
    runner.run(*fast_fleet(FAST_SECONDS))
    lives.close()


def fast_fleet(seconds: float) -> tuple[Any, int]:
    """The fleet of `bench.fast`, and a host that can always meet its demand, bytes."""
    fleet = importlib.import_module("bench.workloads").fleet(seconds)
    largest = max(sum(curve.at(float(at)) for curve in fleet.curves.values()) for at in range(int(seconds)))
    return fleet, int(FAST_HOST_SHARE * (largest + len(fleet.specs) * FAST_KERNEL_BYTES))


# --- simulated hosts --------------------------------------------------------------------------------


def _host(seed: int, lives: Lives) -> None:
    """Guests that misbehave, start, stop, move and are reset; an operator and a host that do their part."""
    rng = random.Random(f"replay {seed}")
    if seed % 3 == 1:
        scenario = the("seesaw_scenario", "tests")(seed, STORY_SECONDS, SEESAW_GUESTS)
    else:
        scenario = the("random_scenario", "tests")(seed, STORY_SECONDS)
    settings = the("Settings")(scenario.capacity_bytes, **_timing(rng, patient=seed % 3 == 2))
    world = the("World")(scenario.capacity_bytes, seed=scenario.seed)
    for guest in scenario.guests:
        world.define(guest)
    world.control(lambda _: lives.engine(settings, world.now))
    befall = the("apply", "host_controller/simulator")
    for step in scenario.steps:
        world.agenda.at(step.at, partial(befall, world, step.action))
    for at, deed in _deeds(rng, world, settings):
        world.agenda.at(at, deed)
    world.run(STORY_SECONDS)
    lives.close()


def _timing(rng: random.Random, *, patient: bool) -> dict[str, Any]:
    """By default, or impatient, so that plugging and unplugging are met often."""
    keep = {"keep_ready_bytes": rng.choice((None, 0, 128 * MIB)), "reserve_bytes": 64 * MIB}
    if patient:
        return keep
    return keep | {
        "shrink_after_seconds": 5.0,
        "settle_seconds": 2.0,
        "unplug_after_seconds": 3.0,
        "rest_seconds": 1.0,
        "reset_wait_seconds": rng.choice((3.0, 20.0)),
    }


def _deeds(rng: random.Random, world: Any, settings: Any) -> Iterator[tuple[float, Callable[[], None]]]:
    """What the generator's scenarios leave out: an operator, VMs that ask to start, a host that is short."""
    at = 10.0
    while (at := at + rng.expovariate(1 / DEED_SECONDS)) < STORY_SECONDS:
        first, then = _deed(rng, world, settings, at)
        yield at, first
        yield at + rng.uniform(1.0, 15.0), then


def _deed(
    rng: random.Random, world: Any, settings: Any, at: float
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Something, and what puts it right a while later."""
    vm = rng.choice(world.hypervisor.vms())
    tell = partial(partial, _tell, world)
    match rng.choice(("reset", "reset", "pause", "settings", "admit", "host", "connection", "resized")):
        case "reset":
            again = partial(world.reset, vm.spec.name)
            return again, again
        case "pause":
            return tell("HoldVm", vm.uuid, True), tell("HoldVm", vm.uuid, False)
        case "settings":
            other = replace(settings, capacity_bytes=int(settings.capacity_bytes * rng.uniform(0.7, 1.2)))
            return tell("SettingsChanged", other), tell("SettingsChanged", settings)
        case "admit":
            size = rng.randrange(1, 9) * 128 * MIB
            admitted = tell("Reserve", "new", size, at + 25.0)
            return tell("MakeRoom", "new", size), rng.choice((admitted, tell("Release", "new")))
        case "host":
            taken = int(settings.capacity_bytes * rng.uniform(0.2, 1.0))
            return partial(_others_hold, world, taken), partial(_others_hold, world, 0)
        case "connection":
            return tell("ConnectionChanged", False, "away"), tell("ConnectionChanged", True, "back")
        case _:
            somebody = tell("VirtioMemChanged", vm.uuid, rng.randrange(9) * 64 * MIB, None)
            return somebody, somebody


def _tell(world: Any, event: str, *fields: Any) -> None:
    if world.driver is not None:
        world.driver.take(the(event, "host_controller/core", "host_controller")(*fields))


def _others_hold(world: Any, size: int) -> None:
    world.hypervisor.other_bytes = size
