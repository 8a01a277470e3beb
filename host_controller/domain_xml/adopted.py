"""What `adopt` writes into a domain that runs and into its definition, and what `release` reads back. Pure.

Nothing of its memory layout is changed: there is our metadata with the record of what was there before, a
balloon that is asked for statistics, and the agent's port.
"""

from dataclasses import dataclass
from typing import Self
from xml.dom.minidom import Element
from xml.etree import ElementTree

from agent import wire
from host_controller.core.model import Growth, Limits, Trust
from host_controller.domain_xml import pieces
from host_controller.domain_xml.before import (
    STATISTICS_SECONDS,
    find_ours,
    marked_adopted,
    record,
    write_ours,
)
from host_controller.domain_xml.dom import child, create, elements, insert, parse, size_of, text_of
from host_controller.domain_xml.fitness.slots import port_finds_place
from host_controller.domain_xml.ours import LET_GO, metadata_element
from host_controller.domain_xml.values import number, parse_xml
from host_controller.units import KIB

CHANNEL = f"<channel type='unix'><target type='virtio' name='{wire.PORT_NAME}'/></channel>"
"""As it is plugged; libvirt names its socket and gives it a port."""


@dataclass(frozen=True, slots=True)
class Before:
    """What a domain was before it was adopted."""

    ram_bytes: int
    """memory, which counts whole devices, without a virtio-mem device."""
    actual_bytes: int
    """Where its balloon was: currentMemory without what virtio-mem had plugged."""
    statistics_seconds: int
    """How often the balloon was asked for statistics; 0: never."""
    channel: bool
    """The agent's port was there."""
    memory_devices: int
    only_virtio_mem: bool = False
    """It had no other memory device: ram_bytes is what it booted with."""
    virtio_mem_bytes: int = 0
    """What its virtio-mem device was asked for."""

    @classmethod
    def read(cls, xml: str) -> Self | None:
        """The record that an XML has; None without one, and where it does not say the sizes."""
        before = record(parse(xml)[1])
        if before is None:
            return None
        device, requested, plugged = (
            number(before.getAttribute(f"virtio-mem-{one}")) * KIB for one in ("size", "requested", "current")
        )
        ram = size_of(child(before, "memory")) - device
        actual = (size_of(child(before, "currentMemory")) or ram) - plugged
        if device:  # a definition's currentMemory may count what is to be plugged
            actual = min(ram, actual)
        if not 0 < actual <= ram:
            return None
        stats = child(child(before, "memballoon"), "stats")
        devices = number(before.getAttribute("devices"))
        return cls(
            ram,
            actual,
            0 if stats is None else number(stats.getAttribute("period")),
            before.getAttribute("channel") == "present",
            devices,
            devices == (1 if device else 0),
            min(device, requested),
        )


def adopted_definition(xml: str, limits: Limits, growth: Growth, trust: Trust, *, whole: bool = True) -> str:
    """A definition whose next start is as adopted as what runs. Doing it twice changes nothing more.

    whole: with statistics, and the agent's port where that finds a place; else the limits alone.
    """
    tree, domain = parse(xml)
    write_ours(domain, limits, growth, trust, adopted=True)
    devices = child(domain, "devices")
    if whole and devices is not None:
        _ask_for_statistics(devices)
        if port_finds_place(parse_xml(xml)):
            pieces.set_channel(domain, devices)
    return text_of(tree, xml)


def adopted_element(live_xml: str, limits: Limits, growth: Growth, trust: Trust) -> str:
    """Our element for virDomainSetMetadata on the running domain, with the record of what it is now."""
    tree, domain = parse(live_xml)
    write_ours(domain, limits, growth, trust, adopted=True)
    return metadata_element(limits, growth, trust, text_of(tree, live_xml))


def let_go_element(live_xml: str, limits: Limits, growth: Growth, trust: Trust) -> str:
    """Our element as a record alone: the domain is nobody's, and what was there before is still known."""
    tree, domain = parse(live_xml)
    ours = find_ours(domain)
    if ours is not None:
        ours.setAttribute(LET_GO, "yes")
    return metadata_element(limits, growth, trust, text_of(tree, live_xml))


def is_adopted(xml: str) -> bool:
    """`adopt` wrote our metadata into this, whether or not it is about to be given back."""
    return marked_adopted(parse(xml)[1])


def channel_of(live_xml: str) -> str | None:
    """The XML of the agent's port as it runs; None without one."""
    root = ElementTree.fromstring(live_xml)  # noqa: S314 # libvirt's own
    for one in root.findall("./devices/channel"):
        target = one.find("target")
        if target is not None and target.get("name") == wire.PORT_NAME:
            return ElementTree.tostring(one, encoding="unicode").strip()
    return None


def _ask_for_statistics(devices: Element) -> None:
    balloon = child(devices, "memballoon")
    if balloon is None or balloon.getAttribute("model") == "none":
        return
    first = next(iter(elements(balloon)), None)
    stats = child(balloon, "stats") or insert(balloon, create(devices, "stats"), first)
    stats.setAttribute("period", str(STATISTICS_SECONDS))
