"""What is believed of a guest's words: a claim becomes facts, or a contradiction that is counted."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from agent import wire
from host_controller.core.model import BalloonStats, GuestFacts, VmConfig
from host_controller.core.vm.guest_limits import least_usable_bytes
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import GIB, MIB, round_down, round_up

BLOCK_SLACK: Final = 2
"""Memory blocks by which a guest may count more than its RAM: one partly filled at each end of the hole
below 4 GiB."""
RESTART_SECONDS: Final = 15.0
"""After so much silence a sequence that starts again is a new agent whose Hello was lost."""


SMALLEST_BLOCK_BYTES: Final = 16 * MIB
LARGEST_BLOCK_BYTES: Final = 2 * GIB
"""Memory blocks of Linux, a power of two: ppc64 has 16 MiB (SECTION_SIZE_BITS 24), x86-64 128 MiB to 2 GiB
(MIN_MEMORY_BLOCK_SIZE and MAX_BLOCK_SIZE), arm64 128 MiB, with pages of 64 KiB 512 MiB, before 5.12 1 GiB."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A report that cannot be true. It is dropped and counted under `kind`; nothing else follows from it."""

    kind: str
    detail: str


def is_block_size(untrusted_bytes: int) -> bool:
    """Whether some kernel has memory blocks of this size."""
    power_of_two = untrusted_bytes & (untrusted_bytes - 1) == 0
    return power_of_two and SMALLEST_BLOCK_BYTES <= untrusted_bytes <= LARGEST_BLOCK_BYTES


