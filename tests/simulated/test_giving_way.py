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


LITTLE, MUCH = Workload(steady(300 * MIB)), Workload(steady(5 * GIB))


def host(capacity_bytes: int, limits: Limits, growth: Growth) -> World:
    """One that gives has taken 5 GiB, and one that waits little, for a minute."""
    world = World(capacity_bytes, resolution=0.05)
    world.control(lambda capacity: Engine(Settings(capacity)))
    for name in ("gives", "waits"):
        world.add(GuestSpec(name, limits, growth, workload=LITTLE, reporting=False))
    world.run(60.0)
    world.work("gives", MUCH)
    world.run(60.0)
    return world


def wait_for(world: World, name: str) -> float:
    """It jumps to 5 GiB: seconds until it has them."""
    memory, asked = world.vm(name).memory, world.now
    world.work(name, MUCH)
    while memory.anon < 5 * GIB - MIB:
        world.run(0.25)
        assert world.now < asked + 60.0, f"{memory.unmet / MIB:.0f} MiB short"
    return world.now - asked


@pytest.mark.parametrize("growth", Growth)
def test_a_vm_that_waits_is_served_at_the_pace_at_which_another_can_give(growth: Growth) -> None:
    """By virtio-mem 64 to 128 MiB came in a second, of 427 that its guest gives."""
    world = host(8 * GIB, Limits(2 * GIB, 512 * MIB, 8 * GIB), growth)
    gives = world.vm("gives").memory
    had = gives.usable
    world.work("gives", LITTLE)
    seconds = wait_for(world, "waits")
    given = had - gives.usable
    assert given > 4 * GIB
    assert seconds <= 1.25 * given / PACES[growth] + 1.0
    assert not world.violations


def kept_by_the_kernel() -> World:
    """512 MiB of the device that is to give lie in its kernel's zone; its balloon can give as much."""
    world = host(6 * GIB + 512 * MIB, Limits(GIB, 512 * MIB, 8 * GIB), Growth.VIRTIO_MEM)
    assert world.vm("gives").virtio_mem.kernel == 512 * MIB
    return world


def test_what_the_kernel_of_a_device_keeps_its_balloon_gives_to_who_waits() -> None:
    """The device was asked for it, and seven seconds went by: 18 s in all, for 11 s where all is movable."""
    world = kept_by_the_kernel()
    gives = world.vm("gives")
    had = gives.memory.usable
    world.work("gives", LITTLE)
    seconds = wait_for(world, "waits")
    given = had - gives.memory.usable
    assert gives.actual_bytes < GIB
    assert seconds <= 1.05 * given / PACES[Growth.VIRTIO_MEM] + 1.0
    assert not world.violations


def test_what_a_device_was_given_since_it_kept_something_leaves_though_that_rests() -> None:
    """Each was served after 10 to 30 s and later, as all of the device rested with what its kernel kept."""
    world = kept_by_the_kernel()
    for turn in range(6):
        gives, waits = ("gives", "waits") if turn % 2 == 0 else ("waits", "gives")
        world.work(gives, LITTLE)
        assert wait_for(world, waits) <= 12.5
        world.run(20.0)
    assert not world.violations
