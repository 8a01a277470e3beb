"""What the controller knows: immutable facts, each with the time at which it was true.

Nothing here decides, reads a clock or does I/O. Sizes are bytes, times are seconds of one
monotonic clock that the caller supplies. A VM is named by its UUID everywhere; names are for people.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from host_controller.units import MIB, format_size

MEMORY_BLOCK_BYTES: Final = 128 * MIB
"""Memory block of an x86 guest below 64 GiB; a guest that says otherwise is believed."""

VIRTIO_MEM_BLOCK_BYTES: Final = 2 * MIB
"""A huge page: the least that Linux on x86 takes and gives back, but see below."""

VIRTIO_MEM_STEP_BYTES: Final = 4 * MIB
"""The least that Linux 5.10 takes and gives back; it leaves what is less (fact: virtio-mem-in-four-mib)."""

SMALLEST_MINIMUM_BYTES: Final = 32 * MIB
LARGEST_MAXIMUM_BYTES: Final = 16 << 40
BUFFER_RANGE: Final = range(5, 2001)
WEIGHT_RANGE: Final = range(1, 10001)


class Growth(StrEnum):
    """How a VM gets memory beyond what it boots with."""

    HOTADD = "hotadd"
    """Boots with startup as RAM; DIMMs take it to maximum, the balloon down to minimum."""
    BALLOON = "balloon"
    """Boots with maximum as RAM and the balloon at startup."""
    VIRTIO_MEM = "virtio-mem"
    """Boots with as little RAM as works; one virtio-mem device covers the rest, of startup too."""


class Trust(StrEnum):
    """Whether a release that the guest claims may ever be spent."""

    GUEST = "guest"
    NONE = "none"


class RunState(StrEnum):
    """What the hypervisor says of the domain."""

    RUNNING = "running"
    PAUSED = "paused"
    CRASHED = "crashed"
    OFF = "off"


HOTADD, BALLOON, VIRTIO_MEM = Growth
RUNNING, PAUSED, CRASHED, OFF = RunState
UNTRUSTED: Final = Trust.NONE
"""For what is asked of every VM in every step: Python 3.11 takes 0.1 µs to look up `RunState.RUNNING`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The user's five settings for one VM."""

    startup_bytes: int
    minimum_bytes: int
    maximum_bytes: int
    buffer_percent: int = 20
    weight: int = 100

    def problems(self) -> list[str]:
        """Sentences about what is wrong with these limits; empty when they can be used."""
        found = [
            f"{name} is {format_size(size)}; at least {format_size(SMALLEST_MINIMUM_BYTES)} is allowed"
            for name, size in (("startup", self.startup_bytes), ("minimum", self.minimum_bytes))
            if size < SMALLEST_MINIMUM_BYTES
        ]
        if self.startup_bytes < self.minimum_bytes:
            found.append(
                f"startup ({format_size(self.startup_bytes)}) is below "
                f"minimum ({format_size(self.minimum_bytes)}); raise startup or lower minimum"
            )
        if self.maximum_bytes < self.startup_bytes:
            found.append(
                f"maximum ({format_size(self.maximum_bytes)}) is below "
                f"startup ({format_size(self.startup_bytes)}); raise maximum or lower startup"
            )
        if self.maximum_bytes > LARGEST_MAXIMUM_BYTES:
            found.append(
                f"maximum is {format_size(self.maximum_bytes)}; "
                f"at most {format_size(LARGEST_MAXIMUM_BYTES)} is allowed"
            )
        if self.buffer_percent not in BUFFER_RANGE:
            found.append(f"buffer is {self.buffer_percent} %; 5 to 2000 is allowed")
        if self.weight not in WEIGHT_RANGE:
            found.append(f"weight is {self.weight}; 1 to 10000 is allowed")
        return found


