"""What a rule makes of a domain: its limits in bytes, or why it cannot be taken on like that.

Limits in the domain's own metadata go before every rule, even such as cannot be used: whoever wrote them
meant something else than the rule.
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.config import Config
from host_controller.config.amount import bytes_of
from host_controller.config.rule import RuleSection
from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.fitness.devices import pinned_without_growth
from host_controller.domain_xml.fitness.refusal import Refusal, Request
from host_controller.domain_xml.fitness.running import natural_growth, obstacles
from host_controller.domain_xml.fitness.sizes import most_within, tight_limits
from host_controller.domain_xml.growth_choice import while_running
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.ours import Ours
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.values import parse_xml, size_of, target_size
from host_controller.domain_xml.view import DomainView
from host_controller.rules.matching import Subject, first
from host_controller.units import format_size

OF_DEFAULTS: Final = "[defaults]"
OF_ITS_RAM: Final = "its RAM"


@dataclass(frozen=True, slots=True)
class Rulebook:
    """All rules of a configuration, and what stands in for what they do not name."""

    rules: tuple[RuleSection, ...]
    defaults: Limits
    host: HostAbilities = field(default_factory=HostAbilities)
    """Growth that a rule does not name obeys what is known of it."""


NO_RULES: Final = Rulebook((), Config().default_limits)


@dataclass(frozen=True, slots=True)
class Taken:
    """A domain as rules see it."""

    view: DomainView
    """With the rule's limits, unless it has its own, or cannot be taken on."""
    rule: int | None = None
    """The number of the rule that is for it, from 1 on; None: it has metadata, or no rule fits."""
    reasons: tuple[str, ...] = ()
    """Why that rule cannot take it on, each with the way out."""
    passed_over: int | None = None
    """The number of the rule that would be for it, had it no metadata of its own."""
    notes: tuple[str, ...] = ()
    """What its rule could not give it on this host, and what would."""


def take(xml: str, persistent_xml: str | None, book: Rulebook, started_with: int | None = None) -> Taken:
    """A domain with its own limits, or those of the first rule that fits it.

    persistent_xml: its definition, where it has one. What was plugged into the running domain does not count
    for what it is, since it may be ours, nor where its balloon is. Of one without a definition nobody can
    tell which DIMMs it came with: where it grows by DIMMs they are taken for ours, as those are that somebody
    else plugs later.

    started_with: of one without a definition, bytes; None: what its XML says now.

    Raises:
        DomainUnsuitable: not a domain's XML.
    """
    view = read_domain(xml, persistent_xml)
    index = first(book.rules, Subject.of(xml)) if book.rules else None
    if index is None:
        return Taken(view)
    if view.claimed:
        return Taken(view, passed_over=index + 1)
    rule, number = book.rules[index], index + 1
    live = parse_xml(xml)
    definition = live if persistent_xml is None else parse_xml(persistent_xml)
    bare = definition if persistent_xml is not None else _without_dimms(live)
    growth, notes = _growth(rule, number, bare, book.host)
    root = bare if growth is Growth.HOTADD else definition
    limits = limits_of(rule, book.defaults, root, view, growth)
    if persistent_xml is None and growth is not Growth.VIRTIO_MEM:  # there it is what it boots with
        startup = min(started_with or limits.startup_bytes, view.boot_ram_bytes, limits.maximum_bytes)
        limits = replace(limits, startup_bytes=max(limits.minimum_bytes, startup))
    bounded = within_memtune(limits, live, view, growth)
    limits, notes = bounded.limits, notes + bounded.said
    ours = Ours(limits, growth, rule.trust, f"rule[{number}]", bounded.sources(_not_named(rule)))
    in_the_way = list(obstacles(root, limits, growth))
    if (handed_out := _by_networks(live, definition, limits, growth, book.host)) is not None:
        in_the_way.append(handed_out)
    reasons = (*limits.problems(), *dict.fromkeys(f"{one.reason}; {one.hint}" for one in in_the_way))
    if reasons:
        said = tuple(f"rule[{number}] cannot take it on: {one}" for one in reasons)
        return Taken(replace(view, problems=(*view.problems, *said)), number, reasons, notes=notes)
    return Taken(read_domain(xml, given=ours), number, notes=notes)


def _by_networks(
    live: Element, definition: Element, limits: Limits, growth: Growth, host: HostAbilities
) -> Refusal | None:
    """A device of the host that a network hands out pins its memory like one that is defined."""
    networks = host.device_networks | frozenset(_handed_out(live, definition))
    return pinned_without_growth(Request(definition, limits, growth, replace(host, device_networks=networks)))


def _handed_out(live: Element, definition: Element) -> Iterator[str]:
    """Networks that have handed out devices: a definition has the network, and what runs the device."""
    devices = {_mac(one) for one in live.findall("./devices/interface[@type='hostdev']")}
    for one in definition.findall("./devices/interface[@type='network']"):
        source = one.find("source")
        if source is not None and _mac(one) and _mac(one) in devices:
            yield source.get("network", "")


def _mac(interface: Element) -> str:
    mac = interface.find("mac")
    return "" if mac is None else mac.get("address", "").lower()


