"""How fast virtio-mem that a guest does not need any more is taken from it."""

from dataclasses import replace

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import MEMORY_BLOCK_BYTES, Growth, Limits, Settings
from host_controller.simulator import virtio_mem
from host_controller.simulator.behaviours import IDEAL, SETS_ASIDE, Behaviour
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.virtio_mem import UNPLUG_SECONDS
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

TICK = 0.05
FALLS_AT = 60.0
LIMITS = Limits(640 * MIB, 640 * MIB, 1664 * MIB, buffer_percent=2000)
SETTLED = 100.0


def seconds_to_give(world: World, vm: SimulatedVm) -> float:
    """From the first command until nothing is plugged any more."""
    device = vm.virtio_mem
    while device.requested == GIB:
        world.run(TICK)
    began = world.now
    while device.current and world.now < began + 30.0:
        world.run(TICK)
    return world.now - began


@pytest.mark.parametrize("behaviour", [IDEAL, SETS_ASIDE], ids=lambda one: one.name)
@pytest.mark.parametrize("block_seconds", [0.2, UNPLUG_SECONDS, 0.42, 0.6])
def test_a_gib_is_taken_from_an_idle_guest_as_fast_as_its_driver_gives_it(
    block_seconds: float, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps of a second's work, though QEMU tells a size once a second at most (rule: small-steps).

    At first it has shown nothing; then it is known what it gives back. It stood idle for 0.5 to 2 s. Where
    its kernel sets blocks aside, that was learnt as noise of its demand, and 44 to 160 MiB were left to it.
    """
    monkeypatch.setattr(virtio_mem, "UNPLUG_SECONDS", block_seconds)
    world = World(8 * GIB, seed=1, resolution=0.01)
    world.control(lambda capacity: Engine(Settings(capacity, shrink_after_seconds=0.0, settle_seconds=0.0)))
    vm = world.define(GuestSpec("giver", LIMITS, Growth.VIRTIO_MEM, behaviour=behaviour))
    world.start("giver")
    world.run(SETTLED)
    # The simulated driver gives its first block at once, but where it sets it aside before.
    blocks = GIB // MEMORY_BLOCK_BYTES - (not behaviour.sets_aside)
    for _ in range(3):
        assert vm.virtio_mem.current == GIB
        world.limit("giver", replace(LIMITS, buffer_percent=5))
        assert seconds_to_give(world, vm) <= blocks * block_seconds / 0.95 + TICK
        world.run(20.0)
        world.limit("giver", LIMITS)
        world.run(30.0)
    assert not world.violations


def test_what_was_given_a_moment_ago_is_taken_as_fast_though_qemu_has_not_told_that_it_came() -> None:
    """By QEMU's word the first step began beside a growth. So it was waited for, for up to a second."""
    world = World(8 * GIB, seed=1, resolution=0.01)
    world.control(lambda capacity: Engine(Settings(capacity, shrink_after_seconds=0.0, settle_seconds=0.0)))
    vm = world.define(GuestSpec("giver", LIMITS, Growth.VIRTIO_MEM, behaviour=SETS_ASIDE))
    world.start("giver")
    world.run(SETTLED)
    blocks = GIB // MEMORY_BLOCK_BYTES
    for turn in range(4):
        world.limit("giver", replace(LIMITS, buffer_percent=5))
        seconds = seconds_to_give(world, vm)
        assert not turn or seconds <= blocks * UNPLUG_SECONDS / 0.95 + TICK
        assert not vm.virtio_mem.current
        world.limit("giver", LIMITS)
        while vm.virtio_mem.current < GIB:
            world.run(TICK)
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
