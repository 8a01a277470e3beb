"""Guests that say anything: `python -m tests.simulated.hostile [--runs N] [--seed S]`.

In each run one guest of a host tells lies by every field of every message, half of them close to the truth so
that they are believed, through the code that reads a real guest's port. The host has room for all that the
honest guests want beside the liar's maximum, so nothing that it says may cost them anything.
"""

import argparse
import json
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from agent import codec, wire
from agent.report import Reporter
from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.hypervisor.link import Link
from host_controller.simulator.agent import facts_of
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, ramp, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LIAR: Final = "liar"
FOR_THE_TRUTHFUL: Final = ("small-steps", "plan")
"""Rules that protect a guest by what it says: who says that it needs nothing, or can describe any DIMM, is
taken at its word."""
SECONDS: Final = 60.0
CALM_SECONDS: Final = 25.0
"""Until everybody has booted and settled, and after an honest guest's own growth."""
GROWTH_SECONDS: Final = 15.0
SIZES: Final = (0, 1, 4096, MIB, 64 * MIB, 128 * MIB, GIB, 4 * GIB, 1 << 40, 1 << 50, (1 << 50) + 1, 1 << 63)
BLOCKS: Final = (0, 1, 4096, 16 * MIB, 128 * MIB, 129 * MIB, 512 * MIB, 2 * GIB, 4 * GIB, 1 << 45, 1 << 50)
WORDS: Final = (
    "",
    "heartbeat",
    "hotplug",
    "kernel",
    "agent",
    "none",
    "tomorrow",
    "x" * 64,
    "\u202e",
    "\x1b[2J",
)


def truth(vm: SimulatedVm, sequence: int, boot_id: str) -> wire.Report:
    """What an honest agent would say."""
    reporter = Reporter(boot_id, vm.agenda.now)
    reporter.force("heartbeat", vm.agenda.now)
    report = reporter.observe(facts_of(vm.memory, vm.agenda.now), vm.slots.blocks(), vm.agenda.now)
    assert report is not None
    return report._replace(sequence=sequence)


