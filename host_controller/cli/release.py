"""`dynmem release`: a VM is given back as it was before it was adopted, while it runs."""

from collections.abc import Callable
from pathlib import Path

import click

from host_controller.adoption.carry_out import CutOff, Short, carry_out
from host_controller.adoption.facts import Refused
from host_controller.adoption.giving_back import Release, Room, plan_release
from host_controller.api.client import socket_of
from host_controller.cli.adoptions import (
    WAIT_SECONDS,
    Result,
    clock,
    controller_of,
    end,
    facts_of,
    progress,
    told,
)
from host_controller.cli.options import Seconds, at_socket, config_file, connect, domain_names, dry_run
from host_controller.config import Config, load
from host_controller.core.books.capacity import default_spare_bytes
from host_controller.hypervisor.definitions import Definitions
from host_controller.hypervisor.running import RunningDomain
from host_controller.neutral import shell_word


@click.command()
@click.argument("vm", shell_complete=domain_names)
@click.option(
    "--wait",
    type=Seconds(0, 86400),
    default=WAIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long others may be asked for its memory.",
)
@click.option("--json", "as_json", is_flag=True, help="AdoptionsView of GET /v1/schema.")
@config_file
@dry_run
@connect
@at_socket
def release(
    vm: str,
    wait: float,
    config: Path | None,
    connect: str | None,
    socket: str | None,
    *,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Give VM back as it was before `dynmem adopt`, without a restart.

    Its balloon is emptied first, within the capacity: others give what is missing. If that cannot be had it
    stays managed, and what is missing is said.
    """
    configuration = load(config).at(connect)
    say = progress(as_json)
    with Definitions(configuration.libvirt.uri) as definitions:
        domain = RunningDomain(definitions, vm)
        result = Result(domain.name, domain.uuid)
        try:
            plan = plan_release(facts_of(domain), _room(configuration, socket, domain.uuid))
            result.steps, result.now = [one.say for one in plan.steps], list(plan.notes)
            result.outcome = "would be released"
            if not dry_run:
                _give_back(plan, domain, wait, say)
                result.outcome = "released"
        except (Refused, CutOff, Short) as error:
            result.failed(error)
    end([told(result, as_json)], as_json, nothing="")
    if result.outcome in ("failed", "refused"):
        raise SystemExit(1 if result.outcome == "failed" else 2)


def _give_back(plan: Release, domain: RunningDomain, wait: float, say: Callable[[str, str], None]) -> None:
    again = f"`dynmem release {shell_word(plan.vm)}` goes on from there"
    try:
        carry_out(plan.vm, plan.steps, domain, lambda text: say(plan.vm, text), clock(wait), again)
    except (Short, KeyboardInterrupt):
        if plan.undo is not None and (live := domain.live_xml()) is not None:
            domain.write_metadata(plan.undo.element(live, domain.definition()))
            say(plan.vm, plan.undo.say)
        raise


def _room(configuration: Config, socket: str | None, uuid: str) -> Room:
    """Only a controller that manages this very VM makes room for it."""
    from host_controller.preflight import host_facts

    manages = controller_of(uuid, socket_of(socket, configuration.socket_path))
    if manages:
        return Room(controller=True)
    facts = host_facts(configuration)
    spare = None
    if facts is not None:
        spare = facts.available_bytes - default_spare_bytes(facts.ordinary_bytes or facts.total_bytes)
    return Room(False, spare, of_another_libvirt=manages is False)
