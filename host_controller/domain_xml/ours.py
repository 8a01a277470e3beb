"""Our part of a domain's XML: one element in <metadata>, with sizes in KiB. Pure.

    <dynmem:vm xmlns:dynmem="urn:dynmem:domain:1" growth="hotadd" trust="guest"
               startup="1048576" minimum="262144" maximum="4194304" buffer="20" weight="100">
      <before>…</before>
    </dynmem:vm>

`before` is what `disable` puts back. Written into a definition it has no namespace; virDomainSetMetadata
gives ours to every element that it is handed, so it is read with and without. `adopted="yes"` says that it
was written while the domain ran, by `dynmem adopt`.
"""

from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.core.model import ADOPTED, METADATA, Growth, Limits, Trust
from host_controller.domain_xml.values import number
from host_controller.units import KIB

NAMESPACE: Final = "urn:dynmem:domain:1"
PREFIX: Final = "dynmem"
TAG: Final = f"{{{NAMESPACE}}}vm"
LET_GO: Final = "let-go"
"""An attribute of an element that is only a record any more: `dynmem release` is at work."""

OWED: Final = "owed"
"""An attribute of an element whose limits are what the domain is to be given back (`dynmem release`)."""


@dataclass(frozen=True, slots=True)
class Ours:
    """Our element of <metadata>."""

    limits: Limits
    growth: Growth
    trust: Trust
    source: str = METADATA
    """As VmConfig.source."""
    defaults: tuple[tuple[str, str], ...] = ()
    """As VmConfig.defaults."""


def find_ours(root: Element) -> tuple[Ours | None, tuple[str, ...]]:
    """Our element and what is wrong with it; None where there is none, or none that can be used."""
    element = root.find(f"./metadata/{TAG}")
    if element is None or element.get(LET_GO):
        return None, ()
    try:
        ours = Ours(
            Limits(
                startup_bytes=_needed(element, "startup") * KIB,
                minimum_bytes=_needed(element, "minimum") * KIB,
                maximum_bytes=_needed(element, "maximum") * KIB,
                buffer_percent=number(element.get("buffer", "20")),
                weight=number(element.get("weight", "100")),
            ),
            Growth(element.get("growth", Growth.HOTADD)),
            Trust(element.get("trust", Trust.GUEST)),
            ADOPTED if element.get(ADOPTED) else METADATA,
        )
    except ValueError as error:
        return None, (f"the dynmem metadata cannot be read ({error}); run `dynmem enable` again",)
    wrong = tuple(ours.limits.problems())
    return (None, wrong) if wrong else (ours, ())


def is_claimed(root: Element) -> bool:
    """It has an element of ours, whether or not that can be used."""
    return root.find(f"./metadata/{TAG}") is not None


def growth_of(root: Element) -> str:
    """How our metadata says that the domain grows; empty without metadata."""
    ours = root.find(f"./metadata/{TAG}")
    return "" if ours is None else ours.get("growth", "")


def was_adopted(root: Element) -> bool:
    """Our metadata was written while it ran: all of its devices are its user's."""
    ours = root.find(f"./metadata/{TAG}")
    return ours is not None and bool(ours.get(ADOPTED))


def is_owed(root: Element) -> bool:
    """`dynmem release` is at work, or was cut off: its limits are not those that its operator gave it."""
    ours = root.find(f"./metadata/{TAG}")
    return ours is not None and bool(ours.get(OWED))


def attributes(limits: Limits, growth: Growth, trust: Trust) -> list[tuple[str, str]]:
    """Our element's, in the order in which they are written."""
    return [
        ("growth", str(growth)),
        ("trust", str(trust)),
        ("startup", str(limits.startup_bytes // KIB)),
        ("minimum", str(limits.minimum_bytes // KIB)),
        ("maximum", str(limits.maximum_bytes // KIB)),
        ("buffer", str(limits.buffer_percent)),
        ("weight", str(limits.weight)),
    ]


def metadata_element(limits: Limits, growth: Growth, trust: Trust, live_xml: str = "") -> str:
    """Our element as virDomainSetMetadata wants it for a running domain: without prefix and namespace.

    The record of what was there before is taken along from `live_xml`: whoever defines the domain anew from
    what runs must not lose it.
    """
    root = ElementTree.fromstring(live_xml) if live_xml else None  # noqa: S314 # libvirt's own
    ours = None if root is None else root.find(f"./metadata/{TAG}")
    kept = (
        [] if ours is None else [(name, ours.get(name, "")) for name in (ADOPTED, LET_GO) if ours.get(name)]
    )
    written = " ".join(f'{name}="{value}"' for name, value in (*attributes(limits, growth, trust), *kept))
    before = None if ours is None else ours.find("./{*}before")
    if before is None:
        return f"<vm {written}/>"
    before.tail = None
    for one in before.iter():
        one.tag = one.tag.rpartition("}")[2]
    return f"<vm {written}>{ElementTree.tostring(before, encoding='unicode')}</vm>"


def _needed(element: Element, name: str) -> int:
    value = number(element.get(name))
    if not value:
        raise ValueError(f"{name} is {element.get(name, 'missing')[:40]}")
    return value
