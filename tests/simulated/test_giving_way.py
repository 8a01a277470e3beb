"""What one VM has no more use for is with another that waits as soon as it can have left the first one."""

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import MEMORY_BLOCK_BYTES, Growth, Limits, Settings
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.memory import Speeds
from host_controller.simulator.virtio_mem import UNPLUG_SECONDS
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

BALLOON = Speeds().inflate
PACES = {
    Growth.BALLOON: BALLOON,
    Growth.HOTADD: BALLOON,
    Growth.VIRTIO_MEM: MEMORY_BLOCK_BYTES / UNPLUG_SECONDS,
}
"""Bytes that a guest can give back in a second."""


@pytest.mark.parametrize("growth", Growth)
def test_a_vm_that_waits_is_served_at_the_pace_at_which_another_can_give(growth: Growth) -> None:
    """By virtio-mem 64 to 128 MiB came in a second, of 427 that its guest gives."""
    world = World(8 * GIB, resolution=0.05)
    world.control(lambda capacity: Engine(Settings(capacity)))
    limits = Limits(2 * GIB, 512 * MIB, 8 * GIB)
    little, much = Workload(steady(300 * MIB)), Workload(steady(5 * GIB))
    for name in ("gives", "waits"):
        world.add(GuestSpec(name, limits, growth, workload=little, reporting=False))
    world.run(60.0)
    world.work("gives", much)
    world.run(60.0)
    gives, waits = world.vm("gives").memory, world.vm("waits").memory
    had, asked = gives.usable, world.now
    world.work("gives", little)
    world.work("waits", much)
    while waits.anon < 5 * GIB - MIB:
        world.run(0.25)
        assert world.now < asked + 60.0, f"{waits.unmet / MIB:.0f} MiB short"
    given = had - gives.usable
    assert given > 4 * GIB
    assert world.now - asked <= 1.25 * given / PACES[growth] + 1.0
    assert not world.violations
