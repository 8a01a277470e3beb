"""Puts a domain back as it was before `enable`. Pure: text in, text out.

Always possible for what we prepared. Where the record of what was there is lost, because some tool has
written the definition without our metadata, traces tell what to take out, and what is not known is said.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.dom.minidom import Element

from host_controller.core.model import Growth
from host_controller.domain_xml import pieces
from host_controller.domain_xml.before import (
    STATISTICS_SECONDS,
    controller_name,
    find_ours,
    growth_named,
    had_cells,
    marked_adopted,
    record,
)
from host_controller.domain_xml.dom import child, elements, parse, put_back, remove, size_of, text_of
from host_controller.domain_xml.traces import (
    drop_dimms,
    looks_prepared,
    tell_dimms,
    undo_by_traces,
)
from host_controller.domain_xml.values import number
from host_controller.units import KIB


@dataclass(frozen=True, slots=True)
class Restored:
    """What `disable` did, and what could not be put back exactly."""

    xml: str
    notes: tuple[str, ...]
    exact: bool = True
    """It is as it was, all of it."""


BRIDGES: Final = ("pcie-root-port", "pci-bridge", "dmi-to-pci-bridge", "pcie-to-pci-bridge")
"""PCI controllers that libvirt adds by itself for devices that find no slot."""
CHANNEL_LEFT: Final = (
    "it has a channel for the agent and no other trace of `enable`, so the channel may be its user's own: "
    "it is kept, and harms nobody; `virsh edit` takes it out"
)


def disable(xml: str) -> str:
    """The XML as it was before `enable`; unchanged when it is not ours."""
    return restore(xml).xml


def restore(xml: str) -> Restored:
    """As `disable`, with what could not be put back exactly."""
    tree, domain = parse(xml)
    gone = drop_dimms(domain)
    inexact: tuple[str, ...] = ()
    if (before := record(domain)) is not None and marked_adopted(domain):
        _restore_adopted(domain, before)
    elif before is not None:
        inexact = tuple(_restore(domain, before))
    elif looks_prepared(domain):
        inexact = tuple(undo_by_traces(domain))
    elif find_ours(domain) is None:
        left = pieces.find_channel(domain) is not None
        return Restored(xml, (CHANNEL_LEFT,) if left else ())
    _drop_ours(domain)
    said = (tell_dimms(gone),) if gone else ()
    return Restored(text_of(tree, xml), said + inexact, exact=not inexact)


def _restore(domain: Element, before: Element) -> Iterator[str]:
    if growth_named(domain) == Growth.VIRTIO_MEM:
        pieces.drop_virtio_mem(domain)
    devices = child(domain, "devices")
    kept = elements(devices, "memory") if child(before, "maxMemory") is None else []
    if len(kept) <= number(before.getAttribute("devices")):
        kept = []  # they were there before
    for tag in ("memory", "currentMemory"):
        put_back(domain, tag, child(before, tag))
    if kept:
        yield from _keep_for_devices(domain, before, kept)
    else:
        put_back(domain, "maxMemory", child(before, "maxMemory"), before=child(domain, "memory"))
        yield from _restore_cells(domain, before)
    if devices is not None:
        yield from _restore_balloon(devices, child(before, "memballoon"))
        _drop_what_is_ours(domain, devices, before)


def _restore_adopted(domain: Element, before: Element) -> None:
    """Sizes and devices stay as they are: `adopt` had left them alone, so what they are their user made."""
    devices = child(domain, "devices")
    if devices is None:
        return
    balloon = child(devices, "memballoon")
    asked, had = child(balloon, "stats"), child(child(before, "memballoon"), "stats")
    ours = asked is not None and number(asked.getAttribute("period")) == STATISTICS_SECONDS
    if balloon is not None and ours:
        put_back(balloon, "stats", had)
    _drop_what_is_ours(domain, devices, before)


def _drop_what_is_ours(domain: Element, devices: Element, before: Element) -> None:
    """The agent's port, and what libvirt has added for our devices."""
    if before.getAttribute("channel") == "absent":
        remove(pieces.find_channel(domain))
    _drop_controllers(devices, before.getAttribute("controllers").split())
    if before.hasAttribute("multifunction"):
        _drop_multifunction(devices, before.getAttribute("multifunction").split())
    if before.getAttribute("devices") == "absent" and not elements(devices):
        remove(devices)


