"""Single values out of libvirt's XML: sizes, numbers, names. Pure."""

from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.errors import DomainUnsuitable

_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_UNIT_BYTES: Final[dict[str, int]] = {
    "b": 1,
    "byte": 1,
    "bytes": 1,
    **{name: 1024**power for letter, power in _POWERS.items() for name in (letter, f"{letter}ib")},
    **{f"{letter}b": 1000**power for letter, power in _POWERS.items()},
}
"""libvirt's units: `KiB` and `k` are 1024 bytes, `KB` is 1000."""

_MOST_DIGITS: Final = 20
"""libvirt keeps sizes in 64 bits; what is longer is nobody's size."""


def parse_xml(xml: str) -> Element:
    """The <domain> element.

    Raises:
        DomainUnsuitable: not XML, or the XML of something else.
    """
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314 # libvirt's XML, not a guest's
    except ElementTree.ParseError as error:
        raise DomainUnsuitable(f"this is not XML: {error}") from None
    if root.tag != "domain":
        raise DomainUnsuitable(f"this is a <{root.tag}>, not a <domain>")
    return root


def size_of(element: Element | None, attribute: str | None = None) -> int:
    """Bytes of <memory unit='KiB'>n</memory>, or of an attribute with `unit` beside it.

    0 when it is absent or cannot be read; KiB without a unit, as in libvirt.
    """
    if element is None:
        return 0
    text = element.get(attribute) if attribute else element.text
    return size_from(text, element.get("unit"))


def size_from(text: str | None, unit: str | None) -> int:
    """Bytes of a number and a unit of libvirt's; 0 when they cannot be read."""
    return number(text) * _UNIT_BYTES.get((unit or "KiB").lower(), 0)


def number(text: str | None) -> int:
    """A number that is not negative, decimal or 0x…; 0 when it is absent or cannot be read."""
    text = (text or "").strip()
    if len(text) > _MOST_DIGITS:
        return 0
    try:
        return max(0, int(text, 16 if text[:2].lower() == "0x" else 10))
    except ValueError:
        return 0


def attribute_number(element: Element | None, attribute: str) -> int:
    """A number in an attribute; 0 when there is none."""
    return 0 if element is None else number(element.get(attribute))


def text_in(root: Element, tag: str) -> str:
    """The text of a child, without white space around it; empty without that child."""
    return (root.findtext(tag) or "").strip()


def name_of(root: Element) -> str:
    """A domain's name as libvirt has it, which keeps the white space around it."""
    return root.findtext("name") or ""


def alias_of(device: Element) -> str:
    """Libvirt's name of a device; empty in a definition that does not run."""
    alias = device.find("alias")
    return "" if alias is None else alias.get("name", "")


def target_size(device: Element, tag: str) -> int:
    """Bytes of a size in the <target> of a memory device."""
    return size_of(device.find(f"./target/{tag}"))


def machine_of(root: Element) -> str:
    """The machine type, as `pc-q35-7.2`; empty when the XML leaves it to libvirt."""
    found = root.find("./os/type")
    return "" if found is None else found.get("machine", "")


def architecture_of(root: Element) -> str:
    """The architecture, as `x86_64`; empty when the XML leaves it to libvirt."""
    found = root.find("./os/type")
    return "" if found is None else found.get("arch", "")


def is_x86(root: Element) -> bool:
    """Whether its processor is one, of 64 bits; so it is taken to be where the XML leaves that to libvirt."""
    return architecture_of(root) in ("x86_64", "")


def page_bytes(root: Element) -> int:
    """The largest huge page that its memory is made of; 0 without huge pages or when the host decides."""
    pages = root.findall("./memoryBacking/hugepages/page")
    return max((size_of(one, "size") for one in pages), default=0)
