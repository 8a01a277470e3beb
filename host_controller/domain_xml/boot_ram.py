"""How much a VM boots with where a virtio-mem device is the rest: as little as works. Pure arithmetic.

What lies above boot RAM leaves in whole blocks, so that the host's huge pages stay whole; what lies below
only a balloon can take, page by page. So boot RAM is no more than the guest's kernel cannot do without.
"""

from dataclasses import dataclass
from typing import Final

from host_controller.core.model import MEMORY_BLOCK_BYTES, Limits
from host_controller.units import GIB, MIB, format_size, round_down, round_up

MOVABLE_RATIO: Final = 3
"""Movable memory per kernel memory, at most (fact: movable-ratio)."""

PAGE_STRUCTURE_SHARE: Final = 64
"""The page structures of memory are 1/64 of it (fact: page-structures-need-memory)."""

BOUNCE_BUFFER_BYTES: Final = 64 * MIB
"""Linux on a machine whose memory may reach beyond 4 GiB sets so much aside for devices that cannot
(swiotlb); it counts where memory may come to be, not where it is (fact: bounce-buffer)."""

SMALLEST_WITH_BOUNCE_BYTES: Final = 160 * MIB
"""The least RAM with which the lab's small guest boots beside that buffer (fact: bounce-buffer)."""

LARGEST_WITHOUT_BOUNCE_BYTES: Final = 3 * GIB
"""RAM that all lies below 4 GiB, on x86: with no more, and no room for more, there is no such buffer."""

KERNEL_BYTES: Final = 256 * MIB
"""For a distribution's kernel, its initrd and all that runs before the agent (fact: boots-with). A user who
names a smaller startup has tried it: it stays all boot RAM."""


LARGE_BLOCKS_FROM_BYTES: Final = 60 * GIB
"""From 64 GiB on, the gap below 4 GiB included, Linux on x86 takes memory in larger blocks than of 128 MiB
where its RAM ends at a multiple of them (fact: large-memory-blocks)."""

LARGEST_BLOCK_BYTES: Final = 2 * GIB
GAP_BYTES: Final = GIB
"""That gap is a multiple of it."""

TOLERATED_BLOCK_BYTES: Final = 256 * MIB
"""QEMU lets a guest use so much of a virtio-mem device beyond what is asked for: with larger blocks none is
whole in what it may use."""


@dataclass(frozen=True, slots=True)
class BootRam:
    """Bytes, and why so many, in words."""

    size_bytes: int
    why: str


def boot_ram(
    limits: Limits,
    startup_bytes: int,
    set_aside_bytes: int = BOUNCE_BUFFER_BYTES,
    granule_bytes: int = MIB,
    *,
    cells: int = 1,
) -> BootRam:
    """The largest of minimum, what the kernel needs, and a quarter of maximum; never more than startup.

    set_aside_bytes: what it takes for good while it boots, the bounce buffer included. cells: of NUMA. Each
    has a granule at least (fact: no-empty-cell).

    With less than a quarter the rest could not all be movable, and leave again (fact: movable-ratio). Where
    startup itself is less, what is beyond 3:1 is for the guest's kernel, and stays where that uses it. Below
    startup boot RAM goes in whole memory blocks and granules, as the device must begin at one.
    """
    structures = limits.maximum_bytes // PAGE_STRUCTURE_SHARE
    least, why = max(
        (limits.minimum_bytes, "its minimum"),
        (
            KERNEL_BYTES + set_aside_bytes + structures,
            f"what its kernel may need to boot ({format_size(KERNEL_BYTES)}), sets aside "
            f"({format_size(set_aside_bytes)}) and needs to describe its maximum ({format_size(structures)})",
        ),
        (
            limits.maximum_bytes // (MOVABLE_RATIO + 1),
            f"a quarter of maximum, so that all the rest can be movable ({MOVABLE_RATIO}:1)",
        ),
        (cells * granule_bytes, "a page for each of its NUMA cells"),
    )
    step = max(MEMORY_BLOCK_BYTES, granule_bytes)
    above = round_down(max(0, startup_bytes - least), step)
    return BootRam(startup_bytes - above, why if above else "all of startup")


def largest_block_bytes(boot_bytes: int) -> int:
    """The largest memory block, bytes, that Linux on x86 may take where it boots with so much RAM."""
    if boot_bytes < LARGE_BLOCKS_FROM_BYTES:
        return MEMORY_BLOCK_BYTES
    if boot_bytes % GAP_BYTES == 0:
        return LARGEST_BLOCK_BYTES
    return max(MEMORY_BLOCK_BYTES, boot_bytes & -boot_bytes)  # the largest power of two that divides it


def with_small_blocks(
    boot: BootRam, maximum_bytes: int, tolerated_bytes: int = TOLERATED_BLOCK_BYTES
) -> BootRam:
    """A memory block more where the guest's kernel would else take larger ones than are tolerated; no more
    than maximum.
    """
    size = boot.size_bytes + MEMORY_BLOCK_BYTES
    if largest_block_bytes(boot.size_bytes) <= tolerated_bytes or size > maximum_bytes:
        return boot
    return BootRam(size, f"{boot.why}; and a block more, or its kernel would take memory 2 GiB at a time")


def least_startup_bytes(described_bytes: int, set_aside_bytes: int = BOUNCE_BUFFER_BYTES) -> int:
    """The least startup, bytes, with which a guest boots that memory can be added to.

    set_aside_bytes: as `boot_ram` has it.

    described_bytes: a maximum up to which what is added takes its page structures from what was there, as
    virtio-mem's does; 0: it brings them along, as DIMMs can. What comes movable is at most three times what
    the guest boots with, and what is beyond is for its kernel and describes itself.
    """
    boots = SMALLEST_WITH_BOUNCE_BYTES - BOUNCE_BUFFER_BYTES + set_aside_bytes
    for_all = -(-(boots * PAGE_STRUCTURE_SHARE + described_bytes) // (PAGE_STRUCTURE_SHARE + 1))
    for_movable = -(-boots * PAGE_STRUCTURE_SHARE // (PAGE_STRUCTURE_SHARE - MOVABLE_RATIO))
    return round_up(max(boots, min(for_all, for_movable)), MIB)


def least_ballooned_bytes(
    maximum_bytes: int, bounce_bytes: int, set_aside_bytes: int, page_structure_share: int
) -> int:
    """The least startup, bytes, of a guest that boots with all of its maximum, and has all above startup
    taken by its balloon as soon as that has a driver.

    It describes its maximum whatever the balloon holds: where that takes 1/64, 1 GiB for 64 GiB.

    set_aside_bytes: what its kernel takes for good beside the bounce buffer.
    """
    bounce = bounce_bytes if maximum_bytes > LARGEST_WITHOUT_BOUNCE_BYTES else 0
    kernel = SMALLEST_WITH_BOUNCE_BYTES - BOUNCE_BUFFER_BYTES
    return round_up(kernel + bounce + set_aside_bytes + maximum_bytes // page_structure_share, MIB)
