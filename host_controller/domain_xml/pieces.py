"""The single edits that `enable` is made of. Each makes one part of a domain's DOM what it should be."""

from typing import Any
from xml.dom.minidom import Element

from agent import wire
from host_controller.core.model import VIRTIO_MEM_BLOCK_BYTES
from host_controller.domain_xml.dom import (
    child,
    content,
    create,
    elements,
    insert,
    remove,
    set_content,
    size_of,
)
from host_controller.domain_xml.values import number
from host_controller.units import KIB, round_down


def set_size(domain: Element, tag: str, size_bytes: int, before: Any = None) -> Element:
    """A size in KiB as a child of the domain; it is put before a node when it is new."""
    element = child(domain, tag) or insert(domain, create(domain, tag), before)
    element.setAttribute("unit", "KiB")
    set_content(element, str(size_bytes // KIB))
    return element


def set_cells(domain: Element, boot_bytes: int, granule_bytes: int, *, needed: bool, ours: bool) -> None:
    """Boot RAM over the NUMA cells: those there are keep their proportion, but none is empty
    (fact: no-empty-cell); hot add needs at least one.

    ours: the cell is one that we made, and follows the number of vCPUs.
    """
    cpu = child(domain, "cpu")
    numa = child(cpu, "numa")
    if not elements(numa, "cell"):
        if not needed:
            return
        if cpu is None:
            cpu = insert(domain, create(domain, "cpu"), child(domain, "clock") or child(domain, "devices"))
        numa = numa or insert(cpu, create(domain, "numa"))
        insert(numa, create(domain, "cell", id="0", cpus=_all_cpus(domain)))
    cells = elements(numa, "cell")
    if ours and len(cells) == 1:
        cells[0].setAttribute("cpus", _all_cpus(domain))
    sizes = [size_of(one, "memory") for one in cells]
    total = sum(sizes)
    shares = [round_down(boot_bytes * size // total, granule_bytes) if total else 0 for size in sizes]
    shares[0] += boot_bytes - sum(shares)
    while min(shares) < granule_bytes and max(shares) >= 2 * granule_bytes:
        shares[shares.index(max(shares))] -= granule_bytes
        shares[shares.index(min(shares))] += granule_bytes
    for cell, share in zip(cells, shares, strict=True):
        cell.setAttribute("memory", str(share // KIB))
        cell.setAttribute("unit", "KiB")


def drop_cell(domain: Element, *, had_cpu: bool) -> None:
    """Take out the one NUMA cell that hot add had made: it binds other tools (fact: numa-cell-binds-tools).

    had_cpu: the domain had a <cpu> before that.
    """
    cpu = child(domain, "cpu")
    numa = child(cpu, "numa")
    if len(elements(numa)) != 1:
        return
    remove(numa)
    if not had_cpu and not elements(cpu):
        remove(cpu)


def set_virtio_mem(devices: Element | None, size_bytes: int) -> None:
    """One device of this size, of which nothing is plugged at the start; 0: none."""
    found = [one for one in elements(devices, "memory") if one.getAttribute("model") == "virtio-mem"]
    if devices is None or not size_bytes:
        for one in found:
            remove(one)
        return
    device = found[0] if found else insert(devices, create(devices, "memory", model="virtio-mem"))
    target = child(device, "target") or insert(device, create(device, "target"))
    sizes = {"size": size_bytes, "node": None, "block": VIRTIO_MEM_BLOCK_BYTES, "requested": 0}
    for tag, size in sizes.items():
        element = child(target, tag) or insert(target, create(target, tag))
        if size is not None:
            element.setAttribute("unit", "KiB")
        set_content(element, str(0 if size is None else size // KIB))


def drop_virtio_mem(domain: Element) -> None:
    """Take out the device that `enable` made: of several the first, others are their user's."""
    for one in elements(child(domain, "devices"), "memory"):
        if one.getAttribute("model") == "virtio-mem":
            remove(one)
            return


def device_bytes(device: Element) -> int:
    """What a memory device can hold."""
    return size_of(child(child(device, "target"), "size"))


def drop_memory_devices(domain: Element, model: str) -> int:
    """Take out all memory devices of a model. Returns how many there were."""
    found = [
        one
        for one in elements(child(domain, "devices"), "memory")
        if model and one.getAttribute("model") == model
    ]
    for one in found:
        remove(one)
    return len(found)


def set_balloon(devices: Element) -> None:
    """A virtio balloon with statistics and free page reporting, that never deflates by itself, and is behind
    no IOMMU (fact: balloon-behind-iommu).
    """
    balloon = child(devices, "memballoon") or insert(devices, create(devices, "memballoon", model="virtio"))
    if not balloon.getAttribute("model").startswith("virtio"):
        balloon.setAttribute("model", "virtio")
    driver = child(balloon, "driver")
    if driver is not None and driver.hasAttribute("iommu"):
        driver.removeAttribute("iommu")
        if not driver.attributes.length:
            remove(driver)
    balloon.setAttribute("autodeflate", "off")
    balloon.setAttribute("freePageReporting", "on")
    first = next(iter(elements(balloon)), None)
    stats = child(balloon, "stats") or insert(balloon, create(devices, "stats"), first)
    stats.setAttribute("period", "1")


def set_channel(domain: Element, devices: Element) -> None:
    """Add a virtio-serial port for the agent, behind the other channels; one that is there stays as it is."""
    if find_channel(domain) is not None:
        return
    others = elements(devices, "channel")
    after = others[-1].nextSibling if others else child(devices, "memballoon")
    channel = insert(devices, create(devices, "channel", type="unix"), after)
    insert(channel, create(devices, "target", type="virtio", name=wire.PORT_NAME))


def find_channel(domain: Element) -> Element | None:
    """The agent's port; None without one."""
    for one in elements(child(domain, "devices"), "channel"):
        target = child(one, "target")
        if target is not None and target.getAttribute("name") == wire.PORT_NAME:
            return one
    return None


def _all_cpus(domain: Element) -> str:
    vcpu = child(domain, "vcpu")
    count = number(content(vcpu)) if vcpu is not None else 1
    return f"0-{count - 1}" if count > 1 else "0"
