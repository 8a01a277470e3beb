"""A domain as this machine can start it: disks, networks, processors and firmware go, memory stays."""

from pathlib import Path
from typing import Final
from xml.dom.minidom import Element

from host_controller.domain_xml.dom import child, content, create, elements, insert, parse, remove, text_of
from host_controller.domain_xml.values import size_from

KEPT: Final = frozenset(
    (
        "name", "uuid", "metadata", "maxMemory", "memory", "currentMemory", "memoryBacking", "vcpu",
        "vcpus", "numatune", "os", "features", "cpu", "on_poweroff", "on_reboot", "on_crash", "devices",
        "qemu:commandline", "qemu:override", "qemu:capabilities",
    )
)  # fmt: skip
"""Children of the domain that stay. Limits (memtune) need control groups, which a session has not."""
KEPT_DEVICES: Final = frozenset(("controller", "memballoon", "memory", "iommu"))
KEPT_CONTROLLERS: Final = frozenset(("pci", "virtio-serial"))
KEPT_FEATURES: Final = frozenset(("acpi", "apic", "pae"))
KEPT_OF_CPU: Final = frozenset(("topology", "numa", "maxphysaddr"))
KEPT_BACKING: Final = frozenset(("source", "access", "allocation", "discard", "nosharepages"))
"""Huge pages and locked memory need what the host has not set aside."""


def for_this_machine(xml: str, name: str, domain_type: str, place: Path, machines: frozenset[str]) -> str:
    """The same domain under another name and of this machine's type.

    `place`: where files may be made, for the backing of NVDIMMs. `machines`: those that this QEMU knows;
    another is replaced by the newest of its family.
    """
    tree, domain = parse(xml)
    for attribute in ("id",):
        if domain.hasAttribute(attribute):
            domain.removeAttribute(attribute)
    domain.setAttribute("type", domain_type)
    for one in elements(domain):
        if one.tagName not in KEPT:
            remove(one)
    _rename(domain, name)
    _plain_os(domain, machines)
    _keep_only(child(domain, "features"), KEPT_FEATURES)
    _plain_cpu(child(domain, "cpu"))
    _keep_only(child(domain, "memoryBacking"), KEPT_BACKING)
    _local_nodes(child(domain, "numatune"))
    vcpu = child(domain, "vcpu")
    if vcpu is not None and vcpu.hasAttribute("cpuset"):
        vcpu.removeAttribute("cpuset")
    _plain_devices(domain, place)
    return text_of(tree, xml)


def _rename(domain: Element, name: str) -> None:
    remove(child(domain, "uuid"))
    old = child(domain, "name")
    fresh = create(domain, "name")
    fresh.appendChild(domain.ownerDocument.createTextNode(name))  # type: ignore[union-attr] # it has one
    if old is None:
        insert(domain, fresh, domain.firstChild)
    else:
        domain.replaceChild(fresh, old)


def _plain_os(domain: Element, machines: frozenset[str]) -> None:
    system = child(domain, "os")
    _keep_only(system, frozenset(("type",)))
    if system is not None and system.hasAttribute("firmware"):
        system.removeAttribute("firmware")
    kind = child(system, "type")
    machine = "" if kind is None else kind.getAttribute("machine")
    if kind is not None and machine and machine not in machines and machine.startswith(("pc", "rhel", "q35")):
        kind.setAttribute("machine", "q35" if "q35" in machine else "pc")


def _plain_cpu(cpu: Element | None) -> None:
    if cpu is None:
        return
    for attribute in ("mode", "match", "check", "migratable", "deprecated_features"):
        if cpu.hasAttribute(attribute):
            cpu.removeAttribute(attribute)
    _keep_only(cpu, KEPT_OF_CPU)
    if child(cpu, "maxphysaddr") is not None:
        cpu.setAttribute("mode", "maximum")


def _local_nodes(numatune: Element | None) -> None:
    for one in elements(numatune):
        if one.getAttribute("placement") == "auto":
            one.removeAttribute("placement")  # there is no numad here
        one.setAttribute("nodeset", "0")


def _plain_devices(domain: Element, place: Path) -> None:
    for one in elements(child(domain, "devices")):
        if one.tagName == "controller":
            usb = one.getAttribute("type") == "usb" and one.getAttribute("model") == "none"
            if one.getAttribute("type") not in KEPT_CONTROLLERS and not usb:
                remove(one)
        elif one.tagName == "channel":
            _plain_channel(one)
        elif one.tagName not in KEPT_DEVICES:
            remove(one)
    for number, device in enumerate(elements(child(domain, "devices"), "memory")):
        path = child(child(device, "source"), "path")
        if path is not None:
            _back(path, place / f"memory{number}", child(child(device, "target"), "size"))
        remove(child(child(device, "source"), "pagesize"))
        remove(child(child(device, "source"), "nodemask"))


def _plain_channel(channel: Element) -> None:
    target = child(channel, "target")
    if target is None or target.getAttribute("type") != "virtio" or not target.getAttribute("name"):
        remove(channel)
        return
    channel.setAttribute("type", "unix")
    _keep_only(channel, frozenset(("target", "address", "alias")))


def _back(path: Element, file: Path, size: Element | None) -> None:
    """A sparse file, large enough."""
    with file.open("wb") as made:
        told = 0 if size is None else size_from(content(size), size.getAttribute("unit"))
        made.truncate(told or 1 << 30)
    file.chmod(0o666)
    for one in list(path.childNodes):
        path.removeChild(one)
    path.appendChild(path.ownerDocument.createTextNode(str(file)))  # type: ignore[union-attr] # it has one


def _keep_only(parent: Element | None, tags: frozenset[str]) -> None:
    for one in elements(parent):
        if one.tagName not in tags:
            remove(one)
