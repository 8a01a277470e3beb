"""Asks every check, and keeps the promise that each hint leads somewhere."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.fitness import devices, kernel, machine, passed_on, sizes, slots
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut
from host_controller.domain_xml.guest_system import against
from host_controller.domain_xml.host_abilities import NOTHING_KNOWN, HostAbilities
from host_controller.domain_xml.traces import reclaim
from host_controller.domain_xml.values import parse_xml

Check = Callable[[Request], Refusal | None]

CHECKS: Final[tuple[Check, ...]] = (
    machine.hypervisor,
    machine.bus,
    machine.hot_add,
    machine.addresses,
    kernel.kernel_line,
    passed_on.memory_arguments,
    passed_on.overrides,
    passed_on.capabilities,
    devices.encryption,
    devices.memory_devices,
    devices.agent_port,
    devices.pinned_without_growth,
    devices.discarding,
    devices.unreserved,
    slots.slots,
    sizes.page_size,
    sizes.smallest_block,
    sizes.boots,
    sizes.memtune,
)


MOST_STEPS: Final = 64
"""Steps that are tried before a way out is believed."""


def refusals(
    xml: str, limits: Limits, growth: Growth, host: HostAbilities = NOTHING_KNOWN
) -> tuple[Refusal, ...]:
    """Everything that keeps this domain from growing like this; empty when `enable` takes it.

    No way out is offered at whose end `enable` would still refuse: of two obstacles one may have none.

    Raises:
        DomainUnsuitable: not a domain's XML.
    """
    asked = (xml, limits, growth)
    return tuple(
        replace(one, ways_out=tuple(way for way in one.ways_out if _leads_on(way, asked, host)))
        for one in _judged(*asked, host)
    )


def _leads_on(way: WayOut, asked: tuple[str, Limits, Growth], host: HostAbilities) -> bool:
    """Whether `enable` takes the domain after this step, and after others that it is told of then."""
    seen = {asked}
    ahead = [(way, asked)]
    while ahead and len(seen) <= MOST_STEPS:
        step, before = ahead.pop()
        now = step.follow(*before)
        if now in seen:
            continue
        seen.add(now)
        left = _judged(*now, host)
        if not left:
            return True
        ahead += [(way, now) for one in reversed(left) for way in reversed(one.ways_out)]
    return bool(ahead)


def _judged(xml: str, limits: Limits, growth: Growth, host: HostAbilities) -> tuple[Refusal, ...]:
    """What the checks find, with every way out that each of them knows."""
    request = Request(parse_xml(reclaim(xml)[0]), limits, growth, host)
    found = _ask(request)
    others = [
        one
        for one in Growth
        if found and one is not growth and against(request.root, one) is None
        if not _ask(replace(request, growth=one))
    ]
    by_growth = tuple(WayOut(f"use --growth {one}", growth=one) for one in others)
    return tuple(
        replace(one, ways_out=by_growth + one.ways_out) if one.other_growth else one for one in found
    )


def _ask(request: Request) -> list[Refusal]:
    return [found for check in CHECKS if (found := check(request)) is not None]
