"""Whether a domain that was not prepared can take part while it runs, with the devices that it has."""

from typing import Final
from xml.etree.ElementTree import Element

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.fitness import devices, machine, passed_on
from host_controller.domain_xml.fitness.judge import Check
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut
from host_controller.domain_xml.pinning import DEFLATES, NO_BALLOON, pinned_by
from host_controller.domain_xml.values import attribute_number

NEXT_START: Final = (WayOut("shut it down and `dynmem enable` it: its next start has what it lacks"),)


def balloon(request: Request) -> Refusal | None:
    """Its balloon can be moved, and what it takes stays taken."""
    why = pinned_by(request.root)
    if why == NO_BALLOON:
        return Refusal("it has no memory balloon, and none can be plugged into a running VM", NEXT_START)
    if why == DEFLATES:
        reason = "its balloon deflates by itself (deflate-on-oom), so what it gives back goes to nobody"
        return Refusal(reason, NEXT_START)
    return None


CHECKS: Final[tuple[Check, ...]] = (
    machine.hypervisor,
    passed_on.overrides,
    devices.encryption,
    devices.memory_devices,
    devices.pinned_without_growth,
    balloon,
)


def obstacles(root: Element, limits: Limits, growth: Growth) -> tuple[Refusal, ...]:
    """What keeps it from taking part as it is; `root` is its definition, or what runs where it has none."""
    request = Request(root, limits, growth)
    return tuple(found for check in CHECKS if (found := check(request)) is not None)


def natural_growth(root: Element) -> Growth:
    """How it can grow with what it was defined with: by DIMMs only where all of its slots are free.

    Never by a virtio-mem device of its user's: nobody would know what size to give it back with.
    """
    if not root.findall("./devices/memory") and attribute_number(root.find("maxMemory"), "slots"):
        return Growth.HOTADD
    return Growth.BALLOON
