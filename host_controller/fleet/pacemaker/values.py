"""What the engine's configuration says: numbers, scores, and the pairs of a name and a value. No I/O."""

from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

MOST_DIGITS: Final = 12
"""Of a number that the engine writes: more are none of its own, and thousands cannot be read as one."""
INFINITE: Final = 1_000_000
"""The engine takes a million for infinity."""
FALSE: Final = ("false", "no", "off", "0", "n")


def number(text: str) -> int | None:
    """A whole number, zero or more; None: it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else None


def score(text: str) -> int:
    """As the engine takes it: bounded by infinity, and 0 for what is none."""
    digits = text.removeprefix("+").removeprefix("-")
    if digits.upper() == "INFINITY" or len(digits) > MOST_DIGITS:
        size = INFINITE
    else:
        size = min(INFINITE, number(digits) or 0)
    return -size if text.startswith("-") else size


def pairs(element: Element, path: str = "nvpair") -> dict[str, str]:
    """Of one name, the first counts."""
    found: dict[str, str] = {}
    for one in element.iterfind(path):
        found.setdefault(one.get("name", ""), one.get("value", ""))
    return found


def block(parent: Element, tag: str) -> Element | None:
    """The first of its kind that no rule switches off."""
    return next((one for one in parent.findall(tag) if one.find("rule") is None), None)


def put(where: Element, name: str, value: str) -> None:
    """Set what a block says of a name."""
    for one in where.iterfind("nvpair"):
        if one.get("name") == name:
            one.set("value", value)
            return
    pair = {"id": f"{where.get('id', '')}-{name}", "name": name, "value": value}
    ElementTree.SubElement(where, "nvpair", pair)
