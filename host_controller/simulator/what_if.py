"""A recording of a real host, played again with other settings: what would have been decided."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from host_controller.core.engine import Engine
from host_controller.core.interface import Command, SetTarget, VmAppeared, VmConfigChanged
from host_controller.core.model import Limits, VmConfig
from host_controller.errors import InputError
from host_controller.records.recording import Handled, Recording

LIMIT_FIELDS = {
    "startup": "startup_bytes",
    "minimum": "minimum_bytes",
    "maximum": "maximum_bytes",
    "buffer": "buffer_percent",
    "weight": "weight",
}
"""What `--with VM:KEY=VALUE` may name, and the field of `Limits` that it sets."""


@dataclass(slots=True)
class WhatIf:
    """What was decided, and what would have been."""

    decisions: int = 0
    seconds: float = 0.0
    damaged: int = 0
    """Lines of the recording that were left out."""
    then: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)
    first_difference: float | None = None
    """Seconds after the start. Up to there the answer is exact; beyond it the guests had something else."""
    goals: dict[str, float] = field(default_factory=dict)
    """What the balance would have given each VM, bytes: the mean over the time in which it gave any."""
    vms: set[str] = field(default_factory=set)

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "decisions": self.decisions,
            "seconds": self.seconds,
            "damaged": self.damaged,
            "commands_then": dict(self.then),
            "commands_now": dict(self.now),
            "first_difference": self.first_difference,
            "mean_goal_bytes": self.goals,
        }


def replay_with(
    path: Path, capacity_bytes: int | None = None, changes: Mapping[str, Mapping[str, int]] | None = None
) -> WhatIf:
    """Play a recording with another capacity or other limits, by VM name.

    Raises:
        InputError: it is no recording, a VM is not in it, or limits make no sense.
    """
    changes = changes or {}
    found = WhatIf()
    means: defaultdict[str, _Mean] = defaultdict(_Mean)
    goals: dict[str, int] = {}
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    with stream:
        recording = Recording(stream, str(path))
        settings = recording.settings
        if capacity_bytes is not None:
            settings = replace(settings, capacity_bytes=capacity_bytes, capacity_follows=False)
        engine = Engine(settings)
        for one in recording:
            before, found.seconds = found.seconds, one.at - recording.started
            for name, goal in goals.items():
                means[name].add(goal, max(0.0, found.seconds - before))
            if isinstance(one, Handled):
                engine.handle(_changed(one.event, changes, found), one.at)
                continue
            commands = engine.decide(one.at)
            found.decisions += 1
            _count(found.then, one.commands)
            _count(found.now, commands)
            if found.first_difference is None and _targets(commands) != _targets(one.commands):
                found.first_difference = found.seconds
            goals = {engine.vms[uuid].name: goal for uuid, goal in engine.goals.items()}
        found.damaged = recording.damaged
    for name, goal in goals.items():
        means[name].last = goal
    unknown = sorted(set(changes) - found.vms)
    if unknown:
        raise InputError(
            f"{path}: no VM {', '.join(unknown)}", hint=f"there are {', '.join(sorted(found.vms))}"
        )
    found.goals = {name: mean.value for name, mean in means.items()}
    return found


@dataclass(slots=True)
class _Mean:
    """Over the time in which there was something."""

    area: float = 0.0
    seconds: float = 0.0
    last: float = 0.0

    def add(self, value: float, seconds: float) -> None:
        self.area, self.seconds, self.last = self.area + value * seconds, self.seconds + seconds, value

    @property
    def value(self) -> float:
        return self.area / self.seconds if self.seconds > 0 else self.last


def _changed(event: Any, changes: Mapping[str, Mapping[str, int]], found: WhatIf) -> Any:
    if not isinstance(event, VmAppeared | VmConfigChanged):
        return event
    found.vms.add(event.config.name)
    wanted = changes.get(event.config.name)
    return replace(event, config=_with(event.config, wanted)) if wanted else event


def _with(config: VmConfig, wanted: Mapping[str, int]) -> VmConfig:
    fields = {LIMIT_FIELDS[key]: value for key, value in wanted.items()}
    limits: Limits = replace(config.limits, **fields)
    problems = limits.problems()
    if problems:
        raise InputError("; ".join(problems), vm=config.name)
    return replace(config, limits=limits)


def _count(counter: Counter[str], commands: list[Command]) -> None:
    counter.update(type(command).__name__ for command in commands)


def _targets(commands: list[Command]) -> list[tuple[str, int]]:
    return [(one.vm, one.target_bytes) for one in commands if isinstance(one, SetTarget)]
