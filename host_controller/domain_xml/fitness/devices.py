"""Checks of devices: memory of the domain's own, and what holds on to pages."""

from typing import Final
from xml.dom.minidom import Element as Node
from xml.etree.ElementTree import Element

from agent import wire
from host_controller.core.model import VIRTIO_MEM_BLOCK_BYTES, Growth
from host_controller.domain_xml.dom import child, elements, remove
from host_controller.domain_xml.fitness.passed_on import without
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut
from host_controller.domain_xml.huge_pages import backs_with_huge_pages
from host_controller.domain_xml.ours import growth_of, was_adopted
from host_controller.domain_xml.pieces import find_channel
from host_controller.domain_xml.pinning import ENCRYPTED, HUGE_PAGES, LOCKED, VFIO, Pin, pins
from host_controller.domain_xml.shape import shape_of
from host_controller.domain_xml.traces import OWNED_MODEL
from host_controller.domain_xml.values import target_size
from host_controller.units import format_size

VFIO_MAPPINGS: Final = (1 << 16) - 1
"""The kernel's default."""
VFIO_MAPPINGS_OF_OTHERS: Final = 511
"""For boot RAM and the memory of devices: some ten."""
PORT_OF_OURS: Final = "`dynmem enable` then adds one"


def foreign_memory(root: Element) -> list[Element]:
    """Memory devices that are the user's own."""
    devices = root.findall("./devices/memory")
    model = OWNED_MODEL.get(growth_of(root), "")  # type: ignore[call-overload] # any text
    ours = [one for one in devices if one.get("model") == model]
    if model == "virtio-mem":
        # One that was adopted was there before, and `enable` makes no second.
        ours = [] if was_adopted(root) else ours[:1]
    return [one for one in devices if one not in ours]


def encryption(request: Request) -> Refusal | None:
    """Its memory is not encrypted: QEMU takes no page back from such a guest, and hot-adds none to it."""
    for pin in pins(request.root):
        if pin.why == ENCRYPTED:
            ways: tuple[WayOut, ...] = ()
            if pin.what.startswith("<"):
                say = f"take {pin.what} out with virsh edit, if it may do without"
                ways = (WayOut(say, edit=lambda domain: remove(child(domain, "launchSecurity"))),)
            elif pin.argument is not None:
                ways = (without(pin.argument),)
            return Refusal(f"its memory is encrypted ({pin.what}): nothing of it can be taken back", ways)
    return None


def memory_devices(request: Request) -> Refusal | None:
    """Memory devices of its own leave slots and room to ours, and are not taken for ours."""
    found = foreign_memory(request.root)
    if request.growth is Growth.BALLOON:
        found = [one for one in found if one.get("model") == "dimm" or _has_memory(one)]
    if not found:
        return None
    model = found[0].get("model", "")
    reason = "which takes slots and room that growth needs"
    if request.growth is Growth.BALLOON:
        reason = "which would be taken for one that dynmem plugged"
        if model != "dimm":
            reason = "whose memory is beside what a balloon can be told to leave"
    say = f"take its <memory model='{model}'> devices out with virsh edit"
    if len(found) < len(request.root.findall(f"./devices/memory[@model='{model}']")):
        say += ": `dynmem enable` then adds its own"
    return Refusal(
        f"it has a memory device of its own (<memory model='{model}'>), {reason}",
        (WayOut(say, edit=lambda domain: _take_out(domain, model)),),
        other_growth=True,
    )


def _has_memory(device: Element) -> bool:
    """It is a virtio-mem device that has given its guest memory, or was asked to."""
    return device.get("model") == "virtio-mem" and any(
        target_size(device, one) for one in ("requested", "current")
    )


def agent_port(request: Request) -> Refusal | None:
    """A channel that has the name of the agent's port is one that libvirt opens, and leads to the guest."""
    for one in request.root.findall("./devices/channel"):
        target, source = one.find("target"), one.find("source")
        if target is None or target.get("name") != wire.PORT_NAME:
            continue
        kind, mode = one.get("type", ""), "" if source is None else source.get("mode", "")
        if kind == "unix" and target.get("type") == "virtio" and mode != "connect":
            continue
        connects = " that connects to another program's socket" if mode == "connect" else ""
        what = f"<channel type='{kind}'>{connects}"
        return Refusal(
            f"its port {wire.PORT_NAME} is a {what}, through which no agent can be heard",
            (WayOut(f"take it out with virsh edit: {PORT_OF_OURS}", edit=_drop_port),),
        )
    return None


