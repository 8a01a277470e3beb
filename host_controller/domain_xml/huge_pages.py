"""Which huge pages a domain's memory lies in. Pure."""

from typing import Final
from xml.etree.ElementTree import Element

from host_controller.domain_xml.values import number, size_of, target_size
from host_controller.units import KIB

LARGEST_ORDINARY_PAGE_BYTES: Final = 64 * KIB
"""A kernel's own page size is no huge page to libvirt: 4 KiB, on some machines 16 or 64."""
MOST_NODES: Final = 1024
LONGEST_RANGE: Final = 100
"""Characters. Numbers of thousands of digits Python refuses to read."""


def backs_with_huge_pages(root: Element) -> bool:
    """Whether any of its memory lies in huge pages."""
    huge = root.find("./memoryBacking/hugepages")
    pages = [] if huge is None else huge.findall("page")
    return huge is not None and (
        not pages or any(size_of(one, "size") > LARGEST_ORDINARY_PAGE_BYTES for one in pages)
    )


def huge_page_size(root: Element) -> int | None:
    """The size of the huge pages that all guest RAM lies in; 0: the host's default size; None: in none.

    None also where only a part lies in huge pages, or parts in several sizes: such a VM is charged as if all
    of it were ordinary memory, which is rather too much than too little. A memory device may name pages of
    its own.
    """
    huge = root.find("./memoryBacking/hugepages")
    if huge is None:
        return None
    pages = huge.findall("page")
    own = {size_of(one) for one in root.findall("./devices/memory/source/pagesize")}
    if not pages:
        return None if own else 0
    sizes = {size_of(one, attribute="size") for one in pages} | own
    cells = len(root.findall("./cpu/numa/cell"))
    whole = any(one.get("nodeset") is None for one in pages) or _all_nodes(pages, cells)
    if len(sizes) > 1 or not whole or not max(sizes) > LARGEST_ORDINARY_PAGE_BYTES:
        return None
    return sizes.pop()


def ordinary_bytes(root: Element, boot_bytes: int) -> int:
    """RAM that lies in ordinary pages: of a domain whose guest nodes have pages of several sizes, or of which
    only some have huge ones. A virtio-mem device counts with what it has plugged or was asked for.
    """
    cells = [size_of(one, attribute="memory") for one in root.findall("./cpu/numa/cell")] or [boot_bytes]
    total = sum(size for node, size in enumerate(cells) if not _node_is_huge(root, node))
    for device in root.findall("./devices/memory"):
        target, own = device.find("target"), size_of(device.find("./source/pagesize"))
        node = number(None if target is None else target.findtext("node"))
        huge = own > LARGEST_ORDINARY_PAGE_BYTES if own else _node_is_huge(root, node)
        if not huge and device.get("model") == "dimm":
            total += target_size(device, "size")
        elif not huge and device.get("model") == "virtio-mem":
            total += max(target_size(device, "requested"), target_size(device, "current"))
    return total


def _node_is_huge(root: Element, node: int) -> bool:
    huge = root.find("./memoryBacking/hugepages")
    if huge is None:
        return False
    pages = huge.findall("page")
    mine = [one for one in pages if one.get("nodeset") and _covers(one, node)]
    mine = mine or [one for one in pages if one.get("nodeset") is None]
    return not pages or any(size_of(one, attribute="size") > LARGEST_ORDINARY_PAGE_BYTES for one in mine)


def _covers(page: Element, node: int) -> bool:
    nodes = _nodes([page])
    return nodes is not None and node in nodes


def _all_nodes(pages: list[Element], cells: int) -> bool:
    """Whether nodesets like `0-2,4,^1` cover every guest node."""
    covered = _nodes(pages)
    return covered is not None and set(range(max(1, cells))) <= covered


def _nodes(pages: list[Element]) -> set[int] | None:
    """The guest nodes that these nodesets name; None where one cannot be read."""
    covered: set[int] = set()
    for text in (one.get("nodeset", "") for one in pages):
        for part in text.split(","):
            first, _, last = part.strip().removeprefix("^").partition("-")
            if not first.isdecimal() or (last and not last.isdecimal()) or len(part) > LONGEST_RANGE:
                return None
            nodes = set(range(int(first), min(int(last or first), MOST_NODES) + 1))
            covered = covered - nodes if part.strip().startswith("^") else covered | nodes
    return covered