def _without_dimms(live: Element) -> Element:
    root = deepcopy(live)
    for devices in root.findall("devices"):
        for one in devices.findall("memory[@model='dimm']"):
            devices.remove(one)
    return root


def _growth(
    rule: RuleSection, number: int, root: Element, host: HostAbilities
) -> tuple[Growth, tuple[str, ...]]:
    """What the rule names, whatever the host has shown; else what the domain was defined for."""
    if rule.growth is not None:
        return rule.growth, ()
    growth, against = while_running(root, host)
    if against is None:
        return growth, ()
    natural = natural_growth(root)
    return growth, (f'{against}; growth = "{natural}" in rule[{number}] does it all the same',)


def limits_of(rule: RuleSection, defaults: Limits, root: Element, view: DomainView, growth: Growth) -> Limits:
    """A rule's limits for one domain, bytes. Shares are of the most RAM that it can have.

    Startup is what the domain is defined to start with, since nobody tells its QEMU otherwise.
    """
    most = most_ram_bytes(root, view, growth)
    maximum = most if rule.maximum is None else min(most, bytes_of(rule.maximum, most))
    minimum = min(defaults.minimum_bytes, maximum)
    if rule.minimum is not None:
        minimum = bytes_of(rule.minimum, most)
    starts_with = size_of(root.find("currentMemory")) or view.boot_ram_bytes
    if growth is Growth.VIRTIO_MEM:  # there it may count what is to be plugged
        starts_with = view.boot_ram_bytes
    return Limits(
        startup_bytes=max(minimum, min(starts_with, maximum)),
        minimum_bytes=minimum,
        maximum_bytes=maximum,
        buffer_percent=defaults.buffer_percent if rule.buffer is None else rule.buffer,
        weight=defaults.weight if rule.weight is None else rule.weight,
    )


def most_ram_bytes(root: Element, view: DomainView, growth: Growth) -> int:
    """The most RAM that a domain can have while it runs, bytes."""
    match growth:
        case Growth.BALLOON:
            return view.boot_ram_bytes
        case Growth.VIRTIO_MEM:
            devices = root.findall("./devices/memory[@model='virtio-mem']")
            return view.boot_ram_bytes + sum(target_size(one, "size") for one in devices)
        case Growth.HOTADD:
            return max(view.boot_ram_bytes, view.ceiling_bytes)


@dataclass(frozen=True, slots=True)
class Bounded:
    """Limits as far as what is around a running VM leaves room for them."""

    limits: Limits
    said: tuple[str, ...] = ()
    """That some were lowered."""
    by: tuple[tuple[str, str], ...] = ()
    """Which, and by what."""

    def sources(self, before: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """As VmConfig.defaults, which was `before` as long as nothing had bounded them."""
        lowered = dict(self.by)
        return (*(one for one in before if one[0] not in lowered), *self.by)


def within_memtune(
    limits: Limits,
    running: Element,
    view: DomainView,
    growth: Growth,
    others: Mapping[str, int] | None = None,
) -> Bounded:
    """The limits as far as libvirt's own limits on the running VM leave room for them. The RAM that it has it
    may take in any case.

    others: bytes of limits on its control group that libvirt does not tell, by their names.
    """
    tight = tight_limits(running, limits.maximum_bytes, others)
    if growth is Growth.BALLOON or not tight:
        return Bounded(limits)
    most = max(view.boot_ram_bytes, most_within(running, tight))
    if most >= limits.maximum_bytes:
        return Bounded(limits)
    first_met = min(tight, key=lambda one: one.limit_bytes)
    limit, wanted = format_size(first_met.limit_bytes), format_size(limits.maximum_bytes)
    said = f"{first_met.words} of {limit} bounds it at {format_size(most)}, not {wanted}"
    sizes = {
        "startup": limits.startup_bytes,
        "minimum": limits.minimum_bytes,
        "maximum": limits.maximum_bytes,
    }
    lowered = [name for name, size in sizes.items() if size > most]
    return Bounded(
        replace(limits, **{f"{name}_bytes": most for name in lowered}),
        (f"{said}; {first_met.remedy}",),
        tuple((name, first_met.words) for name in lowered),
    )


def idle(rules: tuple[RuleSection, ...], vms: Iterable[Taken]) -> Iterator[str]:
    """A sentence for each rule that is for none of these VMs, all that there are."""
    matched = {number for one in vms for number in (one.rule, one.passed_over)}
    for number, rule in enumerate(rules, 1):
        if number not in matched:
            match = ", ".join(f"{key} = {value!r}" for key, value in rule.match.given.items())
            yield f"rule[{number}] ({match}) is for no VM that there is now"


def _not_named(rule: RuleSection) -> tuple[tuple[str, str], ...]:
    found = [("startup", "its definition")]
    found += [("minimum", OF_DEFAULTS)] if rule.minimum is None else []
    found += [("maximum", OF_ITS_RAM)] if rule.maximum is None else []
    found += [(name, OF_DEFAULTS) for name in ("buffer", "weight") if getattr(rule, name) is None]
    return tuple(found)
