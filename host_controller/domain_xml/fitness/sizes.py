"""Checks of sizes: pages, limits of libvirt's, and whether the guest still boots."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from xml.dom.minidom import Element as Node
from xml.etree.ElementTree import Element

from host_controller.core.model import MEMORY_BLOCK_BYTES, VIRTIO_MEM_BLOCK_BYTES, Growth
from host_controller.domain_xml.arguments import Argument, passed, passed_size
from host_controller.domain_xml.boot_ram import (
    PAGE_STRUCTURE_SHARE,
    least_ballooned_bytes,
    least_startup_bytes,
)
from host_controller.domain_xml.dom import child, create, elements, insert, remove, set_content
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut, with_limits
from host_controller.domain_xml.huge_pages import huge_page_size
from host_controller.domain_xml.set_aside import set_aside
from host_controller.domain_xml.values import architecture_of, name_of, size_from, size_of, target_size
from host_controller.neutral import shell_word
from host_controller.units import GIB, KIB, MIB, format_apart, format_size, round_down, round_up

QEMU_BYTES: Final = 256 * MIB
"""What QEMU takes beside guest RAM, at most, without what follows."""
PAGE_TABLE_SHARE: Final = 256
"""One part in so many of guest RAM: 8 bytes for each page of 4 KiB, in QEMU's page tables and in KVM's."""
TRANSLATION_CACHE_BYTES: Final = GIB
"""QEMU's default without KVM."""
WITHOUT_BOUNCE: Final = ("ppc64", "s390")
"""Whose devices reach all memory."""
WITH_LARGE_PAGES: Final = "ppc64"
"""Whose distributions have kernels with pages of 64 KiB alone; what describes a page is as large as ever."""
LARGER_PAGES: Final = 16
VIDEO_MEMORY: Final = ("vram", "ram", "vram64")
DEFAULT_SHMEM_BYTES: Final = 4 * MIB
RAM_MODELS: Final = ("dimm", "virtio-mem")
MEMTUNE: Final = ("hard_limit", "swap_hard_limit", "soft_limit")
"""What strikes: the first two kill, the third is memory.high, which stalls QEMU and swaps it out."""


@dataclass(frozen=True, slots=True)
class TooTight:
    """A limit of libvirt's below what a VM can come to take."""

    name: str
    limit_bytes: int
    needed_bytes: int

    @property
    def words(self) -> str:
        """Which it is, for people."""
        return f"its memtune {self.name}" if self.name in MEMTUNE else self.name

    @property
    def remedy(self) -> str:
        """What raises it, as the end of a sentence."""
        return (
            "`virsh memtune` raises that" if self.name in MEMTUNE else "`systemctl set-property` raises that"
        )

    @property
    def option(self) -> str:
        """The option of `virsh memtune` that changes it."""
        return f"--{self.name.replace('_', '-')}"


def page_size(request: Request) -> Refusal | None:
    """A DIMM is made of whole pages."""
    page = request.page_bytes
    if request.growth is Growth.BALLOON or not page or MEMORY_BLOCK_BYTES % page == 0:
        return None
    return Refusal(
        f"its huge pages of {format_size(page)} are larger than what memory grows by "
        f"({format_size(MEMORY_BLOCK_BYTES)})",
        (
            WayOut("write <page size='2' unit='MiB'/> into <hugepages> with virsh edit", edit=_small_pages),
            WayOut("take <hugepages> out", edit=_no_pages),
        ),
        other_growth=True,
    )


def smallest_block(request: Request) -> Refusal | None:
    """Libvirt takes the device: its blocks are no smaller than the host's transparent huge pages
    (virDomainMemoryDefValidate).
    """
    least = request.host.transparent_huge_page_bytes or 0
    if request.growth is not Growth.VIRTIO_MEM or least <= VIRTIO_MEM_BLOCK_BYTES:
        return None
    return Refusal(
        f"libvirt takes no virtio-mem whose blocks are smaller than this host's transparent huge pages of "
        f"{format_size(least)}, and those of dynmem are of {format_size(VIRTIO_MEM_BLOCK_BYTES)}",
        other_growth=True,
    )