def _drop_port(domain: Node) -> None:
    remove(find_channel(domain))


def pinned_without_growth(request: Request) -> Refusal | None:
    """A VM of fixed RAM that gives nothing back costs its maximum for ever: nothing about it is dynamic."""
    if request.growth is not Growth.BALLOON:
        return None
    for pin in pins(request.root, request.host.device_networks):
        if pin.why != ENCRYPTED:
            return Refusal(
                f"{pin.what} pins its memory ({pin.why}): by --growth balloon it would always cost maximum",
                _without(pin),
                other_growth=True,
            )
    return None


def discarding(request: Request) -> Refusal | None:
    """QEMU may discard pages, which virtio-mem needs (hw/virtio/virtio-mem.c, realize)."""
    if request.growth is not Growth.VIRTIO_MEM:
        return None
    for pin in pins(request.root):
        reason = None
        if pin.why == LOCKED:
            reason = "its memory is locked"
        elif pin.why == VFIO and "vdpa" in pin.what and pin.network is None:
            reason = "its vDPA device pins all of its memory"
        elif pin.why == HUGE_PAGES and request.page_bytes > VIRTIO_MEM_BLOCK_BYTES:
            reason = f"its huge pages are larger than a block of {format_size(VIRTIO_MEM_BLOCK_BYTES)}"
        elif (
            pin.why == VFIO and _most_mapped_bytes(request) < shape_of(request.limits, request.growth).device
        ):
            reason = f"a VFIO device can map {format_size(_most_mapped_bytes(request))} of it"
        if reason is not None:
            return Refusal(
                f"it cannot have virtio-mem: {reason} ({pin.what})", _without(pin), other_growth=True
            )
    return None


def unreserved(request: Request) -> Refusal | None:
    """QEMU can map what nobody has reserved, as libvirt has it do for virtio-mem (map_noreserve_effective in
    util/mmap-alloc.c).
    """
    root = request.root
    if request.growth is not Growth.VIRTIO_MEM or not request.host.reserves_all:
        return None
    if backs_with_huge_pages(root) or _is_shared(root):  # those the kernel counts otherwise
        return None
    return Refusal(
        "with virtio-mem QEMU would not start on this host, whose kernel reserves all that is mapped "
        "(vm.overcommit_memory is 2; `sysctl vm.overcommit_memory=0` changes that)",
        other_growth=True,
    )


def _most_mapped_bytes(request: Request) -> int:
    """Of virtio-mem, each block of which is mapped by itself (hw/vfio/common.c, RamDiscardManager). Beyond
    that QEMU answers the guest with an error, and its driver gives the device up
    (fact: virtio-mem-that-gives-up).
    """
    pieces = request.host.vfio_mappings or VFIO_MAPPINGS
    return max(0, pieces - VFIO_MAPPINGS_OF_OTHERS) * VIRTIO_MEM_BLOCK_BYTES


def _is_shared(root: Element) -> bool:
    """Whether what is added to the first NUMA cell is shared with whoever has its descriptor."""
    cell, access = root.find("./cpu/numa/cell[@id='0']"), root.find("./memoryBacking/access")
    source = root.find("./memoryBacking/source")
    told = "" if cell is None else cell.get("memAccess", "")
    told = told or ("" if access is None else access.get("mode", ""))
    return told == "shared" or (not told and source is not None and source.get("type") == "memfd")


def _without(pin: Pin) -> tuple[WayOut, ...]:
    """Take the thing out that pins."""
    if pin.argument is not None:
        return (without(pin.argument),)
    what = pin.what if pin.network is None else f"the interface with {pin.what}"
    return (WayOut(f"take {what} out with virsh edit", edit=lambda domain: _unpin(domain, pin)),)


def _unpin(domain: Node, pin: Pin) -> None:
    if pin.why in (LOCKED, HUGE_PAGES):
        backing = child(domain, "memoryBacking")
        remove(child(backing, "locked" if pin.why == LOCKED else "hugepages"))
        if not elements(backing):
            remove(backing)
        return
    devices = child(domain, "devices")
    if pin.network is not None:
        for one in elements(devices, "interface"):
            source = child(one, "source")
            if source is not None and source.getAttribute("network") == pin.network:
                remove(one)
    elif pin.device is not None:
        tag, kind = pin.device
        for one in elements(devices, tag):
            if one.getAttribute("type") == kind:
                remove(one)


def _take_out(domain: Node, model: str) -> None:
    for one in elements(child(domain, "devices"), "memory"):
        if one.getAttribute("model") == model:
            remove(one)
