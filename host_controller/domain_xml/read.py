"""How a domain's XML is read into its view (`view.py`). Pure; `edit.py` and `restore.py` change the XML."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from agent import wire
from host_controller.core.model import METADATA, VIRTIO_MEM_STEP_BYTES, Dimm, Growth, VmConfig
from host_controller.domain_xml.boot_ram import TOLERATED_BLOCK_BYTES, largest_block_bytes
from host_controller.domain_xml.held import is_held
from host_controller.domain_xml.huge_pages import huge_page_size, ordinary_bytes
from host_controller.domain_xml.ours import Ours, find_ours, is_claimed
from host_controller.domain_xml.pinning import NO_BALLOON, is_unmapped, pinned_by
from host_controller.domain_xml.standing import mark_of
from host_controller.domain_xml.values import (
    alias_of,
    attribute_number,
    is_x86,
    machine_of,
    name_of,
    parse_xml,
    size_of,
    target_size,
    text_in,
)
from host_controller.domain_xml.view import DomainView

GUEST_AGENT_PORT: Final = "org.qemu.guest_agent.0"
"""QEMU's guest agent and libvirt have agreed on it."""
LONGEST_USER: Final = 11
"""`+` and 32 bits. What a definition says there is anybody's text."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """A domain's RAM by how it is plugged. Every size in bytes."""

    cells: tuple[int, ...]
    """Of its NUMA nodes; empty without."""
    boot: int
    dimms: tuple[Dimm, ...]
    virtio_mem: tuple[Element, ...]

    @property
    def blocks(self) -> tuple[int, ...]:
        return (
            *(self.cells or (self.boot,)),
            *(one.size_bytes for one in self.dimms),
            *(target_size(one, "size") for one in self.virtio_mem),
        )

    @property
    def most(self) -> int:
        """As DomainView.could_take_bytes."""
        return self.boot + sum(one.size_bytes for one in self.dimms) + self.most_of_virtio_mem

    @property
    def most_of_virtio_mem(self) -> int:
        """Before a start there is no `current` yet; afterwards it may be above or below what is asked for."""
        return sum(max(target_size(one, "requested"), target_size(one, "current")) for one in self.virtio_mem)

    def of_virtio_mem(self, tag: str) -> int:
        """A figure of its virtio-mem devices, summed."""
        return sum(target_size(one, tag) for one in self.virtio_mem)