METADATA: Final = "metadata"
ADOPTED: Final = "adopted"
"""Where limits come from: `dynmem enable` wrote them into the domain, or `dynmem adopt` did while it ran.
Those of a rule are named as in the configuration, `rule[2]`."""


@dataclass(frozen=True, slots=True)
class VmConfig:
    """What a domain's XML says about its memory."""

    uuid: str
    name: str
    limits: Limits
    growth: Growth = Growth.HOTADD
    trust: Trust = Trust.GUEST
    boot_ram_bytes: int = 0
    """RAM without DIMMs and without virtio-mem."""
    slots: int = 0
    """DIMM slots, used ones included."""
    virtio_mem_bytes: int = 0
    """What the virtio-mem device can hold; 0 without one."""
    virtio_mem_block_bytes: int = VIRTIO_MEM_BLOCK_BYTES
    """The device is resized in multiples of this."""
    pinned: str | None = None
    """Why ballooned pages do not come back to the host (`VFIO`, `locked`, `huge pages`,
    `deflate-on-oom`), or None when they do."""
    huge_page_bytes: int | None = None
    """The size of the huge pages that its RAM lies in; 0: the host's default; None: ordinary memory."""
    source: str = METADATA
    """Where its limits come from."""
    defaults: tuple[tuple[str, str], ...] = ()
    """Limits that this source does not name, and where these come from: ("weight", "[defaults]")."""


@dataclass(frozen=True, slots=True)
class Dimm:
    """A DIMM that is plugged (pc-dimm), whoever plugged it."""

    alias: str
    size_bytes: int
    base_bytes: int | None
    """Guest-physical address; None until the hypervisor has said it."""


@dataclass(frozen=True, slots=True)
class BalloonStats:
    """The balloon driver's statistics: what an agentless guest is judged by."""

    total_bytes: int
    available_bytes: int
    """MemAvailable, never MemFree (fact: statistics-freeze)."""
    updated: int
    """The host's stamp of the driver's last answer; only its change means anything."""


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """One validated view of a guest's memory, from its agent's report or from balloon statistics.

    All fields were read together, so differences between them mean something.
    """

    at: float
    boot_id: str
    sequence: int
    from_agent: bool
    usable_bytes: int
    """RAM less ballooned less offline, by the guest's own count."""
    available_bytes: int
    free_bytes: int
    reclaimable_bytes: int
    total_bytes: int
    online_bytes: int
    offline_bytes: int
    movable_bytes: int
    floor_bytes: int
    """What the guest's kernel keeps free for itself (sum of high watermarks)."""
    swap_used_bytes: int = 0
    """On disk, less what is cached too: zram and cached swap cost no reads."""
    swap_in_bytes: int = 0
    """Counter since boot."""
    refault_bytes: int = 0
    """Counter since boot."""
    stall_us: int | None = None
    """PSI `some` total since boot; None without PSI."""
    least_usable_bytes: int = 0
    """Below it its kernel refuses memory, or a daemon kills, by a share of MemTotal (`guest_limits.py`)."""
    block_bytes: int = MEMORY_BLOCK_BYTES
    counted: bool = True
    """Its counters are of this moment; else they are none, or those of an earlier one."""
    swap_free_bytes: int = 0
    """On disk, by the guest's word: 0 where its agent does not say, and for zram, which is memory again."""

    @property
    def demand_bytes(self) -> int:
        """What the guest's work and its kernel hold, all from this one view."""
        used = self.usable_bytes - self.available_bytes
        return used if used > 0 else 0

    @property
    def kernel_bytes(self) -> int:
        """What the kernel took before anything was free: part of demand (fact: kernel-share)."""
        return max(0, self.usable_bytes - self.total_bytes)


@dataclass(frozen=True, slots=True)
class HugePool:
    """The host's huge pages of one size: reserved for whoever asks for them, and nobody's ordinary memory."""

    page_bytes: int
    total_bytes: int
    """All that there are, surplus ones included."""
    free_bytes: int
    """Neither in use nor promised to a mapping that has not touched them yet."""
    growable_bytes: int = 0
    """Surplus pages that the kernel may still make of ordinary memory (nr_overcommit_hugepages)."""


