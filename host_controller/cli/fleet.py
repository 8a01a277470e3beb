"""`dynmem fleet`: the hosts of a cluster, seen and used together."""

import logging
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final, TextIO, cast

import click

from host_controller.cli import fleet_text
from host_controller.cli.options import config_file, interval_option, needs_screen
from host_controller.cli.text import json_text
from host_controller.config import load
from host_controller.credentials import DIRECTORY, Credentials
from host_controller.errors import InputError
from host_controller.fleet.arbiter import STATE, TURN_SECONDS, Arbiter
from host_controller.fleet.certificates import HOST_DAYS, make_authority, make_host
from host_controller.fleet.core.model import mib_up
from host_controller.fleet.core.why import why as obstacles
from host_controller.fleet.draining import drain
from host_controller.fleet.errors import FleetError
from host_controller.fleet.hosts import Hosts
from host_controller.fleet.pacemaker.pins import drained
from host_controller.fleet.pacemaker.tools import Tools
from host_controller.fleet.preparing import needs_of, prepare
from host_controller.fleet.progress import Progress
from host_controller.fleet.undraining import undrain
from host_controller.fleet.view import look
from host_controller.neutral import neutral

as_json: Final = click.option("--json", "as_json", is_flag=True, help="For programs, instead of text.")


@click.group()
def fleet() -> None:
    """The hosts of a Pacemaker cluster together: where VMs start, and how a host is emptied.

    Run on any host of the cluster, as root. No host needs this to work: with it gone, each goes on alone.
    """


@fleet.command()
@as_json
@config_file
def status(*, as_json: bool, config: Path | None) -> None:
    """Show every host and who is where, with what is booked and what a start could be given."""
    plain = fleet_text.status_plain(look(Tools(), _hosts(config)), time.time())
    click.echo(json_text(plain) if as_json else "\n".join(fleet_text.status_lines(plain)))


@fleet.command()
@interval_option(1.0, 5.0, "How often to look.")
@config_file
def top(*, interval: float, config: Path | None) -> None:
    """Show every host and who is where, live.

    Keys: q quits, n h d c b sort VMs by name, host, need, charge and what is booked, r reverses, arrows and
    page keys scroll. Each look asks the cluster's scheduler once.
    """
    needs_screen("dynmem fleet status")
    # Only this command needs rich, and it takes a third of a second.
    from host_controller.cli.fleet_screen import FleetView, Meanwhile
    from host_controller.cli.live import Live

    engine, hosts = Tools(), _hosts(config)
    meanwhile = Meanwhile(lambda: fleet_text.status_plain(look(engine, hosts), time.time()), interval)
    try:
        Live(meanwhile, FleetView(), min(1.0, interval)).run()
    finally:
        meanwhile.stop()


@fleet.command()
@click.argument("vm")
@as_json
@config_file
def why(vm: str, *, as_json: bool, config: Path | None) -> None:
    """Say what each host lacks for VM to start there, and who holds it.

    Exit code 0 when a host could take it, 1 when none can.
    """
    view = look(Tools(), _hosts(config))
    resource = next((one for one in view.cell.resources if one.name == vm), None)
    if resource is None:
        names = ", ".join(neutral(one.name) for one in view.cell.resources[:10]) or "none"
        raise InputError(f"the cluster places no VM {neutral(vm, 100)!r} by demand", hint=f"it does: {names}")
    figures = view.cell.figures_of(resource)
    # What is published may be nothing yet, or somebody's word that is no size.
    arrives = 0 if figures is None else mib_up(figures.arrival_bytes)
    size = max(resource.published_mib or 0, resource.startup_mib or 0, arrives)
    if not size:
        hint = "dynmem fleet init, and where its file is: dynmem enable --file FILE"
        raise InputError("nobody tells how large it is, nor does its file on this host", vm=vm, hint=hint)
    found = obstacles(view.cell, resource, size)
    if as_json:
        plain = {"vm": vm, "node": resource.node, "size_mib": size, "hosts": [asdict(one) for one in found]}
        click.echo(json_text(plain))
    else:
        click.echo("\n".join(fleet_text.why_lines(resource, size, found)))
    if not any(one.takes for one in found):
        sys.exit(1)


@fleet.command(name="drain")
@click.argument("host")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@as_json
@config_file
def drain_host(host: str, *, dry_run: bool, as_json: bool, config: Path | None) -> None:
    """Move every VM away from HOST by live migration, or refuse and say which VM lacks what.

    The engine's own scheduler is asked first, and every destination promises the memory. HOST takes no VMs
    until `undrain`. Cut off, it can be said again.
    """
    engine, hosts = Tools(), _hosts(config)

    def tell(progress: Progress) -> None:
        if not as_json:
            click.echo(fleet_text.progress_line(progress))

    if dry_run:
        from host_controller.fleet.draining import plan

        found = plan(engine, look(engine, hosts).cell, host)
    else:
        try:
            found = drain(engine, hosts, lambda: look(engine, hosts).cell, host, tell)
        except KeyboardInterrupt:
            _tell_of_standby(engine, host)
            raise
    if as_json:
        click.echo(json_text(asdict(found)))
    else:
        click.echo("\n".join(fleet_text.drain_lines(host, found, done=not dry_run)))
    if found.refusals:
        sys.exit(2)


def _tell_of_standby(engine: Tools, host: str) -> None:
    """Ctrl-C ends the command; what it has begun goes on, where it had begun it."""
    with suppress(FleetError):
        if drained(engine.query(), host):
            text = f"{host} stays in standby, and the cluster goes on moving its VMs"
            hint = f"dynmem fleet drain {host} goes on with it, dynmem fleet undrain {host} ends it"
            click.echo(f"dynmem: {text}; {hint}", err=True)


