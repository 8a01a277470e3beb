"""What a domain's XML says about its memory. Pure; domain_edit.py beside it changes the XML.

Our part of it is one element in <metadata>, in sizes of KiB:

    <dynmem:vm xmlns:dynmem="urn:dynmem:domain:1" growth="hotadd" trust="guest"
               startup="1048576" minimum="262144" maximum="4194304" buffer="20" weight="100">
      <before>…</before>
    </dynmem:vm>

`before` is what `disable` puts back. Its children have no namespace, because libvirt gives ours
only to the root of what virDomainSetMetadata is handed.
"""

from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from agent import wire
from host_controller.core.model import VIRTIO_MEM_BLOCK_BYTES, Dimm, Growth, Limits, Trust, VmConfig
from host_controller.errors import DomainUnsuitable
from host_controller.units import KIB, format_size

NAMESPACE: Final = "urn:dynmem:domain:1"
PREFIX: Final = "dynmem"
TAG: Final = f"{{{NAMESPACE}}}vm"

_UNIT_BYTES: Final[dict[str, int]] = {
    "b": 1,
    "bytes": 1,
    **{name: 1 << shift for shift, letter in ((10, "k"), (20, "m"), (30, "g"), (40, "t"))
       for name in (letter, f"{letter}ib")},
    **{f"{letter}b": 1000**power for power, letter in ((1, "k"), (2, "m"), (3, "g"), (4, "t"))},
}  # fmt: skip

NO_BALLOON: Final = "no balloon"

NO_HOT_ADD: Final = ("microvm", "isapc", "xenfv", "xenpv", "s390-ccw", "none")
"""Machine types without pc-dimm slots (ACPI memory hot plug)."""

LARGEST_ORDINARY_PAGE_BYTES: Final = 64 * KIB
"""A kernel's own page size is no huge page to libvirt: 4 KiB, on some machines 16 or 64."""
MOST_NODES: Final = 1024


@dataclass(frozen=True, slots=True)
class Ours:
    """Our element of <metadata>."""

    limits: Limits
    growth: Growth
    trust: Trust


@dataclass(frozen=True, slots=True)
class DomainView:
    """A domain's memory, managed or not."""

    uuid: str
    name: str
    config: VmConfig | None
    """None when the domain is not ours."""
    problems: tuple[str, ...]
    machine: str
    boot_ram_bytes: int
    ram_blocks: tuple[int, ...]
    """Sizes of the mappings that QEMU makes for guest RAM: cells, DIMMs, virtio-mem."""
    dimms: tuple[Dimm, ...]
    actual_bytes: int
    ceiling_bytes: int
    """maxMemory; boot RAM where there is none."""
    virtio_mem_bytes: int
    """Plugged."""
    virtio_mem_requested_bytes: int
    channel_alias: str | None
    """Alias of our channel; None when the domain has none."""
    stats_period: int
    huge_page_bytes: int | None = None
    """As VmConfig.huge_page_bytes; known of unmanaged domains too."""
    owner: int | None = None
    """User id as which libvirt runs its QEMU; None where the XML does not say it."""

    @property
    def ram_bytes(self) -> int:
        """All that the guest could touch."""
        return self.boot_ram_bytes + sum(one.size_bytes for one in self.dimms) + self.virtio_mem_bytes