@dataclass(frozen=True, slots=True)
class Unmanaged:
    """A VM that runs on this libvirt and is not managed."""

    uuid: str
    name: str
    ordinary_bytes: int
    """RAM that it may take of the host's ordinary memory."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the host's own kernel says."""

    at: float
    total_bytes: int
    """MemTotal: what is online now, huge pages included."""
    available_bytes: int
    """What a new program can be given, what goes on demand (ZFS ARC) included."""
    vm_swap_bytes: int = 0
    """Pages of VMs that lie in host swap: an alarm, never a resource."""
    unmanaged_bytes: int = 0
    """RAM of this libvirt's VMs that are not managed, whole."""
    foreign_bytes: int = 0
    """What QEMUs hold that are not this libvirt's: another one's, Incus's, Proxmox's, a container's."""
    evictable_bytes: int = 0
    """The part of available_bytes that MemAvailable does not show."""
    ordinary_bytes: int | None = None
    """The part of total_bytes without huge pages and broken ones. None: not told."""
    others_bytes: int = 0
    """What everything but VMs uses; a fall counts fully after ten minutes."""
    pools: tuple[HugePool, ...] = ()
    default_huge_page_bytes: int | None = None
    """The size of the huge pages that who names no size gets. None: unknown."""
    limit_bytes: int | None = None
    """What a limit on a control group above the VMs leaves them; None without one."""
    limited_by: str = ""
    """That control group, for people."""
    psi_some_percent: float | None = None
    """/proc/pressure/memory, `some avg10`: share of the last 10 s in which somebody waited. None: unknown."""
    psi_full_percent: float | None = None
    """`full avg10`: in which nobody who could work did."""
    swap_in_bytes: int | None = None
    """Read from swap since boot, by anybody. None: unknown."""
    swap_out_bytes: int | None = None
    """Written to swap since boot, by anybody."""
    unread: tuple[tuple[str, str], ...] = ()
    """UUIDs of VMs whose resident memory cannot be read, with the reason: no release is believed."""
    unmanaged: tuple[Unmanaged, ...] = ()
    """Those of which unmanaged_bytes are."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The controller's part of the configuration that decisions depend on."""

    capacity_bytes: int
    """What VMs may cost in sum: as configured, or as the host was when it was worked out."""
    reserve_bytes: int = 0
    capacity_follows: bool = False
    """capacity_bytes is worked out anew from each reading of the host (books/capacity.py)."""
    reserve_follows: bool = False
    """So is reserve_bytes."""
    keep_ready_bytes: int | None = None
    """Memory kept free for bursts; None works it out from how fast demand grows."""
    shrink_after_seconds: float = 25.0
    """How long an excess must last before it is taken while nobody needs it (figures: docs/law.md)."""
    settle_seconds: float = 60.0
    """After boot nobody goes below startup for this long unless somebody needs it."""
    overhead_floor_bytes: int = 64 * MIB
    """What QEMU is taken to need for itself at the least, whatever was measured."""
    inflate_bytes_per_second: int = 128 * MIB
    """Assumed until it has been measured on a VM; bounds one shrinking command to a second's worth."""
    unplug_after_seconds: float = 600.0
    """How long a VM must have no use for a DIMM before it is taken out."""
    reset_wait_seconds: float = 20.0
    """How long a VM may stand still after a reset until there is room for all of its RAM."""
    rest_seconds: float = 30.0
    """A hot add or unplug that failed is tried again so much later, then after twice as much."""
    stale_seconds: float = 15.0
    """Guest facts older than this are not fresh: three missed heartbeats."""
    hang_seconds: float = 20.0
    """A guest with neither report nor balloon statistics for so long is charged all its RAM."""