def facts_from_report(
    untrusted_report: wire.Report,
    *,
    config: VmConfig,
    ram_bytes: int,
    now: float,
    previous: GuestFacts | None,
    block_bytes: int = 128 * MIB,
    virtio_mem: VirtioMem | None = None,
    may_count_anew: bool = False,
) -> GuestFacts | Contradiction:
    """What is believed of a report, given what the hypervisor knows.

    `ram_bytes` is boot RAM plus DIMMs; `previous` the last facts accepted. `may_count_anew`: another agent
    may be speaking since, which counts from 0 again. Within one report:

    usable = RAM − offline − ballooned, where memory that was plugged and that the guest has not seen yet
    (online + offline < RAM) counts as offline. All but RAM is the guest's own count of the same instant,
    so that usable − available means something; it is refused where it contradicts the hypervisor.

    With `virtio_mem` what is plugged comes on top. Then memory blocks may be plugged in part, so their number
    says little, and QEMU's word of the size is up to a second old; MemTotal says it to the page. So once we
    know what the kernel took at boot, usable = MemTotal + that. Until then what is missing in the blocks is
    taken to be missing in those that are offline: demand is rather too large than too small.
    """
    report = untrusted_report
    block = max(block_bytes, MIB)
    seen = report.online_bytes + report.offline_bytes
    room = _room(config, ram_bytes, virtio_mem, seen, now)
    if (found := _impossible(report, room, block)) is not None:
        return found
    previous = _comparable(previous, report)
    if not may_count_anew and (found := _late(report, previous, now)) is not None:
        return found
    all_seen = seen >= room.plugged_bytes or not seen
    online = max(0, room.plugged_bytes - report.offline_bytes) if all_seen else report.online_bytes
    usable = online - report.ballooned_bytes
    if virtio_mem is not None:
        if previous is not None and (report.offline_bytes or not virtio_mem.steady(now)):
            # Not bounded by what may be true, which may lag behind: the kernel would seem to have taken less
            # from now on.
            usable = report.total_bytes + previous.kernel_bytes
        elif all_seen:
            usable += _missing_in_blocks(report, config.boot_ram_bytes, room.plugged_bytes, block)
    if usable + block < report.total_bytes:
        return Contradiction("total-above-usable", f"{report.total_bytes} of {usable} usable bytes")
    if usable < report.total_bytes:
        # The hypervisor's word is the older one, and what the kernel took stays.
        usable = report.total_bytes + (0 if previous is None else previous.kernel_bytes)
    return GuestFacts(
        at=now,
        boot_id=report.boot_id_prefix,
        sequence=report.sequence,
        from_agent=True,
        usable_bytes=usable,
        available_bytes=report.available_bytes,
        free_bytes=report.free_bytes,
        reclaimable_bytes=report.reclaimable_bytes,
        total_bytes=report.total_bytes,
        online_bytes=min(report.online_bytes, room.largest_bytes) if seen else room.plugged_bytes,
        offline_bytes=min(room.plugged_bytes - online, room.plugged_bytes),
        movable_bytes=min(report.movable_bytes, room.largest_bytes),
        # More than a quarter is no watermark: min_free_kbytes itself is refused above 5 %.
        floor_bytes=min(report.floor_bytes, room.plugged_bytes // 4),
        swap_used_bytes=max(0, report.swap_disk_used_bytes - report.swap_cached_bytes),
        swap_free_bytes=report.swap_disk_free_bytes,
        swap_in_bytes=report.swap_in_pages * report.page_bytes,
        refault_bytes=report.refault_pages * report.page_bytes,
        stall_us=report.psi_some_total_us,
        least_usable_bytes=least_usable_bytes(report, usable),
        block_bytes=block,
    )


def counts_back(untrusted_report: wire.Report, previous: GuestFacts | None) -> bool:
    """Its number is none that the agent of the last facts would send next."""
    last = _comparable(previous, untrusted_report)
    return last is not None and untrusted_report.sequence <= last.sequence


def _late(untrusted_report: wire.Report, previous: GuestFacts | None, now: float) -> Contradiction | None:
    """A report of before the last one, unless that is so long ago that another agent may count."""
    if previous is None or untrusted_report.sequence > previous.sequence:
        return None
    if now - previous.at >= RESTART_SECONDS:
        return None
    return Contradiction("sequence-back", f"{untrusted_report.sequence} after {previous.sequence}")


def _comparable(previous: GuestFacts | None, untrusted_report: wire.Report) -> GuestFacts | None:
    """None where the last facts are of another kernel, or of its balloon's driver."""
    if previous is None or not previous.from_agent:
        return None
    return previous if untrusted_report.boot_id_prefix == previous.boot_id else None


def _missing_in_blocks(untrusted_report: wire.Report, boot: int, plugged: int, block: int) -> int:
    """What its memory blocks overstate, taken to be missing in those that are offline."""
    seen = untrusted_report.online_bytes + untrusted_report.offline_bytes
    missing = max(0, seen - plugged - (round_up(boot, block) - boot))
    return min(missing, untrusted_report.offline_bytes)


class _Room(NamedTuple):
    """What a guest may have, by the hypervisor's word. Sizes are bytes, virtio-mem included."""

    plugged_bytes: int
    """What is plugged now."""
    most_bytes: int
    """Where the hypervisor's word is old."""
    largest_bytes: int
    """Ever: memory blocks may be plugged in part, so that their number overstates what is there."""


def _room(config: VmConfig, ram_bytes: int, virtio_mem: VirtioMem | None, seen: int, now: float) -> _Room:
    if virtio_mem is None:
        return _Room(ram_bytes, ram_bytes, ram_bytes)
    most = ram_bytes + virtio_mem.may_hold_bytes
    plugged = ram_bytes + virtio_mem.current_bytes
    if not virtio_mem.steady(now):
        plugged = min(most, max(plugged, seen))
        # What was asked back and is in none of its memory blocks any more is not still to come: it has left.
        plugged = min(plugged, max(ram_bytes + virtio_mem.requested_bytes, seen))
    return _Room(plugged, most, max(most, ram_bytes + config.virtio_mem_bytes))


def _impossible(untrusted_report: wire.Report, room: _Room, block: int) -> Contradiction | None:
    """More than there can be."""
    report = untrusted_report
    seen = report.online_bytes + report.offline_bytes
    for kind, value, limit in (
        ("total-above-ram", report.total_bytes, room.most_bytes),
        ("ballooned-above-ram", report.ballooned_bytes, room.most_bytes),
        ("blocks-above-ram", seen, round_up(room.largest_bytes, block) + BLOCK_SLACK * block),
    ):
        if value > limit:
            return Contradiction(kind, f"{value} bytes; {limit} at most can be true")
    return None


def kernel_estimate_bytes(ram_bytes: int) -> int:
    """What a kernel may keep for itself at boot, rather too much than too little.

    512 MiB lose 108 MiB (fact: kernel-share): image and initrd weigh the same in every guest, memmap is
    1/64 of RAM.
    """
    return 96 * MIB + min(ram_bytes // 16, GIB)


def facts_from_stats(
    stats: BalloonStats,
    *,
    config: VmConfig,
    ram_bytes: int,
    actual_bytes: int,
    now: float,
    sequence: int,
    kernel_bytes: int | None = None,
    block_bytes: int = 128 * MIB,
    unseen_bytes: int = 0,
) -> GuestFacts | Contradiction:
    """What an agentless guest's balloon statistics say.

    usable = actual − offline, or what its kernel counts and has at the least been seen to keep, where its
    driver claims less. The driver does not know what is offline: it is estimated as the part of
    actual − total that the kernel (`kernel_bytes`: the smallest such difference ever seen before a plug,
    else an estimate) does not explain, in whole memory blocks, and never more than was plugged. Rather too
    little: what is taken for offline does not count as demand. `unseen_bytes`: what a virtio-mem device may
    have plugged since QEMU last told its size.
    """
    if stats.total_bytes > ram_bytes + unseen_bytes:
        return Contradiction("total-above-ram", f"{stats.total_bytes} of {ram_bytes} bytes of RAM")
    if stats.available_bytes > stats.total_bytes:
        return Contradiction("available-above-total", f"{stats.available_bytes} of {stats.total_bytes} bytes")
    if stats.total_bytes == 0:
        return Contradiction("no-total", "the driver has not answered yet")
    actual = min(actual_bytes, ram_bytes)
    kernel = kernel_estimate_bytes(config.boot_ram_bytes) if kernel_bytes is None else kernel_bytes
    plugged = max(0, ram_bytes - config.boot_ram_bytes)
    unexplained = max(0, actual - stats.total_bytes - kernel)
    offline = min(plugged, round_down(unexplained, block_bytes))
    usable = max(actual - offline, min(stats.total_bytes + (kernel_bytes or 0), ram_bytes + unseen_bytes))
    return GuestFacts(
        at=now,
        boot_id="",
        sequence=sequence,
        from_agent=False,
        usable_bytes=usable,
        available_bytes=stats.available_bytes,
        free_bytes=0,
        reclaimable_bytes=0,
        total_bytes=stats.total_bytes,
        online_bytes=ram_bytes - offline,
        offline_bytes=offline,
        movable_bytes=0,
        floor_bytes=0,
        block_bytes=block_bytes,
        counted=False,
    )
