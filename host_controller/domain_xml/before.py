"""The record of what a domain was before `enable`: a <before> element in our metadata."""

from typing import Final
from xml.dom.minidom import Element

from host_controller.core.model import ADOPTED, Growth, Limits, Trust
from host_controller.domain_xml.dom import child, copy_for, create, elements, insert, remove, size_of
from host_controller.domain_xml.ours import NAMESPACE, PREFIX, attributes
from host_controller.domain_xml.pieces import find_channel
from host_controller.units import KIB

KEPT: tuple[str, ...] = ("maxMemory", "memory", "currentMemory")
"""Children of the domain that `enable` overwrites."""
STATISTICS_SECONDS: Final = 1
"""How often a balloon is asked that is to be gone by. Nova has its own asked every 10 s, CloudStack every 60:
within that a guest runs out.
"""


def find_ours(domain: Element) -> Element | None:
    """Our metadata element; None without one."""
    for one in elements(child(domain, "metadata")):
        if one.namespaceURI == NAMESPACE and one.localName == "vm":
            return one
    return None


def marked_adopted(domain: Element) -> bool:
    """`adopt` wrote our metadata, whether or not the domain is about to be given back."""
    ours = find_ours(domain)
    return ours is not None and ours.hasAttribute(ADOPTED)


def growth_named(domain: Element) -> str:
    """How our metadata says that it grows; empty without metadata."""
    ours = find_ours(domain)
    return "" if ours is None else ours.getAttribute("growth")


def record(domain: Element) -> Element | None:
    """What was there; None without our metadata, or when the record has been lost."""
    before = next((one for one in elements(find_ours(domain)) if one.localName == "before"), None)
    if before is None or not before.hasAttribute("controllers"):
        return None
    return before if before.prefix is None else _without_prefix(before)


def had_cells(before: Element) -> bool:
    """The domain came with NUMA cells: one that is there is its user's. Some tools write an empty <numa>."""
    return bool(elements(child(before, "numa"), "cell"))


def write_ours(
    domain: Element, limits: Limits, growth: Growth, trust: Trust, *, adopted: bool = False
) -> None:
    """Our metadata; what was there before is recorded the first time only.

    adopted: nothing of the domain but this, its statistics and the agent's port is ours.
    """
    ours = find_ours(domain) or _create_ours(domain)
    if adopted:
        ours.setAttribute(ADOPTED, "yes")
    elif ours.hasAttribute(ADOPTED):
        ours.removeAttribute(ADOPTED)
    for name, value in attributes(limits, growth, trust):
        ours.setAttribute(name, value)
    if record(domain) is None:
        for lost in elements(ours):
            remove(lost)
        _remember(domain, ours)


def controllers(domain: Element) -> list[str]:
    """Its controllers, each by a name that a later definition still has."""
    return [controller_name(one) for one in elements(child(domain, "devices"), "controller")]


def multifunction(domain: Element) -> list[str]:
    """Those controllers that say that their slot has more functions: libvirt says so when it adds one."""
    return [
        controller_name(one)
        for one in elements(child(domain, "devices"), "controller")
        if (address := child(one, "address")) is not None and address.getAttribute("multifunction") == "on"
    ]


def controller_name(controller: Element) -> str:
    """Type and index."""
    return f"{controller.getAttribute('type')}:{controller.getAttribute('index')}"


def _without_prefix(before: Element) -> Element:
    """A copy as we wrote it: virDomainSetMetadata gives every element in ours our namespace."""
    copy = before.cloneNode(deep=True)
    tree = before.ownerDocument
    assert isinstance(copy, Element)
    assert tree is not None
    for one in (copy, *copy.getElementsByTagName("*")):
        tree.renameNode(one, "", one.localName or one.tagName)
    return copy


def _remember(domain: Element, ours: Element) -> None:
    cpu, devices = child(domain, "cpu"), child(domain, "devices")
    before = create(
        domain,
        "before",
        cpu="absent" if cpu is None else "present",
        channel="absent" if find_channel(domain) is None else "present",
        controllers=" ".join(controllers(domain)),
        multifunction=" ".join(multifunction(domain)),
        devices="absent" if devices is None else str(len(elements(devices, "memory"))),
    )
    insert(ours, before)
    for name, size in _virtio_mem(devices).items():
        before.setAttribute(name, size)
    kept = [child(domain, tag) for tag in KEPT]
    for element in (*kept, child(cpu, "numa"), child(devices, "memballoon")):
        if element is not None:
            insert(before, copy_for(before, element))


def _virtio_mem(devices: Element | None) -> dict[str, str]:
    """Of a device that the domain came with, in KiB: what it can hold, was asked for, and had plugged."""
    for device in elements(devices, "memory"):
        if device.getAttribute("model") == "virtio-mem":
            target = child(device, "target")
            return {
                f"virtio-mem-{tag}": str(size_of(child(target, tag)) // KIB)
                for tag in ("size", "requested", "current")
            }
    return {}


def _create_ours(domain: Element) -> Element:
    metadata = child(domain, "metadata") or insert(
        domain, create(domain, "metadata"), child(domain, "maxMemory") or child(domain, "memory")
    )
    tree = domain.ownerDocument
    assert tree is not None
    ours = tree.createElementNS(NAMESPACE, f"{PREFIX}:vm")
    ours.setAttribute(f"xmlns:{PREFIX}", NAMESPACE)
    return insert(metadata, ours)
