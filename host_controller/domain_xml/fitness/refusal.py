"""What a check finds, and the ways out of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from xml.dom.minidom import Element as Node
from xml.etree.ElementTree import Element

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.dom import parse, text_of
from host_controller.domain_xml.host_abilities import NOTHING_KNOWN, HostAbilities
from host_controller.domain_xml.huge_pages import backs_with_huge_pages
from host_controller.domain_xml.values import page_bytes

LEFT_ALONE: Final = "leave it as it is: an unmanaged VM is counted with all of its RAM"
"""The way out of what nobody can change. It is true of every VM."""


@dataclass(frozen=True, slots=True)
class Request:
    """What `enable` is asked to make of a domain."""

    root: Element
    limits: Limits
    growth: Growth
    host: HostAbilities = NOTHING_KNOWN

    @property
    def page_bytes(self) -> int:
        """The largest huge page of the domain; 0 without huge pages, or where nobody knows."""
        if backs_with_huge_pages(self.root):
            return page_bytes(self.root) or self.host.huge_page_bytes or 0
        return 0


@dataclass(frozen=True, slots=True)
class WayOut:
    """A change after which the obstacle is gone. At most one of its parts is set."""

    say: str
    """For people, as an imperative: `take out <locked/> with virsh edit`."""
    growth: Growth | None = None
    limits: Limits | None = None
    edit: Callable[[Node], None] | None = None
    """Changes the <domain> element."""

    def follow(self, xml: str, limits: Limits, growth: Growth) -> tuple[str, Limits, Growth]:
        """Take the step: what `enable` is then asked."""
        if self.edit is not None:
            tree, domain = parse(xml)
            self.edit(domain)
            xml = text_of(tree, xml)
        return xml, self.limits or limits, self.growth or growth


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why `enable` does not take a domain: the element and the reason in one sentence, and the ways out."""

    reason: str
    ways_out: tuple[WayOut, ...] = ()
    other_growth: bool = False
    """Another way to grow may do: `judge` offers those that do."""

    @property
    def hint(self) -> str:
        """The ways out in one sentence."""
        return ", or ".join(one.say for one in self.ways_out) or LEFT_ALONE


def with_limits(request: Request, say: str, **changes: int) -> WayOut:
    """A way out by other limits."""
    return WayOut(say, limits=replace(request.limits, **changes))