def read_domain(xml: str, persistent_xml: str | None = None) -> DomainView:
    """The view of a domain; `persistent_xml` is asked for our metadata when the live XML has none.

    Raises:
        DomainUnsuitable: not a domain's XML.
    """
    root = parse_xml(xml)
    uuid = _text(root, "uuid")
    name = _text(root, "name")
    problems: list[str] = []
    ours = _find_ours(root, problems)
    if ours is None and persistent_xml is not None:
        ours = _find_ours(parse_xml(persistent_xml), problems)
    devices = root.findall("./devices/memory")
    dimms = tuple(
        Dimm(_alias(one), _target_size(one, "size"), _base(one))
        for one in devices
        if one.get("model") == "dimm"
    )
    virtio = [one for one in devices if one.get("model") == "virtio-mem"]
    cells = [size_of(one, attribute="memory") for one in root.findall("./cpu/numa/cell")]
    modules = sum(_target_size(one, "size") for one in devices)
    memory = size_of(root.find("memory"))
    boot = sum(cells) if cells else max(0, memory - modules)
    maximum = root.find("maxMemory")
    balloon = root.find("./devices/memballoon")
    channel_alias = _channel_alias(root)
    plugged = sum(_target_size(one, "current") for one in virtio)
    # libvirt adds what virtio-mem has plugged, as far as it has noticed.
    current = size_of(root.find("currentMemory")) or memory
    config = None
    if ours is not None:
        config = VmConfig(
            uuid=uuid,
            name=name,
            limits=ours.limits,
            growth=ours.growth,
            trust=ours.trust,
            boot_ram_bytes=boot,
            slots=_integer(maximum, "slots"),
            virtio_mem_bytes=sum(_target_size(one, "size") for one in virtio),
            virtio_mem_block_bytes=max(
                (_target_size(one, "block") for one in virtio), default=VIRTIO_MEM_BLOCK_BYTES
            ),
            pinned=pinned_by(root),
            huge_page_bytes=huge_page_size(root),
        )
        if channel_alias is None:
            problems.append(f"there is no channel {wire.PORT_NAME}: no agent can be heard")
        if config.pinned == NO_BALLOON:
            problems.append(
                "there is no memory balloon: it is charged all of its RAM; "
                "run `dynmem enable` again while it is off"
            )
        if ours.growth is Growth.HOTADD and not config.slots:
            problems.append("there are no DIMM slots: it cannot grow past its boot RAM")
        if ours.growth is Growth.VIRTIO_MEM and len(virtio) != 1:
            problems.append(
                f"there are {len(virtio)} virtio-mem devices where one is needed; run `dynmem enable` again"
            )
    return DomainView(
        uuid=uuid,
        name=name,
        config=config,
        problems=tuple(problems),
        machine=machine_of(root),
        boot_ram_bytes=boot,
        ram_blocks=(
            *(cells or [boot]),
            *(one.size_bytes for one in dimms),
            *(_target_size(one, "size") for one in virtio),
        ),
        dimms=dimms,
        actual_bytes=min(boot + sum(one.size_bytes for one in dimms), max(0, current - plugged)),
        ceiling_bytes=size_of(maximum) or boot,
        virtio_mem_bytes=plugged,
        virtio_mem_requested_bytes=sum(_target_size(one, "requested") for one in virtio),
        channel_alias=channel_alias,
        stats_period=_integer(None if balloon is None else balloon.find("stats"), "period"),
        huge_page_bytes=huge_page_size(root),
        owner=_owner(root),
    )


def unread_domain(uuid: str, name: str, ram_bytes: int) -> DomainView:
    """The view of a domain whose XML cannot be read: unmanaged, and charged with its RAM."""
    return DomainView(
        uuid=uuid,
        name=name,
        config=None,
        problems=("its definition cannot be read: it is counted with all of its RAM, and not managed",),
        machine="",
        boot_ram_bytes=ram_bytes,
        ram_blocks=(ram_bytes,),
        dimms=(),
        actual_bytes=ram_bytes,
        ceiling_bytes=ram_bytes,
        virtio_mem_bytes=0,
        virtio_mem_requested_bytes=0,
        channel_alias=None,
        stats_period=0,
    )


def parse_xml(xml: str) -> Element:
    """The <domain> element."""
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314 # libvirt's XML, not a guest's
    except ElementTree.ParseError as error:
        raise DomainUnsuitable(f"this is not XML: {error}") from None
    if root.tag != "domain":
        raise DomainUnsuitable(f"this is a <{root.tag}>, not a <domain>")
    return root


def pinned_by(root: Element) -> str | None:
    """Why memory taken by the balloon would stay with QEMU, or None."""
    if root.find("./launchSecurity") is not None:
        return "encrypted memory"
    if root.find("./devices/hostdev[@type='pci']") is not None:
        return "VFIO"
    if root.find("./devices/hostdev[@type='mdev']") is not None:
        return "VFIO"
    if any(one.get("type") in ("hostdev", "vdpa") for one in root.findall("./devices/interface")):
        return "VFIO"
    if root.find("./memoryBacking/locked") is not None:
        return "locked"
    if root.find("./memoryBacking/hugepages") is not None:
        return "huge pages"
    balloon = root.find("./devices/memballoon")
    if balloon is None or balloon.get("model") == "none":
        return NO_BALLOON
    if balloon.get("autodeflate") == "on":
        return "deflate-on-oom"
    return None


def huge_page_size(root: Element) -> int | None:
    """The size of the huge pages that all guest RAM lies in; 0: the host's default size; None: in none.

    None also where only a part lies in huge pages, or parts in several sizes: such a VM is charged as if all
    of it were ordinary memory, which is rather too much than too little.
    """
    huge = root.find("./memoryBacking/hugepages")
    if huge is None:
        return None
    pages = huge.findall("page")
    if not pages:
        return 0
    sizes = {size_of(one, attribute="size") for one in pages}
    cells = len(root.findall("./cpu/numa/cell"))
    whole = any(one.get("nodeset") is None for one in pages) or _all_nodes(pages, cells)
    if len(sizes) > 1 or not whole or not max(sizes) > LARGEST_ORDINARY_PAGE_BYTES:
        return None
    return sizes.pop()


def hot_add_problem(root: Element) -> str | None:
    """Why this machine cannot take DIMMs, or None. i440fx (`pc`) and `q35` can."""
    machine = machine_of(root)
    if not machine:
        return None
    kind = machine.removeprefix("pc-").split("-", 1)[0] if machine.startswith("pc-") else machine
    for one in NO_HOT_ADD:
        if machine == one or machine.startswith(f"{one}-") or kind == one:
            return f"machine type {machine!r} cannot hot-add memory"
    acpi = root.find("./features/acpi")
    type_element = root.find("./os/type")
    arch = "" if type_element is None else type_element.get("arch", "")
    if acpi is None and arch in ("x86_64", "i686"):
        return "ACPI is off, and without it memory cannot be hot-added"
    return None


