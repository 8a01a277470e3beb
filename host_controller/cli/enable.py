"""`dynmem enable`, `disable` and `set`: a domain's part in dynamic memory, kept in its own XML."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import click

from host_controller.cli.abilities import abilities
from host_controller.cli.domain_file import DomainFile
from host_controller.cli.limits import first_limits, given_limits, in_words, limit_options, live_limits
from host_controller.config import load
from host_controller.config.rule import AUTO
from host_controller.core.model import ADOPTED, Growth, Limits, Trust, VmConfig
from host_controller.domain_xml.adopted import adopted_definition
from host_controller.domain_xml.dom import same
from host_controller.domain_xml.edit import Plan, difference
from host_controller.domain_xml.edit import enable as prepare
from host_controller.domain_xml.fitness.refusal import Request
from host_controller.domain_xml.fitness.sizes import memtune, memtune_of_what_runs
from host_controller.domain_xml.growth_choice import HostAbilities, choose
from host_controller.domain_xml.ours import metadata_element
from host_controller.domain_xml.read import DomainView, read_domain
from host_controller.domain_xml.restore import restore
from host_controller.domain_xml.values import parse_xml
from host_controller.errors import DomainMustBeOff, DomainUnsuitable, DynmemError, InputError
from host_controller.hypervisor.definitions import Definition, Definitions
from host_controller.neutral import neutral

Domain = Definition | DomainFile

connect: Final = click.option(
    "--connect", metavar="URI", help="Which libvirt, if not the one of the configuration."
)
dry_run: Final = click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")


def domain_names(context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """For shell completion: every domain, prepared or not; none when libvirt cannot be asked."""
    try:
        with Definitions(context.params.get("connect") or load().libvirt.uri) as definitions:
            return [name for name in definitions.names() if name.startswith(incomplete)]
    except DynmemError:
        return []


trust_option: Final = click.option(
    "--trust",
    type=click.Choice([one.value for one in Trust]),
    help="none: charged with all of its RAM always, so nothing that its guest says frees memory for others.",
)


in_file: Final = click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="A file with the domain's XML, instead of what libvirt has defined: of a transient VM's next start.",
)


@click.command()
@click.argument("vm", required=False, shell_complete=domain_names)
@in_file
@limit_options
@trust_option
@click.option(
    "--growth",
    type=click.Choice([AUTO, *(one.value for one in Growth)]),
    help="How it grows past startup: by virtio-mem, by hot-added DIMMs, or only within what it boots with "
    "(balloon). The first time, and by `auto`, the first of these that works for it on this host.",
)
@click.option("--config", type=click.Path(path_type=Path), help="Instead of /etc/dynmem/dynmem.toml.")
@dry_run
@connect
def enable(
    vm: str | None,
    file: Path | None,
    growth: str | None,
    trust: str | None,
    config: Path | None,
    *,
    dry_run: bool,
    connect: str | None,
    **given: int | None,
) -> None:
    """Prepare VM for dynamic memory; it must be off. Or a domain in a file, as clusters start it from.

    Sizes are written as 512M or 1.5GiB. Limits that are not given stay what they were; the first time they
    come from [defaults] of the configuration. Doing it again changes nothing more; `dynmem disable` puts the
    domain back as it was.
    """
    _refuse_unless_one_is_named(vm, file)
    configuration = load(config)
    defaults = configuration.default_limits
    with Definitions(connect or configuration.libvirt.uri) as definitions:
        domain = _meant(definitions, vm, file)
        old = read_domain(domain.xml()).config
        limits = given_limits(old.limits, given) if old else first_limits(defaults, given)
        whom = Trust(trust) if trust else (old.trust if old else Trust.GUEST)
        host = abilities(definitions)
        how, why = _growth(growth, old, domain, limits, host)
        plan = _prepared(domain, limits, how, whom, host)
        new = _prepared(domain, limits, how, whom, host, secrets=True).xml
        if same(domain.xml(secrets=True), new):
            _say((*why, *plan.notes))
            click.echo(f"{neutral(domain.name)} is prepared like this already; nothing to change")
            return
        _change(
            domain,
            plan.xml,
            new,
            (*why, *plan.notes),
            dry_run=dry_run,
            to_do="shut it down first; `dynmem set` changes limits of a running VM",
        )
        if not dry_run:
            click.echo(f"{neutral(domain.name)} is prepared; it takes part from its next start")


@click.command()
@click.argument("vm", required=False, shell_complete=domain_names)
@in_file
@dry_run
@connect
def disable(vm: str | None, file: Path | None, *, dry_run: bool, connect: str | None) -> None:
    """Put VM's definition back as it was before `dynmem enable`; it must be off. Or a file."""
    _refuse_unless_one_is_named(vm, file)
    with Definitions(connect or load().libvirt.uri) as definitions:
        domain = _meant(definitions, vm, file)
        new = restore(domain.xml(secrets=True))
        if same(domain.xml(secrets=True), new.xml):
            click.echo(f"{neutral(domain.name)} is not prepared for dynamic memory; nothing to change")
            _say(new.notes)
            return
        shown = restore(domain.xml()).xml
        _change(domain, shown, new.xml, new.notes, dry_run=dry_run, to_do="shut it down first")
        if not dry_run:
            click.echo(
                f"{neutral(domain.name)} is as it was" + ("" if new.exact else ", as far as it is known")
            )


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
        new = None
        if now.persistent is not None:  # what is refused is refused before anything changes
            new = _with_limits(domain, now.persistent, limits, whom, abilities(definitions))
        _set_live(domain, now.live, limits, whom, dry_run=dry_run)
        if new is not None and not dry_run:
            domain.define(new)
        later = " from its next start" if new is not None and now.live is not None else ""
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

    @classmethod
    def of(cls, domain: Definition) -> Self:
        """Ask libvirt.

        Raises:
            DomainUnsuitable: it is not prepared.
        """
        persistent = read_domain(domain.xml()).config if domain.persistent else None
        live = read_domain(domain.live_xml()) if domain.running else None
        config = persistent or (live.config if live else None)
        if config is None:
            raise DomainUnsuitable(
                "it is not prepared for dynamic memory", vm=domain.name, hint="see `dynmem enable`"
            )
        return cls(config, persistent, live)


