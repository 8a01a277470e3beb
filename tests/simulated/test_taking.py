"""How fast the simulated driver of virtio-mem gives back."""

from host_controller.core.model import MEMORY_BLOCK_BYTES, Growth, Limits
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.virtio_mem import UNPLUG_SECONDS
from host_controller.simulator.world import World
from host_controller.units import GIB

TICK = 0.05
FALLS_AT = 60.0
PLUGGED = 4 * GIB


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