@fleet.command(name="undrain")
@click.argument("host")
@config_file
def undrain_host(host: str, *, config: Path | None) -> None:
    """Let HOST take VMs again. Nothing moves back by itself, but where a constraint prefers HOST.

    Such a VM goes back at once, if HOST promises its memory; else nothing is changed. VMs on their way from
    there arrive first: up to half a minute is waited for that, or nothing is changed.
    """
    engine, hosts = Tools(), _hosts(config)
    done = undrain(
        engine,
        hosts,
        lambda: look(engine, hosts).cell,
        host,
        lambda progress: click.echo(fleet_text.progress_line(progress)),
    )
    click.echo(f"{host} takes VMs again" if done else f"{host} is not drained")


@fleet.command()
@click.option("--check", is_flag=True, help="Only look; exit code 1 when something is missing.")
@as_json
@config_file
def init(*, check: bool, as_json: bool, config: Path | None) -> None:
    """Set what Pacemaker needs for VMs of dynamic size, and say what each setting protects from.

    Fencing is never switched on here: that takes a device. VMs are primitives of the agent VirtualDomain.
    """
    engine, rules = Tools(), load(config).rule
    needs = needs_of(engine.query(), rules) if check else prepare(engine, rules=rules)
    if as_json:
        click.echo(json_text({"needs": [asdict(one) for one in needs]}))
    else:
        click.echo("\n".join(fleet_text.need_lines(needs, check=check)))
    if any(one.by_hand or check for one in needs):
        sys.exit(1)


@fleet.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("fleet-ca"),
    show_default=True,
    help="Where the authority is kept, with a folder for each HOST.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    metavar="DAYS",
    default=HOST_DAYS,
    show_default=True,
    help="How long a certificate is good for.",
)
def certificates(hosts: tuple[str, ...], directory: Path, days: int) -> None:
    """Make a certificate for each HOST, by its node's name, and an authority for all where there is none.

    Copy what is in DIRECTORY/HOST to /etc/dynmem/fleet there. Running controllers take it over by themselves.
    Keep ca.key of the directory away from all hosts: who has it is believed by all.
    """
    if make_authority(directory):
        click.echo(f"a new authority: {directory / 'ca.pem'}; keep {directory / 'ca.key'} safe")
    for host in hosts:
        place = make_host(directory, host, days)
        click.echo(f"{place}/host.pem, host.key, ca.pem: to {host}:{DIRECTORY}, good for {days} days")


@fleet.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option("--endpoint", required=True, metavar="URL", help="Placement's, as in Keystone's catalogue.")
@click.option(
    "--token-file", type=click.Path(path_type=Path), required=True, help="Holds a token of Keystone's, alone."
)
@as_json
@config_file
def placement(
    hosts: tuple[str, ...], *, endpoint: str, token_file: Path, as_json: bool, config: Path | None
) -> None:
    """Tell OpenStack's Placement once how far the memory of each HOST may be promised.

    Only the allocation ratio of MEMORY_MB is set, and only where it differs. Hosts are compute nodes by the
    names of their resource providers, each with dynmem and [fleet] listen. Leave ram_allocation_ratio of Nova
    unset, or it sets its own. Run it every minute, with a fresh token. Exit code 1 when a host was left out.
    """
    from host_controller.fleet.placement.publisher import LARGEST_TOKEN, Placement

    try:
        with token_file.open(encoding="utf-8-sig") as file:
            token = file.read(LARGEST_TOKEN + 1).strip()
    except (OSError, ValueError) as error:
        raise InputError(f"{token_file}: {getattr(error, 'strerror', error)}") from None
    service = Placement(endpoint, token)
    found, silent = _hosts(config).figures(hosts)
    done = service.publish({host: found.get(host) for host in hosts})
    if as_json:
        plain = [{**asdict(one), "silent": silent.get(one.host)} for one in done]
        click.echo(json_text({"hosts": plain}))
    else:
        click.echo("\n".join(fleet_text.outcome_lines(done, silent)))
    if silent or any(one.problem for one in done):
        sys.exit(1)


@fleet.command()
@click.option("--once", is_flag=True, help="One turn, then end; exit code 1 when it was left out.")
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="A file for what it says, instead of standard error: at most 4 MiB, and one older file beside it.",
)
@config_file
def run(*, once: bool, log: Path | None, config: Path | None) -> None:
    """Publish figures and relieve hosts, until a signal: ocf:dynmem:fleet runs this once in a cluster."""
    import structlog

    from host_controller.fleet.bounded_log import BoundedLog

    try:
        file = sys.stderr if log is None else cast(TextIO, BoundedLog(log))
    except OSError as error:
        raise InputError(f"{log}: {error.strerror}") from None
    logger = structlog.PrintLoggerFactory(file=file)
    level = structlog.make_filtering_bound_logger(logging.INFO)
    structlog.configure(logger_factory=logger, wrapper_class=level)
    arbiter = Arbiter(Tools(), _hosts(config), STATE)
    arbiter.start()
    if once:
        if not arbiter.turn():
            hint = "its log says why; is the engine at work, try again when crm_mon shows no action under way"
            raise FleetError("this turn was left out", hint=hint)
        return
    while True:
        arbiter.turn()
        time.sleep(TURN_SECONDS)


def _hosts(config: Path | None) -> Hosts:
    """The other hosts, by this host's own configuration: they listen at the same port.

    Raises:
        InputError: there is no listener here.
    """
    found = load(config)
    if found.fleet_listen is None:
        hint = 'write [fleet] listen = "0.0.0.0:8686" there, on every host, and restart dynmem'
        raise InputError("no [fleet] listen in the configuration: this host is in no fleet", hint=hint)
    return Hosts(Credentials.within(Path(found.fleet.credentials)), found.fleet_listen[1])
