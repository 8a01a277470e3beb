"""Changes a domain's XML so that it can do dynamic memory. Pure: text in, text out. `restore.py` undoes it.

Works on a DOM, so that whatever is not ours (comments, foreign namespaces such as qemu:commandline, the order
and layout of elements) stays as it was. What `enable` overwrites is kept in our metadata element, under
`before`, and `disable` puts exactly that back.
"""

import difflib
from dataclasses import dataclass
from xml.dom.minidom import Element
from xml.etree.ElementTree import Element as XmlElement

from host_controller.core.model import Growth, Limits, Trust
from host_controller.domain_xml import pieces
from host_controller.domain_xml.before import growth_named, had_cells, marked_adopted, record, write_ours
from host_controller.domain_xml.dom import child, create, elements, insert, parse, remove, size_of, text_of
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.host_abilities import NOTHING_KNOWN, HostAbilities
from host_controller.domain_xml.huge_pages import huge_page_size
from host_controller.domain_xml.notes import notes
from host_controller.domain_xml.set_aside import set_aside
from host_controller.domain_xml.shape import Shape, of_few_regions, shape_of
from host_controller.domain_xml.traces import reclaim
from host_controller.domain_xml.values import architecture_of, is_x86, number, page_bytes, parse_xml
from host_controller.errors import DomainUnsuitable, InputError
from host_controller.units import MIB


@dataclass(frozen=True, slots=True)
class Plan:
    """What `enable` did, and what the user should know of it."""

    xml: str
    notes: tuple[str, ...]


def enable(
    xml: str,
    limits: Limits,
    growth: Growth,
    trust: Trust = Trust.GUEST,
    host: HostAbilities = NOTHING_KNOWN,
) -> Plan:
    """The XML of a domain with dynamic memory. Doing it twice changes nothing more.

    hotadd: RAM is startup, maxMemory leaves room for DIMMs up to maximum. virtio-mem: RAM is what `boot_ram`
    says, and one device covers the rest, empty at the start. balloon: RAM is maximum, and the balloon starts
    at startup.
    All: a balloon with statistics and free page reporting, without deflate-on-oom, and the agent's channel.
    DIMMs of ours that a definition holds (it was written from what ran) are taken out.

    Raises:
        InputError: the limits cannot be used.
        DomainUnsuitable: this domain cannot do it; the sentence says why and what to do.
    """
    problems = limits.problems()
    if problems:
        raise InputError("; ".join(problems))
    for refusal in refusals(xml, limits, growth, host):
        raise DomainUnsuitable(refusal.reason, hint=refusal.hint)
    cleaned, said = reclaim(xml)
    root = parse_xml(cleaned)
    shape = shape_of(
        limits,
        growth,
        _granule(root),
        set_aside(root, limits.startup_bytes).total,
        cells=max(1, len(root.findall("./cpu/numa/cell"))),
        huge=huge_page_size(root) is not None,
        few_regions=of_few_regions(root),
        large_blocks=is_x86(root),
    )
    tree, domain = parse(cleaned)
    had_ours = growth_named(domain) == Growth.VIRTIO_MEM and not marked_adopted(domain)
    if had_ours and growth is not Growth.VIRTIO_MEM:
        pieces.drop_virtio_mem(domain)
    write_ours(domain, limits, growth, trust)  # first of all: it keeps what the rest overwrites
    _set_memory(domain, growth, shape, _granule(root))
    devices = child(domain, "devices") or insert(domain, create(domain, "devices"))
    if shape.device:
        pieces.set_virtio_mem(devices, shape.device)
    pieces.set_balloon(devices)
    pieces.set_channel(domain, devices)
    return Plan(text_of(tree, xml), (*said, *notes(root, limits, growth, shape, host)))


def difference(old: str, new: str, name: str) -> str:
    """A unified diff for people, without a line's end after the last; empty when nothing differs."""
    return "".join(
        difflib.unified_diff(
            old.strip().splitlines(keepends=True),
            new.strip().splitlines(keepends=True),
            f"{name} (now)",
            f"{name} (with the change)",
            n=2,
        )
    ).rstrip("\n")


def _granule(root: XmlElement) -> int:
    """Boot RAM is made of whole pages; POWER's comes in logical blocks."""
    return max(MIB, page_bytes(root), 256 * MIB if architecture_of(root).startswith("ppc64") else 0)


def _set_memory(domain: Element, growth: Growth, shape: Shape, granule_bytes: int) -> None:
    memory = child(domain, "memory")
    foreign = _foreign_bytes(domain, growth)
    hot = growth is not Growth.BALLOON
    if hot:
        ceiling = pieces.set_size(domain, "maxMemory", shape.ceiling, memory)
        ceiling.setAttribute("slots", str(shape.slots))
    elif foreign:  # they need it, whatever we do
        _keep_ceiling(domain, shape.boot + foreign)
    else:
        remove(child(domain, "maxMemory"))
    # libvirt counts every memory device whole, NVDIMMs included.
    memory = pieces.set_size(domain, "memory", shape.boot + shape.device + foreign)
    pieces.set_size(domain, "currentMemory", min(shape.startup, shape.boot), memory.nextSibling)
    before = record(domain)
    ours, needed = before is not None and not had_cells(before), hot or bool(foreign)
    if ours and not needed:
        pieces.drop_cell(domain, had_cpu=before is not None and before.getAttribute("cpu") != "absent")
    pieces.set_cells(domain, shape.boot, granule_bytes, needed=needed, ours=ours)


def _keep_ceiling(domain: Element, needed_bytes: int) -> None:
    ceiling = child(domain, "maxMemory")
    slots = 0 if ceiling is None else number(ceiling.getAttribute("slots"))
    kept = pieces.set_size(domain, "maxMemory", max(size_of(ceiling), needed_bytes), child(domain, "memory"))
    kept.setAttribute("slots", str(max(slots, len(elements(child(domain, "devices"), "memory")))))


def _foreign_bytes(domain: Element, growth: Growth) -> int:
    """Sizes of memory devices that stay in a domain of fixed RAM: NVDIMMs and the like."""
    if growth is not Growth.BALLOON:
        return 0
    return sum(map(pieces.device_bytes, elements(child(domain, "devices"), "memory")))
