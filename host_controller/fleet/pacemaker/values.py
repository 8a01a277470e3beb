"""What the engine's configuration says: numbers, scores, and blocks of names and values. No I/O."""

from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

MOST_DIGITS: Final = 12
"""Of a number that the engine writes: more are none of its own, and thousands cannot be read as one."""
ENDLESS: Final = "INFINITY"
INFINITE: Final = 1_000_000
"""The engine takes a million for infinity."""
FALSE: Final = ("false", "no", "off", "0", "n")
META: Final = "meta_attributes"
FOREMOST: Final = "cib-bootstrap-options"
"""The block that comes before all others of its kind, whatever their scores."""


def number(text: str) -> int | None:
    """A whole number, zero or more; None: it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else None


def score(text: str) -> int:
    """As the engine takes it: bounded by infinity, and 0 for what is none."""
    digits = text.removeprefix("+").removeprefix("-")
    if digits.upper() == ENDLESS or len(digits) > MOST_DIGITS:
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


def blocks(parent: Element | None, tag: str) -> list[Element]:
    """Those of one kind, the one whose word counts first (fact: last-block-counts). Without those that a rule
    may switch off, and those that stand elsewhere.
    """
    found = [] if parent is None else parent.findall(tag)
    own = [one for one in reversed(found) if one.find("rule") is None and one.get("id-ref") is None]
    return sorted(own, key=lambda one: (one.get("id") != FOREMOST, -score(one.get("score", ""))))


def block(parent: Element, tag: str) -> Element | None:
    """The one of its kind whose word counts first."""
    return next(iter(blocks(parent, tag)), None)


def settings(parent: Element | None, tag: str) -> dict[str, str]:
    """What all blocks of one kind say."""
    found: dict[str, str] = {}
    for one in blocks(parent, tag):
        found = pairs(one) | found
    return found


class Metas:
    """What is said of the resources of a configuration, beside what holds for all of them."""

    def __init__(self, root: Element) -> None:
        whole = root.find("configuration/resources")
        groups, templates = ([] if whole is None else list(whole.iter(tag)) for tag in ("group", "template"))
        self._groups = {one.get("id"): settings(group, META) for group in groups for one in group}
        self._templates = {one.get("id"): settings(one, META) for one in templates}

    def of(self, primitive: Element) -> dict[str, str]:
        """By itself, by its template, or by the group that it is in: whoever comes first here."""
        template = self._templates.get(primitive.get("template"), {})
        return self._groups.get(primitive.get("id"), {}) | template | settings(primitive, META)


class Ids:
    """Those of a configuration: the engine takes none in which one is there twice. What was renamed keeps
    its old name in the ids below it.
    """

    def __init__(self, root: Element) -> None:
        self._taken = {one.get("id", "") for one in root.iter()}

    def free(self, wanted: str) -> str:
        """This one, or the next that nobody has; it is taken from then on."""
        while wanted in self._taken:
            wanted += "-"
        self._taken.add(wanted)
        return wanted


def put(where: Element, name: str, value: str, ids: Ids) -> None:
    """Set what a block says of a name."""
    for one in where.iterfind("nvpair"):
        if one.get("name") == name:
            one.set("value", value)
            return
    pair = {"id": ids.free(f"{where.get('id', '')}-{name}"), "name": name, "value": value}
    ElementTree.SubElement(where, "nvpair", pair)
