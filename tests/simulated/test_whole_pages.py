"""A balloon is told whole pages of its guest, also of one whose pages are of 64 KiB (arm64, POWER)."""

from dataclasses import replace

import pytest

from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import BALLOON, HOTADD, VIRTIO_MEM, Growth, Limits, Settings
from host_controller.core.operator_events import SettingsChanged
from host_controller.core.vm.balloon import PAGE_BYTES
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Curve, Workload
from host_controller.simulator.world import World
from host_controller.units import GIB, KIB, MIB

ODD = 4 * KIB
"""One page of a guest on x86."""
LARGE = Settings(2 * GIB + ODD, shrink_after_seconds=2.0, unplug_after_seconds=5.0)
SMALL = replace(LARGE, capacity_bytes=GIB + 512 * MIB + 3 * ODD)


class Targets:
    """Remembers what balloons were told."""

    def __init__(self) -> None:
        self.said: list[int] = []

    def submitted(self, command: hv.Command) -> None:
        if isinstance(command, hv.SetTarget):
            self.said.append(command.target_bytes)

    def delivered(self, event: hv.HypervisorEvent) -> None:
        pass

    def happened(self, kind: str, vm: str) -> None:
        pass


def saw(phase: float) -> Workload:
    """Demand between 300 MiB and 1 GiB that goes to and fro in 40 s."""
    return Workload(Curve([(20 * i + phase, (1024 if i % 2 else 300) * MIB) for i in range(12)]))


@pytest.mark.parametrize("growth", [BALLOON, HOTADD, VIRTIO_MEM])
def test_every_target_is_a_whole_number_of_the_largest_pages(growth: Growth) -> None:
    """On a host that has less than all need, whose capacity falls, in odd sizes; one VM is reset."""
    world, engine = World(LARGE.capacity_bytes), Engine(LARGE)
    world.control(lambda _capacity: engine)
    for i in range(3):
        limits = Limits(512 * MIB, 256 * MIB + ODD, 1536 * MIB + ODD, weight=10**i)
        world.add(GuestSpec(f"vm{i}", limits, growth=growth, workload=saw(i * 13.0), swap_bytes=GIB))
    targets = Targets()
    world.hypervisor.witnesses.append(targets)
    world.run(90.0)
    world.set_capacity(SMALL.capacity_bytes)
    engine.handle(SettingsChanged(SMALL), world.now)
    world.run(40.0)
    world.reset("vm1")
    world.run(60.0)
    assert len(targets.said) > 30
    assert [one for one in targets.said if one % PAGE_BYTES] == []
    assert not world.violations
