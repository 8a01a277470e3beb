"""What `enable` and the controller leave in a definition that no record tells of. Pure.

Some tools write a domain anew without our metadata, or from the XML that it runs with, DIMMs and all. What is
surely ours can still be told from what is the user's, and is taken out.
"""

from collections.abc import Iterator
from typing import Final
from xml.dom.minidom import Element

from agent import wire
from host_controller.core.model import VIRTIO_MEM_BLOCK_BYTES, Growth
from host_controller.domain_xml import pieces
from host_controller.domain_xml.before import growth_named, record
from host_controller.domain_xml.dom import child, elements, parse, remove, size_of, text_of
from host_controller.domain_xml.shape import SLOTS, SLOTS_OF_FEW_REGIONS
from host_controller.units import format_size

OWNED_MODEL: Final = {Growth.HOTADD: "dimm", Growth.VIRTIO_MEM: "virtio-mem"}
"""The memory devices that are the controller's where our metadata names this growth."""
FINGERPRINT: Final = {"autodeflate": "off", "freePageReporting": "on"}
"""Of the balloon that `enable` makes; with the agent's channel and statistics every second it is ours."""
OUR_CELL: Final = {"id", "cpus", "memory", "unit"}
OUR_SLOTS: Final = (str(SLOTS), str(SLOTS_OF_FEW_REGIONS), "1")
"""For DIMMs, and for one virtio-mem device."""


def reclaim(xml: str) -> tuple[str, tuple[str, ...]]:
    """The XML without such traces, as `enable` and its checks look at it, and what was taken out."""
    tree, domain = parse(xml)
    if record(domain) is None and looks_prepared(domain):
        notes = tuple(undo_by_traces(domain))
    elif gone := drop_dimms(domain):
        notes = (tell_dimms(gone),)
    else:
        return xml, ()
    return text_of(tree, xml), notes


def tell_dimms(count: int) -> str:
    """That so many DIMMs went."""
    return f"DIMMs that the controller had plugged ({count}) are taken out of its definition"


def was_prepared(xml: str) -> bool:
    """Whether `enable` made this, by its traces alone: some tool may have dropped our metadata."""
    return wire.PORT_NAME in xml and looks_prepared(parse(xml)[1])


def drop_dimms(domain: Element) -> int:
    """Take out DIMMs that the controller plugged. Returns how many there were."""
    if growth_named(domain) != Growth.HOTADD:
        return 0
    return pieces.drop_memory_devices(domain, OWNED_MODEL[Growth.HOTADD])


def looks_prepared(domain: Element) -> bool:
    """Whether `enable` made this, by its traces alone: the agent's channel, with one of its other pieces.

    A tool that wrote the domain anew may have left the balloon out, and libvirt has put a plain one in.
    """
    if pieces.find_channel(domain) is None:
        return False
    balloon = child(child(domain, "devices"), "memballoon")
    if balloon is None or balloon.getAttribute("model") == "none" or _asks_as_ours(balloon):
        return True
    return child(balloon, "stats") is None and _has_our_room(domain)


def _asks_as_ours(balloon: Element | None) -> bool:
    stats = child(balloon, "stats")
    return (
        balloon is not None
        and stats is not None
        and stats.getAttribute("period") == "1"
        and all(balloon.getAttribute(name) == value for name, value in FINGERPRINT.items())
    )


def _has_our_room(domain: Element) -> bool:
    """Room for memory as `enable` makes it: so many slots, above one plain cell."""
    ceiling = child(domain, "maxMemory")
    cells = elements(child(child(domain, "cpu"), "numa"), "cell")
    return (
        ceiling is not None
        and ceiling.getAttribute("slots") in OUR_SLOTS
        and len(cells) == 1
        and _is_plain(cells[0])
    )


def undo_by_traces(domain: Element) -> Iterator[str]:
    """Take out what is surely ours of a domain whose record is lost, and say what is not known.

    It keeps the RAM that it boots with, and its balloon.
    """
    devices = child(domain, "devices")
    hot = child(domain, "maxMemory") is not None
    _drop_devices_of_ours(domain)
    if hot and not elements(devices, "memory"):
        remove(child(domain, "maxMemory"))
        boot = _boot_bytes(domain)
        _drop_our_cell(domain)
        for tag in ("memory", "currentMemory"):
            pieces.set_size(domain, tag, boot)
    remove(pieces.find_channel(domain))
    size = child(domain, "memory" if hot else "currentMemory")
    kept = "?" if size is None else format_size(size_of(size))
    if hot:
        yield f"what it was before is not recorded any more: it keeps {kept} of RAM, what it booted with"
    else:
        yield (
            "what it was before is not recorded any more: it keeps its RAM, of which it had "
            f"{kept} at start (currentMemory)"
        )
    if _asks_as_ours(child(devices, "memballoon")):
        yield "its balloon keeps statistics and free page reporting, which harm nobody"


def _drop_devices_of_ours(domain: Element) -> None:
    ceiling = child(domain, "maxMemory")
    if ceiling is None:
        return
    pieces.drop_memory_devices(domain, "dimm")
    for device in elements(child(domain, "devices"), "memory"):
        ours = size_of(child(child(device, "target"), "block")) == VIRTIO_MEM_BLOCK_BYTES
        if device.getAttribute("model") == "virtio-mem" and ours and ceiling.getAttribute("slots") == "1":
            remove(device)


def _boot_bytes(domain: Element) -> int:
    cells = elements(child(child(domain, "cpu"), "numa"), "cell")
    return sum(size_of(one, "memory") for one in cells) or size_of(child(domain, "memory"))


def _drop_our_cell(domain: Element) -> None:
    """A single plain cell is what `enable` makes, and says no more than a domain without cells."""
    cpu = child(domain, "cpu")
    numa = child(cpu, "numa")
    cells = elements(numa)
    if len(cells) == 1 and _is_plain(cells[0]):
        remove(numa)
        if cpu is not None and not elements(cpu) and not cpu.attributes.length:
            remove(cpu)


def _is_plain(cell: Element) -> bool:
    return set(dict(cell.attributes.items())) <= OUR_CELL and not elements(cell)
