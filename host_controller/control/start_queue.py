"""VMs that are about to start here, and which of them come first."""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from host_controller.config.rule import RuleSection
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.values import parse_xml
from host_controller.rules.matching import is_managed


@dataclass(frozen=True, slots=True)
class Start:
    """A VM that is about to start."""

    name: str
    managed: bool
    need_bytes: int
    """Of ordinary memory, beside what huge pages are yet to be made of."""
    huge_page_bytes: int | None = None
    """The size of the huge pages that its RAM lies in; 0: the host's default; None: in none."""
    huge_bytes: int = 0
    """What it needs of their pool."""


def read_start(xml: str, overhead_bytes: int, rules: tuple[RuleSection, ...] = ()) -> Start:
    """What a start needs, from the XML on the hook's input.

    All RAM that the guest can touch before its balloon driver speaks, and QEMU's own; and startup, where it
    boots with less and is given the rest from its virtio-mem. For a restore or an incoming migration the XML
    has what was plugged. rules: one of them may be for it, and whoever is managed is charged all of its RAM.

    Raises:
        DomainUnsuitable: not a domain's XML.
    """
    domain = read_domain(xml)
    devices = parse_xml(xml).findall("./devices/memory[@model='virtio-mem']/target")
    ram = domain.could_take_bytes if _has_run(devices) else domain.starts_with_bytes
    managed = is_managed(xml, domain, rules)
    if domain.huge_page_bytes is not None:
        return Start(domain.name, managed, overhead_bytes, domain.huge_page_bytes, ram)
    if not managed:
        ram = domain.ordinary_bytes
    return Start(domain.name, managed, ram + overhead_bytes)


def _has_run(devices: list[Element]) -> bool:
    """It is restored or comes from another host: libvirt then tells what its devices have plugged."""
    return any(one.find("current") is not None for one in devices)


class Asked:
    """One request for a start. Another one for the same VM takes its place, at the end."""

    def __init__(self, start: Start) -> None:
        self.start = start


class Queue:
    """All starts that are asked for and not in the books yet, in the order of their requests."""

    def __init__(self) -> None:
        self._asked: dict[str, Asked] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._asked

    def enter(self, start: Start) -> Asked:
        """Whoever asked for the same VM before is not waited for any more."""
        self._asked.pop(start.name, None)
        one = self._asked[start.name] = Asked(start)
        return one

    def has(self, one: Asked) -> bool:
        """It is the latest request for its VM."""
        return self._asked.get(one.start.name) is one

    def leave(self, one: Asked) -> None:
        """It has its answer."""
        if self.has(one):
            del self._asked[one.start.name]

    def before(self, one: Asked | None) -> Iterator[Start]:
        """Those that were asked for earlier, in this order; all of them before one that is not here yet."""
        for other in self._asked.values():
            if other is one:
                return
            yield other.start
