"""The rules of the configuration: `[[rule]]`, for VMs whose XML is somebody else's.

Rules are tried in the order of the file and the first that matches counts, so a rule that can never be the
first is a mistake. What a rule means for one VM is worked out by `host_controller.rules`.
"""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from host_controller.config.amount import Amount, Share, in_words
from host_controller.config.tables import Problem, section, shown
from host_controller.core.model import Growth, Trust

AUTO: Final = "auto"
"""Growth that nobody names, by name."""
_PATTERN_WORDS: Final = "a pattern such as 'web-*'"
_METADATA_WORDS: Final = "text such as \"nova:flavor/@name = 'm1.large'\""
_METADATA: Final = re.compile(
    r"\s*(?://)?(?P<path>[\w.-]+(?::[\w.-]+)?(?:/[\w.-]+(?::[\w.-]+)?)*)(?:/@(?P<attribute>[\w.:-]+))?"
    r"""\s*(?:=\s*(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)")\s*)?"""
)

Pattern = Annotated[str, msgspec.Meta(min_length=1, description=f"{_PATTERN_WORDS}; * and ? stand for any")]


class MetadataPattern(NamedTuple):
    """Something in a domain's <metadata>, by the prefixes that its XML has."""

    path: tuple[str, ...]
    """Elements from anywhere in <metadata> inwards, each `prefix:name`."""
    attribute: str | None
    """Of the last one; None: its text."""
    value: str | None
    """A pattern; None: it is there, whatever it says."""


class MatchSection(msgspec.Struct, frozen=True):
    """Which VMs a rule is for: all that is named must fit."""

    name: Pattern | None = None
    """The VM's name in libvirt."""
    uuid: Pattern | None = None
    """Its UUID there."""
    title: Pattern | None = None
    """The title of its domain."""
    metadata: Annotated[str, msgspec.Meta(description=_METADATA_WORDS)] | None = None
    """What stands in the metadata of its domain: a path of elements, an attribute perhaps, and its value."""

    @property
    def given(self) -> dict[str, str]:
        """What is named, by key."""
        named = {field: getattr(self, field) for field in self.__struct_fields__}
        return {field: value for field, value in named.items() if value is not None}


class RuleSection(msgspec.Struct, frozen=True):
    """Limits for VMs whose XML is somebody else's: nothing is written into them. It may come many times.

    The first rule that matches counts, and limits in a VM's own metadata go before all rules. A share is of
    the RAM that the VM can have at most.
    """

    match: Annotated[MatchSection, msgspec.Meta(description="a table such as {name = 'web-*'}")] = (
        MatchSection()
    )
    """Which VMs it is for. It must be given."""
    minimum: Amount | None = None
    """The VM never gets less. By default that of [defaults]."""
    maximum: Amount | None = None
    """It never gets more. By default all RAM that it can have."""
    buffer: Annotated[int, msgspec.Meta(ge=5, le=2000, description="percent of demand, 5 to 2000")] | None = (
        None
    )
    """What it should have free beyond its demand. By default that of [defaults]."""
    weight: Annotated[int, msgspec.Meta(ge=1, le=10000, description="1 to 10000")] | None = None
    """Its share against the others when memory is short. By default that of [defaults]."""
    trust: Annotated[Trust, msgspec.Meta(description='"guest" or "none"')] = Trust.GUEST
    """Whether what its guest says frees memory for others. With "none" it is charged with all of its RAM."""
    growth: (
        Annotated[Growth, msgspec.Meta(description='"auto", "balloon", "hotadd" or "virtio-mem"')] | None
    ) = None
    """How it grows. By default, and by "auto", what the VM was defined for and `dynmem verify` has not seen
    fail.
    """


def parse_metadata(text: str) -> MetadataPattern:
    """What to look for in <metadata>.

    Raises:
        ValueError: with a sentence that says what is allowed.
    """
    found = _METADATA.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a path in <metadata>; write {_METADATA_WORDS}")
    value = found["single"] if found["single"] is not None else found["double"]
    return MetadataPattern(tuple(found["path"].split("/")), found["attribute"], value)


def parse_rules(tables: Any, problems: list[Problem]) -> tuple[RuleSection, ...]:
    """All rules of a file; mistakes are added to `problems`, by the number of their rule from 1 on."""
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        problems.append(Problem("rule", shown(tables), "tables: [[rule]]"))
        return ()
    rules = [_rule(f"rule[{number}]", dict(one), problems) for number, one in enumerate(tables, 1)]
    if not problems:
        for number, rule in enumerate(rules, 1):
            problems += _contradictions(f"rule[{number}]", rule)
            problems += _never_reached(number, rule, rules)
    return tuple(rules)


def _rule(name: str, table: dict[str, Any], problems: list[Problem]) -> RuleSection:
    raw = table.pop("match", {})
    if not isinstance(raw, dict) or not raw:
        problems.append(Problem(f"{name}.match", shown(raw), "a table such as {name = 'web-*'}"))
        raw = {}
    match = section(f"{name}.match", MatchSection, raw, problems)
    if match.metadata is not None:
        try:
            parse_metadata(match.metadata)
        except ValueError:
            problems.append(Problem(f"{name}.match.metadata", shown(match.metadata), _METADATA_WORDS))
    if table.get("growth") == AUTO:
        del table["growth"]
    found: RuleSection = section(name, RuleSection, table, problems)
    return msgspec.structs.replace(found, match=match)


def _contradictions(name: str, rule: RuleSection) -> Iterator[Problem]:
    low, high = rule.minimum, rule.maximum
    if isinstance(low, Share) and isinstance(high, Share):
        wrong = low.percent > high.percent
    else:
        wrong = isinstance(low, int) and isinstance(high, int) and low > high
    if wrong and low is not None and high is not None:
        found = f"a minimum of {in_words(low)} above a maximum of {in_words(high)}"
        yield Problem(f"{name}.minimum", found, "minimum ≤ maximum")


def _never_reached(number: int, rule: RuleSection, rules: list[RuleSection]) -> Iterator[Problem]:
    for earlier, other in enumerate(rules[: number - 1], 1):
        if all(_covers(key, value, rule.match.given.get(key)) for key, value in other.match.given.items()):
            found = f"a rule that is never reached: rule[{earlier}] matches all that it matches"
            yield Problem(f"rule[{number}].match", found, f"a match before or beside that of rule[{earlier}]")
            return


def _covers(key: str, pattern: str, other: str | None) -> bool:
    """Whether all that fits the other pattern fits this one; None: the other does not ask for this key."""
    if key == "metadata":
        return other is not None and parse_metadata(pattern) == parse_metadata(other)
    if set(pattern) == {"*"}:
        return key != "title" or other is not None  # every domain has a name and a UUID
    if other is None:
        return False
    if key == "uuid":
        pattern, other = pattern.lower(), other.lower()
    return pattern == other or (_comparable(pattern, other) and fnmatchcase(other, pattern))


def _comparable(pattern: str, other: str) -> bool:
    """Whether a match of the other pattern's text says that all fits this one which fits that.

    What may stand for several things in the other must be met by a * here, which takes any of them.
    """
    return not set("*?[") & set(other) or ("[" not in other and not set("?[") & set(pattern))
