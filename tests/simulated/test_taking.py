"""How fast virtio-mem that a guest does not need any more is taken from it."""

from host_controller.core.engine import Engine
from host_controller.core.model import MEMORY_BLOCK_BYTES, Growth, Limits, Settings
from host_controller.simulator.guest import GuestSpec
from host_controller.simulator.virtio_mem import UNPLUG_SECONDS
from host_controller.simulator.workload import Curve, Workload
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

TICK = 0.05
FALLS_AT = 60.0
PLUGGED = 4 * GIB


def test_a_driver_that_gives_memory_back_does_not_wait_for_the_next_step() -> None:
    """3 GiB of four, in steps of a second's work, each told before the last has ended (rule: small-steps)."""
    level = Curve([(0.0, 4400 * MIB), (FALLS_AT, 4400 * MIB), (FALLS_AT + 0.1, 100 * MIB)])
    limits = Limits(640 * MIB, 640 * MIB, 640 * MIB + PLUGGED)
    world = World(8 * GIB, seed=1, resolution=TICK)
    world.control(lambda capacity: Engine(Settings(capacity, shrink_after_seconds=0.0, settle_seconds=0.0)))
    vm = world.define(GuestSpec("giver", limits, Growth.VIRTIO_MEM, workload=Workload(level)))
    world.start("giver")
    world.run(FALLS_AT)
    device = vm.virtio_mem
    assert device.current == device.requested == PLUGGED
    left, left_at = device.current, FALLS_AT + 1.0
    while device.current > GIB:
        world.run(TICK)
        if device.current < left:
            left, left_at = device.current, world.now
        assert world.now - left_at < UNPLUG_SECONDS + 2 * TICK, f"it stopped at {left / MIB:.0f} MiB"
    assert not world.violations


def test_another_size_does_not_make_a_driver_faster() -> None:
    """The simulator's looks at it when it is done with the block that it is at, as Linux's does."""
    world = World(8 * GIB, seed=1, resolution=TICK)
    vm = world.define(GuestSpec("giver", Limits(2 * GIB, GIB, 4 * GIB), Growth.VIRTIO_MEM))
    world.start("giver")
    world.run(FALLS_AT)
    device = vm.virtio_mem
    assert device.request(GIB) is None
    world.run(10.0)
    sizes = []
    for blocks in range(1, 5):
        device.request(GIB - blocks * MEMORY_BLOCK_BYTES)
        world.run(TICK)
        sizes.append((GIB - device.current) // MEMORY_BLOCK_BYTES)
    assert sizes == [1, 1, 1, 1]
    world.run(UNPLUG_SECONDS)
    assert device.current == GIB - 2 * MEMORY_BLOCK_BYTES