def boots(request: Request) -> Refusal | None:
    """The guest boots with what the bounce buffer and the page structures of its growth leave."""
    if request.growth is Growth.BALLOON:
        return _ballooned(request)
    limits, aside = request.limits, set_aside(request.root, request.limits.startup_bytes)
    describes = limits.maximum_bytes if request.growth is Growth.VIRTIO_MEM else 0
    least = least_startup_bytes(describes, aside.total)
    if limits.startup_bytes >= least:
        return None
    maximum = max(limits.maximum_bytes, least)
    return Refusal(
        f"it would not boot with a startup of {format_size(limits.startup_bytes)}: where memory can be "
        f"hot-added Linux sets {format_size(aside.bounce)} aside for old devices{aside.words}"
        + (", and it must describe what it grows by" if describes else ""),
        (
            with_limits(
                request, f"give --startup {least // MIB}M or more", startup_bytes=least, maximum_bytes=maximum
            ),
        ),
        other_growth=True,
    )


def _ballooned(request: Request) -> Refusal | None:
    """Startup is more than what the kernel itself has taken by the time at which its balloon inflates."""
    limits, aside = request.limits, set_aside(request.root, request.limits.maximum_bytes)
    share, arch = PAGE_STRUCTURE_SHARE, architecture_of(request.root)
    bounce = 0 if arch.startswith(WITHOUT_BOUNCE) else aside.bounce
    if arch.startswith(WITH_LARGE_PAGES):
        share *= LARGER_PAGES
    least = least_ballooned_bytes(limits.maximum_bytes, bounce, aside.beside_bounce, share)
    if limits.startup_bytes >= min(least, limits.maximum_bytes):
        return None
    maximum = max(limits.maximum_bytes, least)
    return Refusal(
        f"a startup of {format_size(limits.startup_bytes)} would leave it nothing: by balloon it boots with "
        f"{format_size(limits.maximum_bytes)}, and describing that takes "
        f"{format_size(limits.maximum_bytes // share)}{aside.words}",
        (
            with_limits(
                request, f"give --startup {least // MIB}M or more", startup_bytes=least, maximum_bytes=maximum
            ),
        ),
        other_growth=True,
    )


def memtune(request: Request) -> Refusal | None:
    """No limit strikes on the way to maximum, from its next start on."""
    return _memtune(request, "raise it (virsh memtune {} --config {})")


def memtune_of_what_runs(request: Request) -> Refusal | None:
    """No limit strikes the running VM on the way to maximum."""
    return _memtune(
        request, "raise it (virsh memtune {} --live {}; the same with --config for its next start)"
    )


def _memtune(request: Request, say: str) -> Refusal | None:
    """say: how it is raised, with places for the limits and for the name."""
    limits = request.limits
    tight = tight_limits(request.root, limits.maximum_bytes)
    if not tight:
        return None
    first = tight[0]
    beside = first.needed_bytes - limits.maximum_bytes
    has, needs = format_apart(first.limit_bytes, first.needed_bytes)
    # All at once: libvirt wants hard_limit to be at most swap_hard_limit.
    options = " ".join(f"{one.option} {one.needed_bytes // KIB}" for one in tight)
    ways = [
        WayOut(
            say.format(options, shell_word(name_of(request.root))),
            edit=lambda domain: _raise_limits(domain, tight),
        )
    ]
    room = most_within(request.root, tight)
    if room >= limits.startup_bytes:
        ways.append(with_limits(request, f"lower --maximum to {room // MIB}M", maximum_bytes=room))
    return Refusal(
        f"its memtune {first.name} is {has}; a maximum of {format_size(limits.maximum_bytes)} needs {needs}, "
        f"with the {format_size(beside)} that QEMU may take for itself",
        tuple(ways),
    )