def _restore_cells(domain: Element, before: Element) -> Iterator[str]:
    cpu, old = child(domain, "cpu"), child(before, "numa")
    if cpu is None and old is None:
        return
    if cpu is None:
        yield "its NUMA cells are not put back: somebody has taken its <cpu> out since"
        return
    now = child(cpu, "numa")
    if old is not None and now is not None and had_cells(before) and _cpus(old) != _cpus(now):
        sizes = {one.getAttribute("id"): one for one in elements(old, "cell")}
        for cell in elements(now, "cell"):
            was = sizes.get(cell.getAttribute("id"), cell)
            for name in ("memory", "unit"):
                cell.setAttribute(name, was.getAttribute(name) or "KiB")
        yield "its NUMA cells were changed since: they have the sizes of before, and the vCPUs of now"
        return
    put_back(cpu, "numa", old)
    if before.getAttribute("cpu") == "absent" and not elements(cpu):
        remove(cpu)


def _keep_for_devices(domain: Element, before: Element, kept: list[Element]) -> Iterator[str]:
    """Memory devices that somebody has added since need maxMemory and a cell, which `enable` had made."""
    boot = size_of(child(before, "memory"))
    total = boot + sum(map(pieces.device_bytes, kept))
    pieces.set_size(domain, "memory", total)
    ceiling = pieces.set_size(domain, "maxMemory", total, child(domain, "memory"))
    ceiling.setAttribute("slots", str(max(len(kept), number(ceiling.getAttribute("slots")))))
    pieces.set_cells(domain, boot, KIB, needed=True, ours=not had_cells(before))
    yield "it has got memory devices of its own since: they need <maxMemory> and a NUMA cell, which stay"


def _restore_balloon(devices: Element, old: Element | None) -> Iterator[str]:
    put_back(devices, "memballoon", old)
    balloon = child(devices, "memballoon")
    address = child(balloon, "address")
    if balloon is None or address is None:
        return
    place = dict(address.attributes.items())
    others = [one for one in _addresses(devices) if one is not address]
    if len(place) > 1 and any(dict(one.attributes.items()) == place for one in others):
        remove(address)
        yield "another device has its balloon's place by now: the balloon gets one from libvirt"


def _drop_ours(domain: Element) -> None:
    metadata = child(domain, "metadata")
    remove(find_ours(domain))
    if metadata is not None and not metadata.hasChildNodes():
        remove(metadata)


def _cpus(numa: Element) -> list[tuple[str, str]]:
    return [(one.getAttribute("id"), one.getAttribute("cpus")) for one in elements(numa, "cell")]


def _drop_controllers(devices: Element, known: list[str]) -> None:
    """Take out what libvirt added for our devices and nobody uses: a virtio-serial controller, root ports,
    and bridges where all slots were taken.
    """
    added = [one for one in elements(devices, "controller") if controller_name(one) not in known]
    serial = _used_serial(devices)
    for one in added:
        if one.getAttribute("type") == "virtio-serial" and not serial & {one.getAttribute("index"), "any"}:
            remove(one)
    bridges = [one for one in added if one.getAttribute("model") in BRIDGES]
    while unused := [one for one in bridges if _is_unused(devices, one)]:  # one may hang on another
        for one in unused:
            remove(one)
            bridges.remove(one)


def _is_unused(devices: Element, bridge: Element) -> bool:
    """Nothing is on the bus that a PCI controller makes."""
    index = bridge.getAttribute("index")
    return index.isdecimal() and not any(
        address.getAttribute("type") == "pci" and number(address.getAttribute("bus")) == number(index)
        for address in _addresses(devices)
    )


def _addresses(devices: Element) -> list[Element]:
    """Where its devices are in the guest; what they are on the host stands deeper, in their sources."""
    return [address for one in elements(devices) if (address := child(one, "address")) is not None]


def _drop_multifunction(devices: Element, known: list[str]) -> None:
    """Libvirt marks a slot that it puts another root port into; alone again, the first needs no mark."""
    places = [_slot(address) for address in _addresses(devices)]
    for one in elements(devices, "controller"):
        address = child(one, "address")
        if address is None or address.getAttribute("multifunction") != "on" or controller_name(one) in known:
            continue
        if places.count(_slot(address)) == 1:
            address.removeAttribute("multifunction")


def _slot(address: Element) -> tuple[str, ...]:
    return tuple(address.getAttribute(name) for name in ("type", "domain", "bus", "slot"))


def _used_serial(devices: Element) -> set[str]:
    """Indexes of virtio-serial controllers that something hangs on; `any` where libvirt has not said yet."""
    used = set()
    for one in (*elements(devices, "channel"), *elements(devices, "console")):
        target, address = child(one, "target"), child(one, "address")
        if target is not None and target.getAttribute("type") == "virtio":
            used.add("any" if address is None else address.getAttribute("controller"))
    return used
