"""`dynmem enable` and `disable`: a domain's part in dynamic memory, kept in its own XML."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from host_controller.cli.abilities import abilities
from host_controller.cli.domain_file import DomainFile
from host_controller.cli.limits import first_limits, given_limits, limit_options
from host_controller.cli.options import config_file, connect, domain_names, dry_run, trust_option
from host_controller.config import load
from host_controller.config.rule import AUTO
from host_controller.core.model import Growth, Limits, Trust, VmConfig
from host_controller.domain_xml.dom import same
from host_controller.domain_xml.edit import Plan, difference
from host_controller.domain_xml.edit import enable as prepare
from host_controller.domain_xml.growth_choice import choose
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import restore
from host_controller.errors import DomainMustBeOff, DomainUnsuitable, DynmemError, InputError
from host_controller.hypervisor.definitions import Definition, Definitions
from host_controller.neutral import neutral

Domain = Definition | DomainFile

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
@config_file
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
        plan = prepared(domain, limits, how, whom, host)
        new = prepared(domain, limits, how, whom, host, secrets=True).xml
        if same(domain.xml(secrets=True), new):
            say((*why, *plan.notes))
            click.echo(f"{neutral(domain.name)} is prepared like this already; nothing to change")
            return
        _change(
            domain,
            plan.xml,
            new,
            (*why, *plan.notes, *_snapshots(domain, prepared=False)),
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
            say(new.notes)
            return
        shown = restore(domain.xml()).xml
        notes = (*new.notes, *_snapshots(domain, prepared=True))
        _change(domain, shown, new.xml, notes, dry_run=dry_run, to_do="shut it down first")
        if not dry_run:
            click.echo(
                f"{neutral(domain.name)} is as it was" + ("" if new.exact else ", as far as it is known")
            )


def _growth(
    wish: str | None, old: VmConfig | None, domain: Domain, limits: Limits, host: HostAbilities
) -> tuple[Growth, tuple[str, ...]]:
    """How it is to grow, and why where that was not said: what is prepared keeps its way."""
    if wish is None and old is not None:
        return old.growth, ()
    if wish is None or wish == AUTO:
        return choose(domain.xml(), limits, host)
    return Growth(wish), ()


def _change(
    domain: Domain, shown: str, new: str, notes: tuple[str, ...], *, dry_run: bool, to_do: str
) -> None:
    try:
        _must_be_off(domain, to_do)
    except DynmemError as error:
        if not dry_run:
            raise
        notes += (f"not now: {error.message}; {error.hint}",)
    click.echo(difference(domain.xml(), shown, domain.name))
    say(notes)
    if not dry_run:
        domain.define(new)


def _snapshots(domain: Domain, *, prepared: bool) -> Iterator[str]:
    """What reverting to a snapshot undoes: libvirt then takes the definition that it has kept."""
    if count := domain.snapshots(prepared=prepared):
        how = "prepared for dynamic memory" if prepared else "without dynamic memory"
        command = "disable" if prepared else "enable"
        yield (
            f"{count} of its snapshots {'has' if count == 1 else 'have'} it {how}: reverted to, it is so "
            f"again, until `dynmem {command}` is said again"
        )


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


def prepared(
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
        return prepare(domain.xml(secrets=secrets), limits, growth, trust, host)
    except (InputError, DomainUnsuitable) as error:
        error.vm = error.vm or domain.name
        raise


def say(notes: tuple[str, ...]) -> None:
    """What the user should know, a line each."""
    for note in notes:
        click.echo(f"* {neutral(note)}")
