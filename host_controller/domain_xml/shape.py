"""How limits and a way to grow become sizes in a domain's XML. Pure arithmetic."""

from dataclasses import dataclass
from typing import Final

from host_controller.core.model import MEMORY_BLOCK_BYTES, Growth, Limits
from host_controller.units import MIB, round_down, round_up

SLOTS: Final = 16
"""DIMM slots. Each is one step of growth: 16 of the smallest DIMM (128 MiB) make 2 GiB, and where the way to
maximum is longer the DIMMs grow: with 16 slots the mean DIMM is 1/16 of maximum - startup, so any maximum
can be reached. An unused slot costs nothing; every DIMM plugged costs vhost a memory region, of which
kernels have 64 by default and vhost-user back ends 32."""

MOVABLE_RATIO: Final = 3
"""Movable memory per kernel memory, at most (fact: movable-ratio)."""

PAGE_STRUCTURE_SHARE: Final = 64
"""The page structures of memory are 1/64 of it (fact: page-structures-need-memory). With three times as much
movable memory that is 1/21 of boot RAM at most, so wherever a guest boots they find room."""

BOUNCE_BUFFER_BYTES: Final = 64 * MIB
"""Linux on a machine whose memory may reach beyond 4 GiB sets so much aside for devices that cannot
(swiotlb); it counts where memory may come to be, not where it is (fact: bounce-buffer)."""

SMALLEST_WITH_BOUNCE_BYTES: Final = 160 * MIB
"""The least RAM with which the lab's small guest boots beside that buffer (fact: bounce-buffer)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes in bytes."""

    startup: int
    """As asked for, rounded up to what the machine's pages allow."""
    boot: int
    """RAM without devices, spread over the NUMA cells."""
    reach: int
    """What it can grow to: maximum, as far as whole memory blocks lead."""
    ceiling: int
    """maxMemory; 0 without hot add."""
    device: int
    """The virtio-mem device; 0 without one."""
    slots: int


def shape_of(limits: Limits, growth: Growth, granule_bytes: int = MIB) -> Shape:
    """The sizes of a domain with these limits. Boot RAM is made of whole granules."""
    startup = round_up(limits.startup_bytes, granule_bytes)
    if growth is Growth.BALLOON:
        boot = round_up(limits.maximum_bytes, granule_bytes)
        return Shape(startup, boot, boot, 0, 0, 0)
    reach = startup + round_down(max(0, limits.maximum_bytes - startup), MEMORY_BLOCK_BYTES)
    ceiling = max(reach, startup + MEMORY_BLOCK_BYTES)  # libvirt wants room for one DIMM at least
    if growth is Growth.VIRTIO_MEM:
        return Shape(
            startup, startup, reach, ceiling, ceiling - startup, 1
        )  # it takes none; libvirt wants one
    return Shape(startup, startup, reach, ceiling, 0, SLOTS)
