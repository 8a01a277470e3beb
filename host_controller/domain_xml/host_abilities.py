"""What is known of the host that a domain is for. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from host_controller.core.model import Growth
from host_controller.units import KIB

BALLOONED_PAGE_BYTES: Final = 4 * KIB
"""What a balloon counts in, whatever the machine (fact: host-pages-come-whole)."""
SINCE: Final = {Growth.VIRTIO_MEM: (7_009_000, 5_001_000), Growth.HOTADD: (1_002_014, 2_001_000)}
"""The first libvirt and QEMU that resize it while the guest runs, numbered as libvirt does."""
PROVEN_BY: Final = {
    Growth.VIRTIO_MEM: ("virtio-mem",),
    Growth.HOTADD: ("hot add", "online", "unplug"),
}
"""What `dynmem verify` calls the checks that it has to pass."""


@dataclass(frozen=True, slots=True)
class HostAbilities:
    """What is known of one host. What is not known is 0, None or empty."""

    libvirt: int = 0
    """1000000 * major + 1000 * minor + release."""
    qemu: int = 0
    memory_bytes: int | None = None
    """All of its RAM."""
    address_bits: int | None = None
    """Physical address bits of its processors."""
    page_bytes: int = BALLOONED_PAGE_BYTES
    """Of its kernel: QEMU gives whole ones back."""
    huge_page_bytes: int | None = None
    """The size of huge pages that whoever names none gets (default_hugepagesz)."""
    transparent_huge_page_bytes: int | None = None
    """2 MiB; where pages are of 16 or 64 KiB, as on some arm64, 32 or 512."""
    vfio_mappings: int | None = None
    """How many pieces of memory a VFIO device may map (dma_entry_limit of vfio_iommu_type1)."""
    reserves_all: bool = False
    """Its kernel lets nobody map memory that is not set aside for it (vm.overcommit_memory is 2)."""
    device_networks: frozenset[str] = frozenset()
    """Networks that hand out devices of the host."""
    passed: frozenset[str] | None = None
    """The checks that its burn-in passed; None where these versions had none."""

    def obstacles(self, growth: Growth) -> Iterator[str]:
        """Why this host cannot let a VM grow so, or is not known to."""
        since = SINCE.get(growth, (0, 0))
        for name, found, first in zip(("libvirt", "QEMU"), (self.libvirt, self.qemu), since, strict=True):
            if 0 < found < first:
                yield f"{name} {_text(found)} cannot resize it; {_text(first)} can"
        if self.passed is not None:
            for check in PROVEN_BY.get(growth, ()):
                if check not in self.passed:
                    yield f"`dynmem verify` did not pass {check!r} on this host"


NOTHING_KNOWN: Final = HostAbilities()


def _text(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}"
