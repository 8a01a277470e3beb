"""A domain as the core may go by it: its limits were judged when it was prepared, and may be too wide by now.

Commands show and write the definition, as its user wants it; this is for who carries it out.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from host_controller.core.model import Growth
from host_controller.domain_xml.shape import SLOTS_OF_FEW_REGIONS, of_few_regions
from host_controller.domain_xml.values import parse_xml
from host_controller.domain_xml.view import DomainView
from host_controller.host.limits import Limit
from host_controller.rules.taking import within_memtune

SEVERAL_DEVICES: Final = "several virtio-mem devices"


def as_it_runs(view: DomainView, xml: str, limit: Limit | None = None) -> DomainView:
    """The view with limits that what runs can bear. `xml`: of the running domain.

    limit: of its control group, whoever has set it.
    """
    others = {} if limit is None else {limit.group: limit.left_bytes}
    return _within_memtune(_within_regions(_with_one_device(view, xml), xml), xml, others)


def _with_one_device(view: DomainView, xml: str) -> DomainView:
    """Of several virtio-mem devices only their sum is known, so none can be asked for a size: that would come
    on top of what the others have, and nobody would have paid for it.
    """
    config = view.config
    if config is None or config.growth is not Growth.VIRTIO_MEM:
        return view
    if len(parse_xml(xml).findall("./devices/memory[@model='virtio-mem']")) < 2:
        return view
    limits = config.limits
    startup = min(limits.startup_bytes, max(limits.minimum_bytes, view.boot_ram_bytes))
    return replace(
        view,
        config=replace(
            config,
            growth=Growth.BALLOON,
            pinned=config.pinned or SEVERAL_DEVICES,
            limits=replace(limits, startup_bytes=startup),
        ),
    )


def _within_regions(view: DomainView, xml: str) -> DomainView:
    """Beside a vhost-user back end QEMU refuses DIMMs that the XML has slots for: few and larger ones fit."""
    config = view.config
    if config is None or "vhost" not in xml or not of_few_regions(parse_xml(xml)):
        return view
    slots = min(config.slots, max(SLOTS_OF_FEW_REGIONS, len(view.dimms)))
    return replace(view, config=replace(config, slots=slots))


def _within_memtune(view: DomainView, xml: str, others: Mapping[str, int]) -> DomainView:
    """Whoever grows beyond a limit of its control group is killed by the host's kernel."""
    config = view.config
    if config is None or not ("<memtune" in xml or others):
        return view
    bounded = within_memtune(config.limits, parse_xml(xml), view, config.growth, others)
    if not bounded.by:
        return view
    config = replace(config, limits=bounded.limits, defaults=bounded.sources(config.defaults))
    return replace(view, config=config, problems=(*view.problems, *bounded.said))