class Liar:
    """Speaks for a guest whose own agent is silent."""

    def __init__(
        self, world: World, vm: SimulatedVm, rng: random.Random, per_second: float, *, mute: bool
    ) -> None:
        self.link = Link(vm.uuid, world.now)
        self._world, self._vm, self._rng, self._per_second = world, vm, rng, per_second
        self._sequence = 0
        self._boot_ids = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(3)]
        if not mute:
            self._again()

    def _again(self) -> None:
        self._world.agenda.after(self._rng.expovariate(self._per_second), self._speak)

    def _speak(self) -> None:
        vm = self._vm
        if vm.up:
            vm.advance()
            for event in self.link.feed(self._bytes(), self._world.now):
                vm.emit(event)
        self._again()

    def _bytes(self) -> bytes:
        rng = self._rng
        kind = rng.random()
        if kind < 0.05:
            return rng.choice((b"\n" * 500, b"{}\n", rng.randbytes(200) + b"\n", b"x" * 9000, b'{"v":9}\n'))
        if kind < 0.2:
            return self._line("hello", self._hello())
        if kind < 0.25:
            ack = {"id": rng.choice((0, 1, rng.randrange(1 << 53))), "ok": rng.random() < 0.5}
            return self._line("ack", ack | {"detail": rng.choice(WORDS), "changed": rng.choice(SIZES)})
        if kind < 0.27:
            return self._line("error", {"code": "bad-message", "message": rng.choice(WORDS)})
        return self._line("report", self._report())

    def _boot_id(self) -> str:
        rng = self._rng
        if rng.random() < 0.9:
            return self._boot_ids[0]
        return rng.choice((*self._boot_ids, str(uuid.UUID(int=rng.getrandbits(128)))))

    def _hello(self) -> dict[str, Any]:
        rng = self._rng
        return {
            "boot": self._boot_id(),
            "agent": rng.choice((*WORDS, str(rng.random()))),
            "kernel": rng.choice(WORDS),
            "block": rng.choice(BLOCKS),
            "psi": rng.random() < 0.5,
            "policy": rng.choice(WORDS),
            "hotplug": rng.choice(WORDS),
            "welcomed": rng.random() < 0.5,
        }

    def _report(self) -> dict[str, Any]:
        """The truth with some fields exchanged: by anything, or by something that fits in with the others."""
        rng = self._rng
        self._sequence = max(0, self._sequence + rng.choice((1, 1, 1, 1, 1, 1, 7, 0, -3)))
        line = codec.encode(truth(self._vm, self._sequence, self._boot_id()))
        told: dict[str, Any] = json.loads(line)
        total = told["mt"]
        for key in rng.sample(REPORT_KEYS, rng.choice((0, 1, 1, 2, 4, 12))):
            fitting = rng.choice((0, total, rng.randrange(total + 1), total - rng.randrange(1 + total // 8)))
            told[key] = (
                fitting if rng.random() < 0.7 else rng.choice((*SIZES, -1, 1e308, None, True, "x", [], {}))
            )
        if rng.random() < 0.3:  # nothing left, or all of it
            told["ma"] = told["mf"] = rng.choice((0, total))
        if rng.random() < 0.2:
            waited = rng.choice((0, 10**9, 1 << 53))
            told |= {"ps": 99.0, "pf": 99.0, "pst": waited, "pft": rng.randrange(10**9)}
        told["w"] = rng.choice(WORDS)
        return told

    @staticmethod
    def _line(kind: str, fields: dict[str, Any]) -> bytes:
        return json.dumps(fields | {"v": 1, "t": kind}).encode() + b"\n"


REPORT_KEYS: Final = [field.key for field in codec.fields_of(wire.Report)]


class Told:
    """A witness that counts what a VM is told to do; how often it is looked at is told to nobody."""

    def __init__(self, vm: str) -> None:
        self.commands: Counter[str] = Counter()
        self._vm = vm

    def submitted(self, command: hv.Command) -> None:
        if command.vm == self._vm and not isinstance(command, hv.SetPace):
            self.commands[type(command).__name__] += 1

    def delivered(self, event: hv.HypervisorEvent) -> None: ...

    def happened(self, kind: str, vm: str) -> None: ...


@dataclass
class Outcome:
    """What became of one run."""

    seed: int
    short: list[str]
    """Moments at which an honest guest had less than it works with, in words."""
    overdraft_seconds: float
    commands: Counter[str]
    """To the liar, by kind."""
    seconds: float
    violations: list[str]

    @property
    def good(self) -> bool:
        """Nobody else was harmed."""
        harmed = self.short or self.overdraft_seconds or self.violations
        return not harmed and self.commands.total() <= self.seconds


def harm(seed: int, seconds: float = SECONDS) -> Outcome:
    """What a liar's words did: an honest guest that is as short without them has it from its own growth."""
    outcome = play(seed, seconds)
    if outcome.short:
        anyhow = {one.partition(" has ")[0] for one in play(seed, seconds, mute=True).short}
        outcome.short = [one for one in outcome.short if one.partition(" has ")[0] not in anyhow]
    return outcome


def play(seed: int, seconds: float = SECONDS, *, mute: bool = False) -> Outcome:
    """One host, one liar, who says nothing where it is mute."""
    rng = random.Random(f"hostile {seed}")
    honest = rng.randrange(2, 5)
    limits = [random_limits(rng) for _ in range(honest + 1)]
    room = sum(one.maximum_bytes + 96 * MIB for one in limits)
    # What is kept ready for bursts, 1/16 at most, is nobody's.
    world = World(room * 16 // 14, seed=seed)
    engine = Engine(Settings(world.capacity_bytes, shrink_after_seconds=5.0, settle_seconds=2.0))
    world.control(lambda _capacity: engine)
    names = [f"vm{i}" for i in range(honest)]
    for name, one in zip((*names, LIAR), limits, strict=True):
        work = Workload(steady(rng.randrange(0, one.minimum_bytes // 2)))
        how = rng.choice(list(Growth))
        behaviour = BEHAVIOURS["agent silent" if name == LIAR else "ideal"]
        spec = GuestSpec(name, one, growth=how, workload=work, boot_seconds=1.0, agent_seconds=0.2)
        world.add(replace(spec, behaviour=behaviour))
    world.run(CALM_SECONDS)
    Liar(world, world.vm(LIAR), random.Random(seed), rng.choice((0.5, 5.0, 30.0)), mute=mute)
    told = Told(world.vm(LIAR).uuid)
    world.hypervisor.witnesses.append(told)
    short: list[str] = []
    middle, end = world.now + seconds / 2, world.now + seconds
    grows = rng.choice(names)
    while world.now < end:
        if middle <= world.now < middle + 1:
            vm = world.vm(grows)
            wanted = vm.config.limits.maximum_bytes * 6 // 10
            world.work(grows, Workload(ramp(vm.memory.ideal, wanted, world.now, GROWTH_SECONDS)))
        world.run(1.0)
        for name in names:
            vm = world.vm(name)
            if name == grows and middle <= world.now < middle + CALM_SECONDS:
                continue  # while it grows
            if vm.memory.available < min(16 * MIB, vm.memory.usable // 32):
                short.append(f"{world.now:.0f} s: {name} has {vm.memory.available / MIB:.0f} MiB available")
    found = [str(one) for one in world.violations if one.vm != LIAR or one.rule not in FOR_THE_TRUTHFUL]
    return Outcome(seed, short, world.checker.overdraft_seconds, told.commands, seconds, found)


def random_limits(rng: random.Random) -> Limits:
    """Of a guest of 0.5 to 4 GiB."""
    minimum = rng.choice((192, 256, 512)) * MIB
    startup = minimum + rng.randrange(1, 5) * 128 * MIB
    return Limits(
        startup, minimum, startup + rng.randrange(0, 17) * 128 * MIB, weight=rng.choice((10, 100, 1000))
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 0 when nobody was harmed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    bad, most = [], 0.0
    for seed in range(chosen.seed, chosen.seed + chosen.runs):
        outcome = harm(seed)
        most = max(most, outcome.commands.total() / outcome.seconds)
        if not outcome.good:
            bad.append(outcome)
            print(outcome, flush=True)
    took = time.monotonic() - began
    print(
        f"{chosen.runs} runs, {len(bad)} in which somebody was harmed; at most {most:.2f} commands a second"
    )
    print(f"{took:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
