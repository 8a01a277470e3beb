"""How a domain is to grow where its user does not say: virtio-mem, else DIMMs, else the balloon. Pure.

Virtio-mem first, since it gives and takes whole blocks of 2 MiB, in any size and without slots. What the
host's burn-in has shown counts for more than what its versions promise. A domain that runs goes by what it
was defined with.
"""

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml import guest_system
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.fitness.running import natural_growth
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.values import parse_xml

FIRST: Final = (Growth.VIRTIO_MEM, Growth.HOTADD, Growth.BALLOON)
NAMES: Final = {Growth.VIRTIO_MEM: "virtio-mem", Growth.HOTADD: "DIMMs", Growth.BALLOON: "the balloon alone"}


def choose(xml: str, limits: Limits, host: HostAbilities) -> tuple[Growth, tuple[str, ...]]:
    """The first way to grow that works for this domain on this host, and the reasons, in sentences.

    The balloon where nothing works: `enable` then says what stands in its way.

    Raises:
        DomainUnsuitable: not a domain's XML.
    """
    passed_over: list[str] = []
    for growth in FIRST:
        against = next(_against(xml, limits, growth, host), None)
        if against is None or growth is FIRST[-1]:
            return growth, (f"it grows by {NAMES[growth]} (--growth auto)", *passed_over)
        passed_over.append(f"not by {NAMES[growth]}: {against}")
    raise AssertionError("the balloon is always left")


def while_running(root: Element, host: HostAbilities) -> tuple[Growth, str | None]:
    """How a domain grows with what it was defined with, and why not where its balloon alone is left."""
    natural = natural_growth(root)
    against = next(host.obstacles(natural), None)
    if against is None:
        return natural, None
    return Growth.BALLOON, f"its balloon alone moves it, not {NAMES[natural]}: {against}"


def _against(xml: str, limits: Limits, growth: Growth, host: HostAbilities) -> Iterator[str]:
    yield from host.obstacles(growth)
    noted = guest_system.against(parse_xml(xml), growth)
    if noted is not None:
        yield noted
    yield from (one.reason for one in refusals(xml, limits, growth, host))
