"""Whether a domain that was not prepared can take part while it runs, with the devices that it has."""

from dataclasses import replace
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.fitness import devices, kernel, machine, passed_on, sizes
from host_controller.domain_xml.fitness.judge import Check
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut
from host_controller.domain_xml.pinning import BEHIND_IOMMU, DEFLATES, NO_BALLOON, pinned_by
from host_controller.domain_xml.values import attribute_number

_NO_LIMITS: Final = Limits(0, 0, 0)
NEXT_START: Final = (WayOut("shut it down and `dynmem enable` it: its next start has what it lacks"),)

BY_BALLOON: Final = WayOut("let its balloon alone move it: growth by balloon")


def balloon(request: Request) -> Refusal | None:
    """Its balloon can be moved, and what it takes stays taken."""
    why = pinned_by(request.root)
    if why == NO_BALLOON:
        return Refusal("it has no memory balloon, and none can be plugged into a running VM", NEXT_START)
    if why == BEHIND_IOMMU:
        reason = "its balloon is behind an IOMMU (<driver iommu='on'/>), for which Linux has no driver"
        return Refusal(reason, NEXT_START)
    if why == DEFLATES:
        reason = "its balloon deflates by itself (deflate-on-oom), so what it gives back goes to nobody"
        return Refusal(reason, NEXT_START)
    return None


def memory(request: Request) -> Refusal | None:
    """Its memory devices are such as its growth goes by, and none is taken for another."""
    if request.growth is not Growth.VIRTIO_MEM:
        return devices.memory_devices(request)
    count = len(request.root.findall("./devices/memory[@model='virtio-mem']"))
    if count != 1:
        ways = (*NEXT_START, BY_BALLOON)
        return Refusal(f"growth by virtio-mem needs one virtio-mem device, and it has {count}", ways)
    if request.root.find("./devices/memory[@model='dimm']") is not None:
        say = "take its <memory model='dimm'> devices out with virsh edit"
        return Refusal("it has a DIMM beside its virtio-mem device, which no balloon empties", (WayOut(say),))
    return None


GROWTH: Final[tuple[Check, ...]] = (
    machine.hot_add,
    kernel.kernel_line,
    passed_on.capabilities,
    sizes.page_size,
)
"""Whether the machine, libvirt and the guest's kernel take what its growth plugs. They look at no limits."""
CHECKS: Final[tuple[Check, ...]] = (
    machine.hypervisor,
    *GROWTH,
    passed_on.memory_arguments,
    passed_on.overrides,
    devices.encryption,
    memory,
    devices.discarding,
    devices.pinned_without_growth,
    balloon,
)


def obstacles(root: Element, limits: Limits, growth: Growth) -> tuple[Refusal, ...]:
    """What keeps it from taking part as it is; `root` is its definition, or what runs where it has none."""
    found = _ask(Request(root, limits, growth))
    if growth is Growth.BALLOON or _ask(Request(root, limits, Growth.BALLOON)):
        return found
    return tuple(
        replace(one, ways_out=(*one.ways_out, BY_BALLOON))
        if one.other_growth and BY_BALLOON not in one.ways_out
        else one
        for one in found
    )


def _ask(request: Request) -> tuple[Refusal, ...]:
    return tuple(found for check in CHECKS if (found := check(request)) is not None)


def natural_growth(root: Element) -> Growth:
    """How it can grow with what it was defined with: as its devices are for, where it can take that."""
    growth = growth_by_devices(root)
    request = Request(root, _NO_LIMITS, growth)
    return Growth.BALLOON if any(check(request) for check in GROWTH) else growth


def growth_by_devices(root: Element) -> Growth:
    """By its virtio-mem device; by DIMMs where all of its slots are free; else by its balloon."""
    models = [one.get("model") for one in root.findall("./devices/memory")]
    if models.count("virtio-mem") == 1 and "dimm" not in models:
        return Growth.VIRTIO_MEM
    if not models and attribute_number(root.find("maxMemory"), "slots"):
        return Growth.HOTADD
    return Growth.BALLOON
