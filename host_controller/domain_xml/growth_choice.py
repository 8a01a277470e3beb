"""How a domain is to grow where its user does not say: virtio-mem, else DIMMs, else the balloon. Pure.

Virtio-mem first, since it gives and takes whole blocks of 2 MiB, in any size and without slots. What the
host's burn-in has shown counts for more than what its versions promise. A domain that runs goes by what it
was defined with.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml import guest_system
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.fitness.running import natural_growth
from host_controller.domain_xml.values import parse_xml

FIRST: Final = (Growth.VIRTIO_MEM, Growth.HOTADD, Growth.BALLOON)
NAMES: Final = {Growth.VIRTIO_MEM: "virtio-mem", Growth.HOTADD: "DIMMs", Growth.BALLOON: "the balloon alone"}
SINCE: Final = {Growth.VIRTIO_MEM: (7_009_000, 5_001_000), Growth.HOTADD: (1_002_014, 2_001_000)}
"""The first libvirt and QEMU that resize it while the guest runs, numbered as libvirt does."""
PROVEN_BY: Final = {
    Growth.VIRTIO_MEM: ("virtio-mem",),
    Growth.HOTADD: ("hot add", "online", "unplug"),
}
"""What `dynmem verify` calls the checks that it has to pass."""


@dataclass(frozen=True, slots=True)
class HostAbilities:
    """What is known of the host that a domain is for. Versions are 0, and `passed` None, where nothing is."""

    libvirt: int = 0
    """1000000 * major + 1000 * minor + release."""
    qemu: int = 0
    address_bits: int | None = None
    huge_page_bytes: int | None = None
    """The huge pages that whoever names no size gets."""
    device_networks: frozenset[str] = frozenset()
    """Networks that hand out devices of the host."""
    passed: frozenset[str] | None = None
    """The checks that its burn-in passed; None where these versions had none."""

    def obstacles(self, growth: Growth) -> Iterator[str]:
        """Why this host cannot let a VM grow so, or is not known to."""
        since = SINCE.get(growth, (0, 0))
        for name, found, first in zip(("libvirt", "QEMU"), (self.libvirt, self.qemu), since, strict=True):
            if 0 < found < first:
                yield f"{name} {_text(found)} cannot resize it; {_text(first)} can"
        if self.passed is not None:
            for check in PROVEN_BY.get(growth, ()):
                if check not in self.passed:
                    yield f"`dynmem verify` did not pass {check!r} on this host"


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
    known = host.address_bits, host.huge_page_bytes, host.device_networks
    yield from (one.reason for one in refusals(xml, limits, growth, *known))


def _text(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}"
