"""`dynmem set`: changes limits of a prepared or adopted domain, also while it runs."""

from dataclasses import dataclass
from typing import Self

import click

from host_controller.cli.abilities import abilities
from host_controller.cli.enable import prepared, say
from host_controller.cli.limits import given_limits, in_words, limit_options, live_limits
from host_controller.cli.options import connect, domain_names, dry_run, trust_option
from host_controller.config import load
from host_controller.core.model import ADOPTED, Limits, Trust, VmConfig
from host_controller.domain_xml.adopted import adopted_definition
from host_controller.domain_xml.fitness.refusal import Request
from host_controller.domain_xml.fitness.sizes import memtune, memtune_of_what_runs
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.ours import is_owed, metadata_element
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.values import parse_xml
from host_controller.domain_xml.view import DomainView
from host_controller.errors import DomainUnsuitable, DynmemError, InputError
from host_controller.hypervisor.definitions import Definition, Definitions
from host_controller.neutral import neutral, shell_word


@click.command("set")
@click.argument("vm", shell_complete=domain_names)
@limit_options
@trust_option
@dry_run
@connect
def set_limits(
    vm: str, trust: str | None, *, dry_run: bool, connect: str | None, **given: int | None
) -> None:
    """Change VM's limits, also while it runs.

    At once: maximum up (as far as the running VM has room), minimum down, buffer, weight, trust. With the
    next start: startup, maximum down, minimum up.
    """
    if trust is None and all(value is None for value in given.values()):
        raise InputError(
            "nothing to set", hint="give one of --startup, --minimum, --maximum, --buffer, --weight, --trust"
        )
    with Definitions(connect or load().libvirt.uri) as definitions:
        domain = definitions.find(vm)
        now = _Now.of(domain)
        limits, whom = given_limits(now.config.limits, given), Trust(trust) if trust else now.config.trust
        if problems := limits.problems():
            raise InputError("; ".join(problems), vm=domain.name)
        new: str | None = None
        notes: tuple[str, ...] = ()
        if now.persistent is not None:  # what is refused is refused before anything changes
            new, notes = _with_limits(domain, now.persistent, limits, whom, abilities(definitions))
        if not now.owed:
            _set_live(domain, now.live, limits, whom, dry_run=dry_run)
        say(notes)
        if new is not None and not dry_run:
            domain.define(new)
        later = " from its next start" if new is not None and now.live is not None else ""
        if now.owed:
            later = " if it stays managed: `dynmem release` is giving it back"
        if domain.saved:
            later = " once it has been shut down: it is saved, and comes back with those it was saved with"
        has = "would have" if dry_run else "has"
        click.echo(f"{neutral(domain.name)} {has} {in_words(limits, whom)}{later}")


@dataclass(frozen=True, slots=True)
class _Now:
    """What a domain has before `set` changes it."""

    config: VmConfig
    """Of its next start; of the running VM where there is no definition."""
    persistent: VmConfig | None
    live: DomainView | None
    owed: bool
    """`dynmem release` waits until the running VM has all that it is owed, which are its limits meanwhile."""

    @classmethod
    def of(cls, domain: Definition) -> Self:
        """Ask libvirt.

        Raises:
            DomainUnsuitable: it is not prepared, or has no definition and is being given back.
        """
        persistent = read_domain(domain.xml()).config if domain.persistent else None
        running = domain.live_xml() if domain.running else None
        live = None if running is None else read_domain(running)
        owed = running is not None and is_owed(parse_xml(running))
        config = persistent or (live.config if live else None)
        if config is None:
            raise DomainUnsuitable(
                "it is not prepared for dynamic memory", vm=domain.name, hint="see `dynmem enable`"
            )
        if owed and persistent is None:
            again = f"`dynmem adopt {shell_word(domain.name)}` keeps it"
            raise DomainUnsuitable("it is being given back (`dynmem release`)", vm=domain.name, hint=again)
        return cls(config, persistent, live, owed)


def _set_live(
    domain: Definition, view: DomainView | None, wanted: Limits, trust: Trust, *, dry_run: bool
) -> None:
    config = view.config if view is not None else None
    if view is None or config is None:
        return
    limits, waits = live_limits(config.limits, wanted, view.most_bytes)
    say(waits)
    if limits.maximum_bytes > max(config.limits.maximum_bytes, _had(config)):
        request = Request(parse_xml(domain.live_xml()), limits, config.growth)
        if (refusal := memtune_of_what_runs(request)) is not None:
            raise DomainUnsuitable(refusal.reason, vm=domain.name, hint=refusal.hint)
    if (limits == config.limits and trust is config.trust) or dry_run:
        return
    domain.write_metadata(metadata_element(limits, config.growth, trust, domain.live_xml()))
    click.echo(f"{neutral(domain.name)} has {in_words(limits, trust)} now")


def _with_limits(
    domain: Definition, old: VmConfig, limits: Limits, trust: Trust, host: HostAbilities
) -> tuple[str, tuple[str, ...]]:
    """Its definition with other limits, and what is so by them and was not before.

    What was adopted keeps the memory layout that its user gave it.
    """
    if old.source == ADOPTED:
        request = Request(parse_xml(domain.xml()), limits, old.growth)
        more = limits.maximum_bytes > max(old.limits.maximum_bytes, _had(old))
        if more and (refusal := memtune(request)) is not None:
            raise DomainUnsuitable(refusal.reason, vm=domain.name, hint=refusal.hint)
        return adopted_definition(domain.xml(secrets=True), limits, old.growth, trust, whole=False), ()
    new = prepared(domain, limits, old.growth, trust, host, secrets=True)
    try:
        before = prepared(domain, old.limits, old.growth, old.trust, host).notes
    except DynmemError:  # it would not be prepared like this any more
        before = ()
    return new.xml, tuple(note for note in new.notes if note not in before)


def _had(config: VmConfig) -> int:
    """The RAM that an adopted VM boots with, bytes: it may take that whatever libvirt's own limits are."""
    return config.boot_ram_bytes if config.source == ADOPTED else 0
