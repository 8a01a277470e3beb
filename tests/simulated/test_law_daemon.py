"""Where `make bench` has a peer decide in the real daemon, the peer moves the balloons and ours does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from bench.real.law_daemon import LAWS, LawEngine
from host_controller.core import interface as hv
from host_controller.core.model import Growth, Limits, Settings
from host_controller.core.vm.record import Phase
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.laws.views import GuestSight, HostSight, Law
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LIMITS = Limits(512 * MIB, 256 * MIB, 2 * GIB)
SECONDS = 60.0


@dataclass
class Says:
    """A law that wants what it was told to want, and keeps what it was shown."""

    wants: Mapping[str, float]
    period: float = 1.0
    host: HostSight | None = None
    guests: Sequence[GuestSight] = ()

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> Mapping[str, float]:
        """All of it, whoever is there."""
        self.host, self.guests = host, guests
        there = {guest.name for guest in guests}
        return {name: size for name, size in self.wants.items() if name in there}


@dataclass
class Sent:
    """A witness of all that is sent to VMs."""

    commands: list[hv.Command] = field(default_factory=list)

    def submitted(self, command: hv.Command) -> None:
        self.commands.append(command)

    def delivered(self, event: hv.HypervisorEvent) -> None:
        pass

    def happened(self, kind: str, vm: str) -> None:
        pass


def two_guests(law: Law) -> tuple[World, LawEngine, list[hv.Command]]:
    """One works with more than startup leaves free, one hardly at all; the law finds both running."""
    world, sent = World(8 * GIB, check=False), Sent()
    for name, mib in (("busy", 400), ("idle", 60)):
        world.add(GuestSpec(name, LIMITS, growth=Growth.BALLOON, workload=Workload(steady(mib * MIB))))
    world.run(SECONDS)
    engine = LawEngine(Settings(8 * GIB, overhead_floor_bytes=0), law)
    world.hypervisor.witnesses.append(sent)
    world.control(lambda _: engine)
    world.run(SECONDS)
    return world, engine, sent.commands


@pytest.mark.parametrize("law", LAWS)
def test_a_peer_takes_running_guests_over_and_makes_the_busy_one_larger(law: str) -> None:
    world, engine, _ = two_guests(LAWS[law]())
    world.run(SECONDS)
    assert [(vm.phase, vm.pauses.fault) for vm in engine.vms.values()] == [(Phase.LIVE, None)] * 2
    assert world.vm("busy").actual_bytes > LIMITS.startup_bytes + 100 * MIB


def test_what_a_law_wants_is_sent_in_whole_pages_and_nothing_else_is() -> None:
    world, _, sent = two_guests(law := Says({}))
    sent.clear()
    law.wants = {"busy": 700.0 * MIB, "idle": 600.0 * MIB + 1}
    world.run(SECONDS)
    told = [(world.name_of(one.vm), one.target_bytes) for one in sent if isinstance(one, hv.SetTarget)]
    assert told == [("busy", 700 * MIB), ("idle", 600 * MIB + 4096)]
    assert len(told) == len(sent), "ours has a word, too"
    assert world.vm("busy").actual_bytes == 700 * MIB


def test_a_law_sees_guests_and_host_as_they_are() -> None:
    world, _, _ = two_guests(law := Says({"busy": 700.0 * MIB}))
    held = sum(vm.resident_bytes for vm in world.hypervisor.vms())
    assert law.host == HostSight(8.0 * GIB, 8.0 * GIB - held, 8.0 * GIB - (700 + 512) * MIB)
    for shown, vm in zip(law.guests, world.hypervisor.vms(), strict=True):
        memory = vm.memory
        assert shown.name == vm.spec.name
        assert (shown.minimum, shown.maximum) == (LIMITS.minimum_bytes, LIMITS.maximum_bytes)
        assert shown.current == shown.target == vm.actual_bytes
        found = (shown.total, shown.free, shown.available, shown.cached)
        truth = (memory.total, memory.free, memory.available, memory.cache)
        assert found == pytest.approx(truth, abs=4 * MIB)


@pytest.mark.parametrize(("period", "seconds"), [(0.01, 0.1), (0.5, 0.5), (10.0, 1.0)])
def test_balloons_are_read_as_often_as_a_law_looks(period: float, seconds: float) -> None:
    world, _, sent = two_guests(Says({"busy": 700.0 * MIB}, period))
    paces = [(world.name_of(one.vm), one.period_seconds) for one in sent if isinstance(one, hv.SetPace)]
    assert paces == [("busy", seconds), ("idle", seconds)]
