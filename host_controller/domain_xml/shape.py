"""How limits and a way to grow become sizes in a domain's XML. Pure."""

from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.core.model import MEMORY_BLOCK_BYTES, Growth, Limits
from host_controller.domain_xml.arguments import passed
from host_controller.domain_xml.boot_ram import (
    BOUNCE_BUFFER_BYTES,
    BootRam,
    boot_ram,
    with_small_blocks,
)
from host_controller.units import MIB, round_down, round_up

SLOTS: Final = 16
"""DIMM slots. Each is one step of growth: 16 of the smallest DIMM (128 MiB) make 2 GiB, and where the way to
maximum is longer the DIMMs grow: with 16 slots the mean DIMM is 1/16 of maximum - startup, so any maximum
can be reached. An unused slot costs nothing; every DIMM plugged costs vhost a memory region, of which
kernels have 64 by default and most vhost-user back ends 32 or more."""
SLOTS_OF_FEW_REGIONS: Final = 4
"""Beside a back end that takes 8 (fact: eight-regions), of which what it boots with has up to three."""
OF_VHOST_USER: Final = ("interface", "disk")
"""Devices that such back ends serve: OVS with DPDK, SPDK."""
PASSED_VHOST_USER: Final = {"netdev": ("vhost-user",), "device": ("vhost-user-blk", "vhost-user-scsi")}
"""The same where they are passed to QEMU past libvirt."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes in bytes."""

    startup: int
    """As asked for, rounded up to what the machine's pages allow."""
    boot: int
    """RAM without devices, spread over the NUMA cells: startup, or less where virtio-mem is the rest."""
    reach: int
    """What it can grow to: maximum, as far as whole memory blocks lead."""
    ceiling: int
    """maxMemory; 0 without hot add."""
    device: int
    """The virtio-mem device; 0 without one."""
    slots: int
    why: str = ""
    """Why it boots with so much by virtio-mem, in words."""


def of_few_regions(root: Element) -> bool:
    """A process beside QEMU maps its RAM, in few pieces."""
    return any(root.find(f"./devices/{one}[@type='vhostuser']") is not None for one in OF_VHOST_USER) or any(
        one.kind.startswith(PASSED_VHOST_USER.get(one.option, ())) for one in passed(root)
    )


def shape_of(
    limits: Limits,
    growth: Growth,
    granule_bytes: int = MIB,
    set_aside_bytes: int = BOUNCE_BUFFER_BYTES,
    *,
    cells: int = 1,
    huge: bool = False,
    few_regions: bool = False,
    large_blocks: bool = False,
) -> Shape:
    """The sizes of a domain with these limits. Boot RAM is made of whole granules, one for each NUMA cell at
    least.

    set_aside_bytes: as `boot_ram` has it. huge: its RAM lies in huge pages, so that nobody moves it and it
    would never be given the rest of startup. few_regions: another process maps its RAM, in few pieces.
    large_blocks: its kernel may take large memory blocks, by where its RAM ends.
    """
    startup = max(round_up(limits.startup_bytes, granule_bytes), cells * granule_bytes)
    if growth is Growth.BALLOON:
        boot = round_up(limits.maximum_bytes, granule_bytes)
        return Shape(startup, boot, boot, 0, 0, 0)
    if growth is Growth.VIRTIO_MEM:
        chosen = boot_ram(limits, startup, set_aside_bytes, granule_bytes, cells=cells)
        if huge:
            chosen = BootRam(startup, "all of startup, since nobody moves huge pages")
        elif large_blocks:
            chosen = with_small_blocks(chosen, limits.maximum_bytes)
        boot = chosen.size_bytes
        startup = max(startup, boot)
        reach = _reach(startup, limits)
        ceiling = max(reach, boot + MEMORY_BLOCK_BYTES)  # there is no device of nothing
        # It takes no slot; libvirt wants one.
        return Shape(startup, boot, reach, ceiling, ceiling - boot, 1, chosen.why)
    if large_blocks and not huge:  # of a DIMM that is no multiple of them nothing comes online
        startup = with_small_blocks(BootRam(startup, ""), limits.maximum_bytes, MEMORY_BLOCK_BYTES).size_bytes
    reach = _reach(startup, limits)
    ceiling = max(reach, startup + MEMORY_BLOCK_BYTES)  # libvirt wants room for one DIMM at least
    return Shape(startup, startup, reach, ceiling, 0, SLOTS_OF_FEW_REGIONS if few_regions else SLOTS)


def _reach(startup_bytes: int, limits: Limits) -> int:
    return startup_bytes + round_down(max(0, limits.maximum_bytes - startup_bytes), MEMORY_BLOCK_BYTES)
