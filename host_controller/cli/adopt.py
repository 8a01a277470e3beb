"""`dynmem adopt`: VMs that run already are taken on, without a restart."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from host_controller.adoption.carry_out import carry_out
from host_controller.adoption.plan import Adoption, Wish, plan_adoption
from host_controller.api.client import socket_of
from host_controller.cli.abilities import abilities
from host_controller.cli.adoptions import (
    KNOWN_SECONDS,
    WAIT_SECONDS,
    Result,
    clock,
    controller_of,
    end,
    facts_of,
    progress,
    told,
    told_of_controller,
)
from host_controller.cli.limits import buffer_option, weight_option
from host_controller.cli.options import (
    at_socket,
    config_file,
    connect,
    domain_names,
    dry_run,
    size,
    trust_option,
)
from host_controller.config import load
from host_controller.config.amount import parse_amount
from host_controller.config.rule import AUTO, MatchSection, RuleSection
from host_controller.core.model import Growth, Trust
from host_controller.errors import DynmemError, InputError
from host_controller.hypervisor.definitions import Definitions
from host_controller.hypervisor.running import RunningDomain
from host_controller.neutral import shell_word


def _amount(_context: click.Context, _param: click.Parameter, value: str | None) -> object:
    if value is None:
        return None
    try:
        return parse_amount(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("vms", nargs=-1, metavar="[VM]...", shell_complete=domain_names)
@click.option("--all", "everything", is_flag=True, help="Every VM that runs and is not managed.")
@click.option(
    "--match", "pattern", metavar="PATTERN", help="The same of those whose names fit, such as 'web-*'."
)
@click.option(
    "--minimum", metavar="SIZE|%", callback=_amount, help="It never gets less; a share is of its RAM."
)
@click.option(
    "--maximum", metavar="SIZE|%", callback=_amount, help="It never gets more; all of its RAM by default."
)
@buffer_option
@weight_option
@trust_option
@click.option(
    "--growth",
    type=click.Choice([AUTO, *(one.value for one in Growth)]),
    help="By default, and by `auto`, what its running devices allow and this host has shown that it can do; "
    "with --next-start, that of its next start.",
)
@click.option("--next-start", is_flag=True, help="Prepare its definition too, as `dynmem enable` would.")
@size("--startup", "With --next-start: what it boots with then.")
@click.option("--json", "as_json", is_flag=True, help="AdoptionsView of GET /v1/schema.")
@config_file
@dry_run
@connect
@at_socket
def adopt(
    vms: tuple[str, ...],
    pattern: str | None,
    trust: str | None,
    growth: str | None,
    startup: int | None,
    config: Path | None,
    connect: str | None,
    socket: str | None,
    *,
    everything: bool,
    next_start: bool,
    as_json: bool,
    dry_run: bool,
    **named: Any,
) -> None:
    """Take on VMs that run, without a restart.

    Their balloons are moved within the RAM that they have; statistics are switched on and the agent's port is
    plugged while they run. Their definitions get the same. Limits that are not given come from [defaults] of
    the configuration. Doing it again finishes what was cut off, and `dynmem release` gives all of it back.
    """
    if bool(vms) + everything + (pattern is not None) != 1:
        raise InputError("say which VMs to adopt: VM…, or --all, or --match PATTERN", hint="dynmem adopt VM")
    if startup is not None and not next_start:
        raise InputError(
            "--startup is of the next start, and what runs keeps what it has", hint="--next-start prepares it"
        )
    configuration = load(config)
    rule = RuleSection(
        match=MatchSection(name="*"),
        trust=Trust(trust or Trust.GUEST),
        growth=None if growth in (None, AUTO) else Growth(growth),
        **named,
    )
    say = progress(as_json)
    with Definitions(connect or configuration.libvirt.uri) as definitions:
        guest_agents = configuration.libvirt.guest_agent
        defaults = configuration.default_limits
        wish = Wish(rule, defaults, next_start, startup, guest_agents, abilities(definitions))

        def one(name: str, which: str) -> Result:
            return _adopt(definitions, name, which, wish, dry_run=dry_run, say=say)

        chosen = [(vm, vm) for vm in vms] or _running(definitions, pattern)
        results = [told(one(name, which), as_json) for name, which in chosen]
    end(results, as_json, nothing="no VM runs" + (f" whose name fits {pattern}" if pattern else ""))
    adopted = next((one for one in results if one.outcome == "adopted"), None)
    if adopted is not None and not as_json:
        at = socket_of(socket, configuration.socket_path)
        told_of_controller(adopted, controller_of(adopted.uuid, at, KNOWN_SECONDS))
    refused = any(one.outcome == "refused" for one in results) and bool(vms)
    if any(one.outcome == "failed" for one in results):
        raise SystemExit(1)
    if refused:
        raise SystemExit(2)


def _adopt(
    definitions: Definitions,
    name: str,
    which: str,
    wish: Wish,
    *,
    dry_run: bool,
    say: Callable[[str, str], None],
) -> Result:
    result = Result(name)
    try:
        domain = RunningDomain(definitions, which)
        result.name, result.uuid = domain.name, domain.uuid
        plan = plan_adoption(facts_of(domain), wish)
        result.steps, result.now, result.later = (
            [one.say for one in plan.steps],
            list(plan.now),
            list(plan.later),
        )
        if dry_run and plan.steps:
            result.outcome = "would be adopted" if plan.takes_part else "would be prepared"
        elif plan.steps:
            _take_on(plan, domain, say)
            result.outcome = "adopted" if plan.takes_part else "prepared"
    except DynmemError as error:
        result.failed(error)
    return result


def _take_on(plan: Adoption, domain: RunningDomain, say: Callable[[str, str], None]) -> None:
    word = shell_word(plan.vm)
    again = f"`dynmem adopt {word}` goes on from there, `dynmem release {word}` undoes it"
    carry_out(plan.vm, plan.steps, domain, lambda text: say(plan.vm, text), clock(WAIT_SECONDS), again)


def _running(definitions: Definitions, pattern: str | None) -> list[tuple[str, str]]:
    """Names and UUIDs."""
    listed = definitions.listed(running=True)
    return [(name, uuid) for name, uuid in listed if pattern is None or fnmatchcase(name, pattern)]
