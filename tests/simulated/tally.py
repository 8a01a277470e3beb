"""What a soak has met, and a file that keeps it, so that ten million steps can be made in many turns."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.world import World

KINDS: Final = ("Grow", "Shrink", "AttachDimm", "DetachDimm", "ResizeVirtioMem", "SendToGuest", "SetPace")
SOURCES: Final = Path(__file__).parents[2]
WATCHED: Final = (
    "host_controller/core",
    "host_controller/simulator",
    "agent",
    "tests/simulated/generator.py",
)
"""What the same seed's history depends on."""


@dataclass(slots=True)
class Tally:
    """Of one run of seeds that follow each other."""

    steps: int = 0
    runs: int = 0
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a kind of command met a guest's behaviour."""
    overdraft_seconds: float = 0.0
    seconds: float = 0.0
    violations: dict[int, str] = field(default_factory=dict)
    """The first one of each seed that has any."""

    def add(self, world: World, seed: int) -> None:
        """Count a world that has been played."""
        self.runs += 1
        self.steps += world.decisions
        self.met += world.history.met
        self.overdraft_seconds += world.checker.overdraft_seconds
        self.seconds += world.now
        if world.violations:
            self.violations[seed] = str(world.violations[0])

    def join(self, other: "Tally") -> None:
        """Count what another one has met."""
        self.runs += other.runs
        self.steps += other.steps
        self.met += other.met
        self.overdraft_seconds += other.overdraft_seconds
        self.seconds += other.seconds
        self.violations |= other.violations

    @property
    def rarest(self) -> int:
        """How often the pair met that met least often."""
        return min(self.met[kind, name] for kind in KINDS for name in BEHAVIOURS)

    def table(self) -> str:
        """Commands against behaviours."""
        lines = [f"{'':16}" + "".join(f"{kind:>17}" for kind in KINDS)]
        lines += [
            f"{name:16}" + "".join(f"{self.met[kind, name]:17d}" for kind in KINDS) for name in BEHAVIOURS
        ]
        share = self.overdraft_seconds / max(1.0, self.seconds)
        lines.append(f"{self.steps} steps, {self.runs} runs, overdraft in {share:.1%} of the time")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """To be kept."""
        return {
            "steps": self.steps,
            "runs": self.runs,
            "met": {f"{kind}/{name}": count for (kind, name), count in sorted(self.met.items())},
            "overdraft_seconds": round(self.overdraft_seconds, 1),
            "seconds": round(self.seconds, 1),
            "violations": {str(seed): text for seed, text in self.violations.items()},
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Tally":
        """As it was kept."""
        met = Counter({tuple(pair.split("/", 1)): count for pair, count in told["met"].items()})
        violations = {int(seed): text for seed, text in told["violations"].items()}
        return cls(
            told["steps"], told["runs"], met, told["overdraft_seconds"], told["seconds"], violations
        )  # fmt: skip


class Kept:
    """Tallies in a file, by their first seed. What another law has met counts no more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mark = fingerprint()
        told = json.loads(path.read_text()) if path.exists() else {}
        parts = told.get("parts", {}) if told.get("fingerprint") == self.mark else {}
        self.parts = {int(first): Tally.from_json(one) for first, one in parts.items()}

    def part(self, first: int) -> Tally:
        """What is known of the seeds from this one on; more is added to it."""
        return self.parts.setdefault(first, Tally())

    def whole(self) -> Tally:
        """Of all parts together."""
        whole = Tally()
        for one in self.parts.values():
            whole.join(one)
        return whole

    def save(self) -> None:
        """To the disk, whole or not at all."""
        parts = {str(first): one.as_json() for first, one in sorted(self.parts.items())}
        beside = self.path.with_name(f"{self.path.name}.new")  # two runs may keep theirs in one folder
        beside.write_text(json.dumps({"fingerprint": self.mark, "parts": parts}, indent=1) + "\n")
        os.replace(beside, self.path)


def fingerprint() -> str:
    """Of all that the same seed's history depends on."""
    digest = hashlib.sha256()
    for watched in WATCHED:
        path = SOURCES / watched
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
