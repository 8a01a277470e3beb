"""What is to be done to take on a domain that runs. Pure: facts and wishes in, steps and sentences out.

Steps are what is missing, so a plan for a domain that was adopted halfway is the rest, and for one that is
adopted it is empty. Our metadata comes first: it has the record of what was there before, and `release` goes
by that, wherever adopting was cut off.
"""

import glob
import json
from dataclasses import dataclass, field, replace
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.adoption.facts import Facts, ManagedAlready, Refused, refuse_busy
from host_controller.adoption.giving_back import MANAGED_AGAIN, limits_of_operator
from host_controller.adoption.owners import owner_of
from host_controller.adoption.steps import AskStatistics, Define, PlugChannel, Step, WriteMetadata
from host_controller.config.rule import RuleSection
from host_controller.core.model import ADOPTED, METADATA, Growth, Limits, VmConfig
from host_controller.core.policy.dead_band import shrink_dead_band
from host_controller.domain_xml.adopted import (
    CHANNEL,
    adopted_definition,
    adopted_element,
    channel_of,
)
from host_controller.domain_xml.before import STATISTICS_SECONDS
from host_controller.domain_xml.dom import same
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.fitness.refusal import Refusal
from host_controller.domain_xml.fitness.running import growth_by_devices, natural_growth, obstacles
from host_controller.domain_xml.fitness.slots import port_finds_place
from host_controller.domain_xml.growth_choice import choose, while_running
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.ours import is_owed, metadata_element
from host_controller.domain_xml.ports import has_free_port
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.values import parse_xml
from host_controller.domain_xml.view import DomainView
from host_controller.errors import DomainUnsuitable, InputError
from host_controller.neutral import shell_word
from host_controller.rules.taking import limits_of, within_memtune
from host_controller.units import KIB, format_size

GUEST_STEP: Final = "install the agent in the guest: `dynmem agent push`, or its package"

