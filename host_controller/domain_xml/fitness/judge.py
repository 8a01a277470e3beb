"""Asks every check, and keeps the promise that each hint leads somewhere."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.fitness import devices, kernel, machine, passed_on, sizes
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut
from host_controller.domain_xml.traces import reclaim
from host_controller.domain_xml.values import parse_xml

Check = Callable[[Request], Refusal | None]

CHECKS: Final[tuple[Check, ...]] = (
    machine.hypervisor,
    machine.bus,
    machine.hot_add,
    machine.virtio_mem,
    machine.addresses,
    kernel.kernel_line,
    passed_on.memory_arguments,
    passed_on.overrides,
    passed_on.capabilities,
    devices.encryption,
    devices.memory_devices,
    devices.pinned_without_growth,
    devices.discarding,
    sizes.page_size,
    sizes.boots,
    sizes.memtune,
)


def refusals(
    xml: str, limits: Limits, growth: Growth, host_address_bits: int | None = None
) -> tuple[Refusal, ...]:
    """Everything that keeps this domain from growing like this; empty when `enable` takes it.

    Raises:
        DomainUnsuitable: not a domain's XML.
    """
    request = Request(parse_xml(reclaim(xml)[0]), limits, growth, host_address_bits)
    found = _ask(request)
    others = [one for one in Growth if one is not growth and found and not _ask(replace(request, growth=one))]
    by_growth = tuple(WayOut(f"use --growth {one}", growth=one) for one in others)
    return tuple(
        replace(one, ways_out=by_growth + one.ways_out) if one.other_growth else one for one in found
    )


def _ask(request: Request) -> list[Refusal]:
    return [found for check in CHECKS if (found := check(request)) is not None]