def tight_limits(
    root: Element, maximum_bytes: int, others: Mapping[str, int] | None = None
) -> list[TooTight]:
    """The memtune limits that a VM of this maximum can run into, QEMU's own memory included, and others by
    their names. RAM in huge pages does not count in them (mm/hugetlb.c).
    """
    if huge_page_size(root) is not None:
        return []
    needed = round_up(maximum_bytes + beside_ram(root, maximum_bytes), MIB)
    limits = {name: size_of(root.find(f"./memtune/{name}")) for name in MEMTUNE} | dict(others or {})
    return [TooTight(name, limit, needed) for name, limit in limits.items() if 0 < limit < needed]


def beside_ram(root: Element, maximum_bytes: int) -> int:
    """What QEMU takes beside guest RAM, at most: its own, page tables, video memory, what it shares with
    others, memory devices that are no RAM, and without KVM its translation cache. DIMMs and virtio-mem are in
    the maximum.
    """
    video = sum(
        size_of_kib(one, name) for one in root.findall("./devices/video/model") for name in VIDEO_MEMORY
    )
    shared = sum(_shared_bytes(one) for one in root.findall("./devices/shmem"))
    shared += sum(_backend_bytes(one) for one in passed(root) if one.option == "object")
    devices = sum(
        target_size(one, "size")
        for one in root.findall("./devices/memory")
        if one.get("model") not in RAM_MODELS
    )
    cache = size_of(root.find("./features/tcg/tb-cache"))
    if root.get("type") == "qemu" and not cache:
        cache = TRANSLATION_CACHE_BYTES
    return QEMU_BYTES + maximum_bytes // PAGE_TABLE_SHARE + video + shared + devices + cache


def _backend_bytes(one: Argument) -> int:
    """Of memory that is made past libvirt, for a device or for nobody yet. None of it is the guest's RAM."""
    return passed_size(one.get("size")) if one.kind.startswith("memory-backend-") else 0


def _shared_bytes(shmem: Element) -> int:
    """Whoever touches it first pays for it. libvirt takes bytes where no unit is named, and 4 MiB without a
    size.
    """
    size = shmem.find("size")
    return DEFAULT_SHMEM_BYTES if size is None else size_from(size.text, size.get("unit", "b"))


def size_of_kib(element: Element, attribute: str) -> int:
    """Bytes of an attribute in KiB without a unit, as video memory is written."""
    text = element.get(attribute, "0")
    return int(text) * KIB if text.isdecimal() and len(text) < 12 else 0


def most_within(root: Element, tight: list[TooTight]) -> int:
    """The largest maximum, bytes, for which all of these limits are enough."""
    return min(_maximum_within(root, one.limit_bytes) for one in tight)


def _maximum_within(root: Element, limit_bytes: int) -> int:
    """The largest maximum for which this limit is enough."""
    fixed = beside_ram(root, 0)
    return round_down((limit_bytes - fixed) * PAGE_TABLE_SHARE // (PAGE_TABLE_SHARE + 1) - MIB, MIB)


def _raise_limits(domain: Node, tight: list[TooTight]) -> None:
    for one in tight:
        limit = child(child(domain, "memtune"), one.name)
        if limit is not None:
            limit.setAttribute("unit", "KiB")
            set_content(limit, str(one.needed_bytes // KIB))


def _small_pages(domain: Node) -> None:
    huge = child(child(domain, "memoryBacking"), "hugepages")
    if huge is not None and not elements(huge, "page"):  # it leaves the size to the host
        insert(huge, create(huge, "page"))
    for page in elements(huge, "page"):
        page.setAttribute("size", "2")
        page.setAttribute("unit", "MiB")


def _no_pages(domain: Node) -> None:
    backing = child(domain, "memoryBacking")
    remove(child(backing, "hugepages"))
    if not elements(backing):
        remove(backing)