TAINT: Final = (
    "where no agent of dynmem's speaks, VMs are read through their QEMU guest agent, for which libvirt marks "
    "them as tainted (custom-ga-command); [libvirt] guest_agent = false in dynmem.toml does without"
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator wants."""

    rule: RuleSection
    """As if it were one for this VM: what it does not name comes from `defaults` or the VM's RAM."""
    defaults: Limits
    """[defaults] of the configuration."""
    next_start: bool = False
    """Prepare its definition as `enable` would."""
    startup_bytes: int | None = None
    """What it boots with at its next start; None: not named."""
    guest_agents: bool = True
    """The controller may read it through its QEMU guest agent."""
    host: HostAbilities = field(default_factory=HostAbilities)
    """What is known of the host."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """How one domain is taken on."""

    vm: str
    uuid: str
    limits: Limits
    growth: Growth
    steps: tuple[Step, ...]
    now: tuple[str, ...]
    """What works as soon as the steps are done."""
    later: tuple[str, ...]
    """What its next start will bring."""
    takes_part: bool = True
    """At once. Else only its definition is prepared: what runs cannot."""


def plan_adoption(facts: Facts, wish: Wish) -> Adoption:
    """What is missing until the domain takes part.

    Raises:
        Refused: it cannot be, with the way out.
    """
    live_xml = facts.live_xml
    if live_xml is None:
        hint = f"`dynmem enable {shell_word(facts.name)}` prepares it"
        raise Refused("it is off, and only what runs is adopted", vm=facts.name, hint=hint)
    view = read_domain(live_xml, facts.definition)
    root = parse_xml(facts.definition or live_xml)
    _refuse_foreign(facts, view)
    refuse_busy(facts, f"`dynmem adopt {shell_word(facts.name)}`")
    known = view.config
    growth, because = _growth(root, wish) if known is None else (known.growth, ())
    if known:
        limits = known.limits
    else:
        limits = limits_of(wish.rule, wish.defaults, root, view, growth)
        bounded = within_memtune(limits, parse_xml(live_xml), view, growth)
        limits, because = bounded.limits, because + bounded.said
    _refuse_unfit(facts, limits, growth, known)
    if (obstacle := _obstacle(facts, limits, growth, known)) is not None:
        return _from_its_next_start(facts, wish, limits, growth, obstacle)
    if known is None and growth is Growth.VIRTIO_MEM:
        _refuse_squeezed(facts, view)
    trust = known.trust if known else wish.rule.trust
    steps: list[Step] = []
    if read_domain(live_xml).config is None:
        steps.append(WriteMetadata(adopted_element(live_xml, limits, growth, trust)))
    elif known is not None and is_owed(parse_xml(live_xml)):
        limits = limits_of_operator(facts.definition, known)
        steps.append(WriteMetadata(metadata_element(limits, growth, trust, live_xml), MANAGED_AGAIN))
    if facts.definition is not None:
        steps += _definition_step(facts.definition, facts, wish, limits, growth)
    if view.stats_period != STATISTICS_SECONDS:
        steps.append(AskStatistics(STATISTICS_SECONDS))
    if channel_of(live_xml) is None and has_free_port(parse_xml(live_xml)):
        steps.append(PlugChannel(CHANNEL))
    now, later = _now(live_xml, limits, growth), _later(facts, wish)
    now += because
    if view.guest_agent and wish.guest_agents:
        now += (TAINT,)
    return Adoption(facts.name, facts.uuid, limits, growth, tuple(steps), now, later)


def _growth(root: Element, wish: Wish) -> tuple[Growth, tuple[str, ...]]:
    """How it is to grow while it runs, and why not as it could."""
    if wish.rule.growth is not None and not wish.next_start:
        return wish.rule.growth, ()
    growth, against = while_running(root, wish.host)
    if against is None:
        return growth, ()
    return growth, (f"{against}; --growth {natural_growth(root)} does it all the same",)


def _refuse_foreign(facts: Facts, view: DomainView) -> None:
    config, name = view.config, facts.name
    if config is not None and config.source != ADOPTED:
        is_it = "it is managed already"
        if read_domain(facts.running_xml).config is None:
            is_it = "it is prepared already, and takes part from its next start"
        raise ManagedAlready(is_it, vm=name, hint=f"`dynmem set {shell_word(name)}` changes its limits")
    if view.claimed and config is None:
        word = shell_word(name)
        hint = f"`dynmem release {word}` finishes that; or `dynmem enable {word}` while it is off"
        raise Refused("it has limits of dynmem's that are given back, or cannot be used", vm=name, hint=hint)
    owner = owner_of(parse_xml(facts.running_xml))
    if owner is not None:
        # A name may have what patterns and TOML have a meaning for.
        quoted = json.dumps(glob.escape(name), ensure_ascii=False)
        hint = f"write a rule into dynmem.toml: [[rule]] match = {{name = {quoted}}}"
        raise Refused(f"it belongs to {owner}, which writes its XML anew", vm=name, hint=hint)


def _refuse_unfit(facts: Facts, limits: Limits, growth: Growth, known: VmConfig | None) -> None:
    """What it is to be given it cannot have."""
    if problems := limits.problems():
        raise Refused("; ".join(problems), vm=facts.name, hint="name other limits")
    for_it = growth_by_devices(parse_xml(facts.definition or facts.running_xml))
    if known is None and growth not in (Growth.BALLOON, for_it):
        what = "free DIMM slots" if growth is Growth.HOTADD else "one virtio-mem device, and no DIMM,"
        hint = "leave --growth out, or prepare its next start: --next-start"
        raise Refused(f"it runs without {what}, so it cannot grow by {growth}", vm=facts.name, hint=hint)


def _obstacle(facts: Facts, limits: Limits, growth: Growth, known: VmConfig | None) -> Refusal | None:
    """What keeps it from taking part. By what runs: the definition may have been changed since."""
    for one in obstacles(parse_xml(facts.running_xml), limits, growth):
        if known is None or growth is not Growth.HOTADD or "memory device" not in one.reason:
            return one
        # DIMMs of ours are none.
    return None


def _from_its_next_start(
    facts: Facts, wish: Wish, limits: Limits, growth: Growth, obstacle: Refusal
) -> Adoption:
    """Only its definition is prepared, where its operator wants that; what runs is left as it is."""
    if facts.definition is None:
        raise Refused(obstacle.reason, vm=facts.name, hint=obstacle.hint)
    if not wish.next_start:
        try:
            _definition_step(facts.definition, facts, replace(wish, next_start=True), limits, growth)
            more = ", or with --next-start prepare it now"
        except Refused:
            more = ""
        raise Refused(obstacle.reason, vm=facts.name, hint=obstacle.hint + more)
    steps = _definition_step(facts.definition, facts, wish, limits, growth)
    now = (f"it does not take part before its next start: {obstacle.reason}",)
    return Adoption(
        facts.name, facts.uuid, limits, growth, tuple(steps), now, _later(facts, wish), takes_part=False
    )


def _refuse_squeezed(facts: Facts, view: DomainView) -> None:
    """Who has memory of both kinds gets it back as the controller gives it: the balloon's first."""
    squeezed = view.actual_bytes < view.boot_ram_bytes - shrink_dead_band(view.boot_ram_bytes)
    if squeezed and view.virtio_mem_requested_bytes:
        word = shell_word(facts.name)
        full = f"virsh setmem --live {word} {view.boot_ram_bytes // KIB}"
        raise Refused(
            "its balloon is inflated while its virtio-mem device has memory plugged: "
            "how much of which it is to get back could not be kept",
            vm=facts.name,
            hint=f"empty its balloon first ({full}), or the device "
            f"(virsh update-memory-device --live --requested-size 0 {word})",
        )


def _definition_step(definition: str, facts: Facts, wish: Wish, limits: Limits, growth: Growth) -> list[Step]:
    old = read_domain(definition).config
    if wish.next_start:
        say = "its definition is prepared for its next start, as `dynmem enable` does it"

        def change(now: str) -> str:
            return _prepared(now, old, wish, limits)
    elif old is not None and old.source != ADOPTED:
        return []  # it was prepared for its next start
    else:
        trust = old.trust if old else wish.rule.trust
        port = " and the agent's port" if _has_port_later(definition) else ""
        say = f"its definition has the same limits{port}"

        def change(now: str) -> str:
            return adopted_definition(now, limits, growth, trust)

    try:
        new = change(definition)
    except (InputError, DomainUnsuitable) as error:
        raise Refused(error.message, vm=facts.name, hint=error.hint) from None
    return [] if same(new, definition) else [Define(change, say)]


def _prepared(definition: str, old: VmConfig | None, wish: Wish, limits: Limits) -> str:
    """As `enable` would: what is prepared already keeps its way to grow."""
    startup = wish.startup_bytes or min(
        max(wish.defaults.startup_bytes, limits.minimum_bytes), limits.maximum_bytes
    )
    limits = replace(limits, startup_bytes=startup)
    growth = wish.rule.growth or (old.growth if old is not None and old.source == METADATA else None)
    growth = growth or choose(definition, limits, wish.host)[0]
    return enable(definition, limits, growth, wish.rule.trust, wish.host).xml


def _now(live_xml: str, limits: Limits, growth: Growth) -> tuple[str, ...]:
    least, most = format_size(limits.minimum_bytes), format_size(limits.maximum_bytes)
    ways = {
        Growth.BALLOON: "its balloon moves it",
        Growth.HOTADD: "balloon and DIMMs move it",
        Growth.VIRTIO_MEM: "balloon and virtio-mem move it",
    }
    port = channel_of(live_xml) is not None or has_free_port(parse_xml(live_xml))
    moves = f"{ways[growth]} between {least} and {most}, by its balloon's statistics"
    if port:
        moves += ", and by its agent as soon as there is one"
    if least == most:
        moves = (
            f"it has {most} at any time, since that is both its minimum and its maximum: a lower --minimum "
            "lets it give memory to others"
        )
    return (moves, f"the agent's port is there: {GUEST_STEP}") if port else (moves,)


def _later(facts: Facts, wish: Wish) -> tuple[str, ...]:
    if facts.definition is None:
        return ("it is transient: what is written is gone when it stops",)
    found = []
    if channel_of(facts.running_xml) is None and not has_free_port(parse_xml(facts.running_xml)):
        if _has_port_later(facts.definition):
            found.append("the agent's port: the running domain has no free virtio-serial port")
        else:
            found.append(
                "no agent's port, either: its PCI bus has no slot left for a virtio-serial controller"
            )
    if wish.next_start:
        found.append("all that `dynmem enable` prepares: hot add, free page reporting")
    elif _grows_by_balloon_alone(facts):
        found.append("no more than now; with --next-start, growth beyond the RAM that it has")
    return tuple(found)


def _has_port_later(definition: str) -> bool:
    return channel_of(definition) is not None or port_finds_place(parse_xml(definition))


def _grows_by_balloon_alone(facts: Facts) -> bool:
    return natural_growth(parse_xml(facts.definition or "")) is Growth.BALLOON