def _growth(
    wish: str | None, old: VmConfig | None, domain: Domain, limits: Limits, host: HostAbilities
) -> tuple[Growth, tuple[str, ...]]:
    """How it is to grow, and why where that was not said: what is prepared keeps its way."""
    if wish is None and old is not None:
        return old.growth, ()
    if wish is None or wish == AUTO:
        return choose(domain.xml(), limits, host)
    return Growth(wish), ()


def _set_live(
    domain: Definition, view: DomainView | None, wanted: Limits, trust: Trust, *, dry_run: bool
) -> None:
    config = view.config if view is not None else None
    if view is None or config is None:
        return
    limits, waits = live_limits(config.limits, wanted, view.most_bytes)
    _say(waits)
    if limits.maximum_bytes > max(config.limits.maximum_bytes, _had(config)):
        request = Request(parse_xml(domain.live_xml()), limits, config.growth)
        if (refusal := memtune_of_what_runs(request)) is not None:
            raise DomainUnsuitable(refusal.reason, vm=domain.name, hint=refusal.hint)
    if (limits == config.limits and trust is config.trust) or dry_run:
        return
    domain.set_live_metadata(metadata_element(limits, config.growth, trust, domain.live_xml()))
    click.echo(f"{neutral(domain.name)} has {in_words(limits, trust)} now")


def _change(
    domain: Domain, shown: str, new: str, notes: tuple[str, ...], *, dry_run: bool, to_do: str
) -> None:
    if not dry_run:
        _must_be_off(domain, to_do)
    click.echo(difference(domain.xml(), shown, domain.name))
    _say(notes)
    if not dry_run:
        domain.define(new)


def _refuse_unless_one_is_named(vm: str | None, file: Path | None) -> None:
    if (vm is None) == (file is None):
        raise InputError("name one VM, or one --file")


def _meant(definitions: Definitions, vm: str | None, file: Path | None) -> Domain:
    """The one that was named."""
    return definitions.find(vm) if vm is not None else DomainFile(file or Path())


def _must_be_off(domain: Domain, to_do: str) -> None:
    if not domain.persistent:
        raise DomainUnsuitable(
            "it is transient: there is no definition to change", vm=domain.name, hint="virsh define it first"
        )
    if domain.running:
        raise DomainMustBeOff(
            "it is running, and its memory layout is fixed while it does", vm=domain.name, hint=to_do
        )
    if domain.saved:
        raise DomainMustBeOff(
            "it is saved, and comes back with the memory layout that it was saved with",
            vm=domain.name,
            hint="start it and shut it down, or virsh managedsave-remove it",
        )


def _had(config: VmConfig) -> int:
    """The RAM that an adopted VM boots with, bytes: it may take that whatever libvirt's own limits are."""
    return config.boot_ram_bytes if config.source == ADOPTED else 0


def _with_limits(domain: Definition, old: VmConfig, limits: Limits, trust: Trust, host: HostAbilities) -> str:
    """Its definition with other limits. What was adopted keeps the memory layout that its user gave it."""
    if old.source == ADOPTED:
        request = Request(parse_xml(domain.xml()), limits, old.growth)
        more = limits.maximum_bytes > max(old.limits.maximum_bytes, _had(old))
        if more and (refusal := memtune(request)) is not None:
            raise DomainUnsuitable(refusal.reason, vm=domain.name, hint=refusal.hint)
        return adopted_definition(domain.xml(secrets=True), limits, old.growth, trust, whole=False)
    return _prepared(domain, limits, old.growth, trust, host, secrets=True).xml


def _prepared(
    domain: Domain,
    limits: Limits,
    growth: Growth,
    trust: Trust,
    host: HostAbilities,
    *,
    secrets: bool = False,
) -> Plan:
    """What `enable` makes of a domain. Errors of the pure editing do not know whose XML it was."""
    try:
        return prepare(
            domain.xml(secrets=secrets),
            limits,
            growth,
            trust,
            host_address_bits=host.address_bits,
            host_huge_page_bytes=host.huge_page_bytes,
        )
    except (InputError, DomainUnsuitable) as error:
        error.vm = error.vm or domain.name
        raise


def _say(notes: tuple[str, ...]) -> None:
    for note in notes:
        click.echo(f"* {neutral(note)}")
