"""The simulated guest against a recorded real one: the same script, the same figures within 5 %.

The script is tests/data/guest_memory.toml; the recording beside it was made by `make record-memory`.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import pytest

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.model import GuestFacts, Limits
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.report_validation import facts_from_report
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.memory import Speeds
from host_controller.simulator.workload import Workload, ramp, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB
from lab.memory_script import Heard, Script, Step, read_recording, read_script

WITHIN: Final = 0.05
APART: Final = 1.5
"""Seconds that the two may be apart: a report a second, and a guest under TCG that is not always punctual."""
TCG: Final = Speeds(touch=0.1 * GIB, inflate=0.17 * GIB, deflate=1.0 * GIB)
"""The recorded guest's (fact: tcg-speeds); its disk is the host's page cache."""
PROGRAM_BYTES: Final = 3 * MIB
"""What a program of the lab holds beside what it is told to: private pages of Python, and 2 MiB of noise."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a host makes of a report. Sizes are bytes."""

    at: float
    usable: int
    available: int
    demand: int


def figures(heard: Iterable[Heard], script: Script) -> list[Figures]:
    """As the controller works them out: from the report and the RAM that it knows of."""
    spec = _spec(script)
    demand = Demand()
    previous: GuestFacts | None = None
    found = []
    for one in heard:
        plugged = sum(step.mib for step in script.steps if step.do == "plug" and step.at <= one.at)
        facts = facts_from_report(
            one.report,
            config=spec.config(),
            ram_bytes=(script.startup + plugged) * MIB,
            now=one.at,
            previous=previous,
        )
        assert isinstance(facts, GuestFacts), facts
        previous = facts
        demand.observe(facts)
        estimate = demand.estimate(spec.limits, one.at)
        assert estimate is not None
        found.append(Figures(one.at, facts.usable_bytes, facts.available_bytes, estimate.demand_bytes))
    return found


def _spec(script: Script) -> GuestSpec:
    limits = Limits(script.startup * MIB, 64 * MIB, script.maximum * MIB)
    return GuestSpec("recorded", limits, workload=Workload(steady(0)), speeds=TCG)


class Player:
    """Plays a script to a simulated guest, whose agent is welcomed as the recorder does it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heard: list[Heard] = []
        self.began = 0.0
        self.world = World(64 * GIB, check=False)
        self.world.hypervisor.connect(self._take)
        self.vm = self.world.add(_spec(script))
        self.world.run(20.0)
        self._say(wire.Welcome("recorder", 1.0, 1.0, 1.0))
        self._say(wire.OnlineZone(1, "movable"))
        self.world.run(20.0)
        self.began = self.world.now
        self.heard.clear()
        self.tickets = 0

    def play(self) -> list[Heard]:
        """From the first step to the end."""
        for step in self.script.steps:
            self.world.run(self.began + step.at - self.world.now)
            self.do(step)
        self.world.run(self.began + self.script.seconds - self.world.now)
        return self.heard

    def do(self, step: Step) -> None:
        now, work = self.world.now, self.vm.workload
        match step.do:
            case "allocate":
                base = work.anonymous.at(now) + PROGRAM_BYTES
                self._work(anonymous=ramp(base, base + step.mib * MIB, now, step.mib / step.rate))
            case "hold":
                self._work(anonymous=steady(work.anonymous.at(now)))
            case "free":
                self._work(anonymous=steady(0), working_set=steady(0))
            case "thrash":
                self._work(
                    anonymous=steady(work.anonymous.at(now) + PROGRAM_BYTES),
                    working_set=steady(step.mib * MIB),
                    cache_period=step.mib / step.rate,
                )
            case "balloon":
                self._submit(hv.SetTarget, target_bytes=step.mib * MIB)
            case "plug":
                self._submit(hv.AttachDimm, size_bytes=step.mib * MIB)

    def _work(self, **changes: object) -> None:
        self.world.work("recorded", replace(self.vm.workload, **changes))  # type: ignore[arg-type]

    def _submit(self, kind: type, **fields: object) -> None:
        self.tickets += 1
        self.world.hypervisor.submit(kind(vm=self.vm.uuid, ticket=self.tickets, **fields))

    def _say(self, message: wire.HostMessage) -> None:
        self.world.hypervisor.submit(hv.SendToGuest(self.vm.uuid, message))

    def _take(self, event: hv.HypervisorEvent) -> None:
        if isinstance(event, hv.GuestSpoke) and isinstance(event.untrusted_message, wire.Report):
            self.heard.append(Heard(self.world.now - self.began, event.untrusted_message))


@pytest.fixture(scope="module")
def script() -> Script:
    return read_script()


@pytest.fixture(scope="module")
def real(script: Script) -> list[Figures]:
    return figures(read_recording(), script)


@pytest.fixture(scope="module")
def simulated(script: Script) -> list[Figures]:
    return figures(Player(script).play(), script)


def test_the_recording_is_of_the_whole_script(script: Script, real: list[Figures]) -> None:
    assert real[0].at < 2.0
    assert real[-1].at > script.seconds - 2.0
    assert max(b.at - a.at for a, b in itertools.pairwise(real)) < 2.5
    assert {"allocate", "hold", "free", "thrash", "plug"} <= {step.do for step in script.steps}


@pytest.mark.parametrize("name", ["usable", "available", "demand"])
def test_a_simulated_guest_says_within_5_percent_what_a_real_one_said(
    name: str, real: list[Figures], simulated: list[Figures]
) -> None:
    apart = []
    for one in real:
        near = [getattr(other, name) for other in simulated if abs(other.at - one.at) <= APART]
        value = getattr(one, name)
        nearest = min(max(value, min(near)), max(near))
        apart.append((abs(nearest / value - 1.0), one.at, value // MIB, nearest // MIB))
    worst = max(apart)
    print(f"\n{name}: at most {worst[0]:.1%} apart, at {worst[1]:.0f} s: {worst[2]} and {worst[3]} MiB")
    assert worst[0] <= WITHIN, f"{sum(one[0] > WITHIN for one in apart)} of {len(apart)} reports: {worst}"