def read_domain(xml: str, persistent_xml: str | None = None, given: Ours | None = None) -> DomainView:
    """The view of a domain; `persistent_xml` is asked for our metadata when the live XML has none.

    given: what our metadata would say, for a domain that has none.

    What cannot be read counts as absent; it never raises for a value.

    Raises:
        DomainUnsuitable: not a domain's XML.
    """
    root = parse_xml(xml)
    ours, problems = find_ours(root)
    claimed = is_claimed(root)
    if ours is None and persistent_xml is not None:
        definition = parse_xml(persistent_xml)
        ours, more = find_ours(definition)
        problems = tuple(dict.fromkeys(problems + more))  # both may have the same damage
        claimed = claimed or is_claimed(definition)
    ours = given if given is not None and not claimed else ours
    memory = _memory(root)
    channel = _channel_alias(root)
    config = None
    if ours is not None:
        config = _config(root, ours, memory)
        problems += tuple(_problems(config, memory, channel))
    balloon = root.find("./devices/memballoon")
    return DomainView(
        uuid=text_in(root, "uuid"),
        name=name_of(root),
        config=config,
        problems=problems,
        machine=machine_of(root),
        boot_ram_bytes=memory.boot,
        ram_blocks=memory.blocks,
        dimms=memory.dimms,
        actual_bytes=_actual(root, memory),
        ceiling_bytes=size_of(root.find("maxMemory")) or memory.boot,
        virtio_mem_bytes=memory.of_virtio_mem("current"),
        virtio_mem_requested_bytes=memory.of_virtio_mem("requested"),
        channel_alias=channel,
        stats_period=attribute_number(None if balloon is None else balloon.find("stats"), "period"),
        huge_page_bytes=huge_page_size(root),
        in_huge_pages_bytes=memory.most - ordinary_bytes(root, memory.boot),
        virtio_mem_most_bytes=memory.most_of_virtio_mem,
        guest_agent=_has_guest_agent(root),
        claimed=claimed,
        unmapped=is_unmapped(root),
        owner=_owner(root),
        standing=mark_of(root),
        held=is_held(root),
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


def _memory(root: Element) -> _Memory:
    devices = root.findall("./devices/memory")
    cells = tuple(size_of(one, "memory") for one in root.findall("./cpu/numa/cell"))
    # libvirt counts whole devices in <memory>, those that are no RAM (NVDIMMs) included.
    modules = sum(target_size(one, "size") for one in devices)
    return _Memory(
        cells,
        sum(cells) or max(0, size_of(root.find("memory")) - modules),
        tuple(
            Dimm(alias_of(one), target_size(one, "size"), _base(one))
            for one in devices
            if one.get("model") == "dimm"
        ),
        tuple(one for one in devices if one.get("model") == "virtio-mem"),
    )


def _config(root: Element, ours: Ours, memory: _Memory) -> VmConfig:
    blocks = [VIRTIO_MEM_STEP_BYTES, *(target_size(one, "block") for one in memory.virtio_mem)]
    if is_x86(root) and (least := largest_block_bytes(memory.boot)) > TOLERATED_BLOCK_BYTES:
        # Of one that was prepared before that was known, or has its device from its user.
        blocks.append(least)
    return VmConfig(
        uuid=text_in(root, "uuid"),
        name=name_of(root),
        limits=ours.limits,
        growth=ours.growth,
        trust=ours.trust,
        boot_ram_bytes=memory.boot,
        slots=attribute_number(root.find("maxMemory"), "slots"),
        virtio_mem_bytes=memory.of_virtio_mem("size"),
        virtio_mem_block_bytes=max(blocks),
        pinned=pinned_by(root),
        huge_page_bytes=huge_page_size(root),
        source=ours.source,
        defaults=ours.defaults,
    )


def _problems(config: VmConfig, memory: _Memory, channel: str | None) -> Iterator[str]:
    if channel is None and config.source == METADATA:
        yield f"there is no channel {wire.PORT_NAME}: no agent can be heard"
    if config.pinned == NO_BALLOON:
        yield (
            "there is no memory balloon: it is charged all of its RAM; "
            "run `dynmem enable` again while it is off"
        )
    if config.growth is Growth.HOTADD and not config.slots:
        yield "there are no DIMM slots: it cannot grow past its boot RAM"
    if config.growth is Growth.VIRTIO_MEM and len(memory.virtio_mem) != 1:
        count = len(memory.virtio_mem)
        yield f"there are {count} virtio-mem devices where one is needed; run `dynmem enable` again"


def _actual(root: Element, memory: _Memory) -> int:
    """What the balloon leaves. libvirt adds what virtio-mem has plugged, as far as it has noticed."""
    current = size_of(root.find("currentMemory")) or size_of(root.find("memory"))
    ram = memory.boot + sum(one.size_bytes for one in memory.dimms)
    return min(ram, max(0, current - memory.of_virtio_mem("current")))


def _base(device: Element) -> int | None:
    address = device.find("address")
    return None if address is None or "base" not in address.attrib else attribute_number(address, "base")


def _channel_alias(root: Element) -> str | None:
    for channel in root.findall("./devices/channel"):
        target = channel.find("target")
        if target is not None and target.get("name") == wire.PORT_NAME:
            return alias_of(channel)
    return None


def _has_guest_agent(root: Element) -> bool:
    return any(
        one.get("name") == GUEST_AGENT_PORT and one.get("state") == "connected"
        for one in root.findall("./devices/channel/target")
    )


def _owner(root: Element) -> int | None:
    """Libvirt writes `+uid:+gid` into the live XML of what it runs as somebody else."""
    user = (root.findtext("./seclabel[@model='dac']/label") or "").partition(":")[0]
    known = user[:1] == "+" and user[1:].isdecimal() and len(user) <= LONGEST_USER
    return int(user[1:]) if known else None
