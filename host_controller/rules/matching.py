"""Whether a rule is for a domain: by its name, its UUID, its title, and what others wrote into <metadata>."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.config.rule import MatchSection, MetadataPattern, RuleSection, parse_metadata
from host_controller.domain_xml.values import name_of, parse_xml, text_in
from host_controller.domain_xml.view import DomainView


@dataclass(frozen=True, slots=True)
class Subject:
    """What of a domain rules look at."""

    name: str
    uuid: str
    title: str
    metadata: Element | None
    prefixes: Mapping[str, frozenset[str]]
    """Namespaces by the prefixes that its XML has for them: each element may have its own."""

    @classmethod
    def of(cls, xml: str) -> Self:
        """Of a domain's XML, live or not.

        Raises:
            DomainUnsuitable: it is none.
        """
        root = parse_xml(xml)
        metadata = root.find("metadata")
        return cls(
            name_of(root),
            text_in(root, "uuid"),
            text_in(root, "title"),
            metadata,
            {} if metadata is None else _prefixes(xml),
        )


def is_managed(xml: str, view: DomainView, rules: tuple[RuleSection, ...]) -> bool:
    """Whether a domain has limits of its own, or a rule is for it. Whether the rule can take it on is not
    asked.

    view: of that XML, by no rule.
    """
    by_rule = not view.claimed and first(rules, Subject.of(xml)) is not None
    return view.config is not None or by_rule


def first(rules: tuple[RuleSection, ...], subject: Subject) -> int | None:
    """The index of the first rule that is for it."""
    return next((index for index, rule in enumerate(rules) if fits(rule.match, subject)), None)


def fits(match: MatchSection, subject: Subject) -> bool:
    """All that is named fits."""
    texts = ((match.name, subject.name), (match.title, subject.title))
    if any(pattern is not None and not fnmatchcase(text, pattern) for pattern, text in texts):
        return False
    if match.uuid is not None and not fnmatchcase(subject.uuid.lower(), match.uuid.lower()):
        return False
    return match.metadata is None or _says(subject, parse_metadata(match.metadata))


def _says(subject: Subject, wanted: MetadataPattern) -> bool:
    if subject.metadata is None:
        return False
    steps = [_expanded(step, subject.prefixes) for step in wanted.path]
    found = [one for one in subject.metadata.iter() if one.tag in steps[0]]
    for names in steps[1:]:
        found = [below for one in found for below in one if below.tag in names]
    return any(
        text is not None and (wanted.value is None or fnmatchcase(text, wanted.value))
        for text in _texts(found, wanted.attribute)
    )


def _texts(found: list[Element], attribute: str | None) -> Iterator[str | None]:
    for one in found:
        yield (one.text or "").strip() if attribute is None else one.get(attribute)


def _expanded(step: str, prefixes: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """What ElementTree may name `nova:flavor`; nothing where the XML does not have the prefix.

    Without a prefix: an element in no namespace, or in one that the XML has for such.
    """
    prefix, _, local = step.rpartition(":")
    names = {f"{{{one}}}{local}" if one else local for one in prefixes.get(prefix, frozenset())}
    return frozenset(names if prefix else {*names, local})


def _prefixes(xml: str) -> dict[str, frozenset[str]]:
    declared = ElementTree.iterparse(io.StringIO(xml), events=("start-ns",))  # noqa: S314 # libvirt's XML
    found: dict[str, set[str]] = {}
    for _, (prefix, uri) in declared:
        found.setdefault(prefix or "", set()).add(uri)
    return {prefix: frozenset(uris) for prefix, uris in found.items()}