def virtio_mem_problem(root: Element) -> str | None:
    """Why this domain cannot have a virtio-mem device, or None.

    QEMU refuses one where it may not discard guest memory (hw/virtio/virtio-mem.c, realize).
    """
    type_element = root.find("./os/type")
    arch = "" if type_element is None else type_element.get("arch", "")
    if arch not in ("", "x86_64", "aarch64"):
        return f"QEMU has none for {arch}"
    if root.find("./memoryBacking/locked") is not None:
        return "its memory is locked"
    if root.find("./launchSecurity") is not None:
        return "its memory is encrypted"
    if root.find("./devices/interface[@type='vdpa']") is not None:
        return "its vDPA interface pins all of its memory"
    pages = [size_of(one, attribute="size") for one in root.findall("./memoryBacking/hugepages/page")]
    if max(pages, default=0) > VIRTIO_MEM_BLOCK_BYTES:
        return f"its huge pages are larger than a block of {format_size(VIRTIO_MEM_BLOCK_BYTES)}"
    return None


def growth_of(root: Element) -> str:
    """How our metadata says that the domain grows; empty without metadata."""
    ours = root.find(f"./metadata/{TAG}")
    return "" if ours is None else ours.get("growth", "")


def machine_of(root: Element) -> str:
    """The machine type, as `pc-q35-7.2`; empty when the XML leaves it to libvirt."""
    found = root.find("./os/type")
    return "" if found is None else found.get("machine", "")


def size_of(element: Element | None, attribute: str | None = None) -> int:
    """Bytes of <memory unit='KiB'>n</memory>, or of an attribute with `unit` beside it; 0 when absent."""
    if element is None:
        return 0
    text = (element.get(attribute) if attribute else element.text) or "0"
    unit = element.get("unit", "KiB").lower()
    try:
        return int(text.strip()) * _UNIT_BYTES[unit]
    except (ValueError, KeyError):
        return 0


def _find_ours(root: Element, problems: list[str]) -> Ours | None:
    element = root.find(f"./metadata/{TAG}")
    if element is None:
        return None
    try:
        ours = Ours(
            Limits(
                startup_bytes=_kib(element, "startup"),
                minimum_bytes=_kib(element, "minimum"),
                maximum_bytes=_kib(element, "maximum"),
                buffer_percent=int(element.get("buffer", "20")),
                weight=int(element.get("weight", "100")),
            ),
            Growth(element.get("growth", Growth.HOTADD)),
            Trust(element.get("trust", Trust.GUEST)),
        )
    except ValueError as error:
        problems.append(f"the dynmem metadata cannot be read ({error}); run `dynmem enable` again")
        return None
    wrong = ours.limits.problems()
    if wrong:
        problems.extend(wrong)
        return None
    return ours


def _kib(element: Element, name: str) -> int:
    value = element.get(name)
    if value is None:
        raise ValueError(f"{name} is missing")
    return int(value) * KIB


def _text(root: Element, tag: str) -> str:
    return (root.findtext(tag) or "").strip()


def _integer(element: Element | None, attribute: str) -> int:
    try:
        return 0 if element is None else int(element.get(attribute, "0"))
    except ValueError:
        return 0


def _owner(root: Element) -> int | None:
    """Libvirt writes `+uid:+gid` into the live XML of what it runs as somebody else."""
    user = (root.findtext("./seclabel[@model='dac']/label") or "").partition(":")[0]
    return int(user[1:]) if user[:1] == "+" and user[1:].isdecimal() else None


def _all_nodes(pages: list[Element], cells: int) -> bool:
    """Whether nodesets like `0-2,4,^1` cover every guest node."""
    covered: set[int] = set()
    for text in (one.get("nodeset", "") for one in pages):
        for part in text.split(","):
            first, _, last = part.strip().removeprefix("^").partition("-")
            if not first.isdecimal() or (last and not last.isdecimal()):
                return False
            nodes = set(range(int(first), min(int(last or first), MOST_NODES) + 1))
            covered = covered - nodes if part.strip().startswith("^") else covered | nodes
    return set(range(max(1, cells))) <= covered


def _alias(device: Element) -> str:
    alias = device.find("alias")
    return "" if alias is None else alias.get("name", "")


def _target_size(device: Element, tag: str) -> int:
    return size_of(device.find(f"./target/{tag}"))


def _base(device: Element) -> int | None:
    address = device.find("address")
    base = None if address is None else address.get("base")
    return None if base is None else int(base, 0)


def _channel_alias(root: Element) -> str | None:
    for channel in root.findall("./devices/channel"):
        target = channel.find("target")
        if target is not None and target.get("name") == wire.PORT_NAME:
            return _alias(channel)
    return None
