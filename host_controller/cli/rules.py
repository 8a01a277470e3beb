"""`dynmem rules`: every VM with the rule that is for it, and what it would get."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from host_controller.adoption.plan import TAINT
from host_controller.cli.abilities import abilities
from host_controller.cli.options import config_file, connect
from host_controller.cli.text import json_text, table
from host_controller.config import load
from host_controller.errors import DynmemError
from host_controller.hypervisor.definitions import Definitions
from host_controller.neutral import neutral, neutral_lines
from host_controller.rules.taking import Rulebook, Taken, idle, take
from host_controller.units import format_size

HEAD: Final = ("VM", "STATE", "LIMITS", "MIN", "MAX", "BUFFER", "WEIGHT", "GROWTH", "TRUST", "NOTE")
LEFT: Final = (0, 1, 2, 7, 8, 9)


@click.command()
@config_file
@click.option("--json", "as_json", is_flag=True, help="RulesView of GET /v1/schema.")
@connect
def rules(config: Path | None, connect: str | None, *, as_json: bool) -> None:
    """Show every VM with the rule that is for it, and what it would get.

    Reads the file as it is now, and changes nothing: `dynmem reload` lets the controller take it over. The
    first rule that matches counts; limits in a VM's own metadata go before all rules.
    """
    configuration = load(config)
    with Definitions(connect or configuration.libvirt.uri) as definitions:
        book = Rulebook(configuration.rule, configuration.default_limits, abilities(definitions))
        vms = [_seen(definitions, uuid, book) for _, uuid in definitions.listed()]
    seen = [(running, taken) for running, taken in vms if taken is not None]
    notes = list(idle(configuration.rule, (taken for _, taken in seen)))
    if configuration.libvirt.guest_agent and any(taken.rule and taken.view.guest_agent for _, taken in seen):
        notes.append(TAINT)
    if as_json:
        views = [_view(running, taken) for running, taken in seen]
        click.echo(json_text({"rules": len(book.rules), "vms": views, "notes": notes}))
        return
    click.echo("\n".join(table(HEAD, [_row(running, taken) for running, taken in seen], LEFT)))
    for note in notes:
        click.echo(f"* {neutral(note)}")


def _seen(definitions: Definitions, uuid: str, book: Rulebook) -> tuple[bool, Taken | None]:
    """Whether it runs, and what rules make of it; None where it has ended, or cannot be read."""
    try:
        domain = definitions.find(uuid)
        running = domain.running
        persistent = domain.xml() if domain.persistent else None
        xml = domain.live_xml() if running else persistent
        return running, None if xml is None else take(xml, persistent, book)
    except DynmemError as error:
        click.echo(f"dynmem: {neutral_lines(error)}", err=True)
        return False, None


def _view(running: bool, taken: Taken) -> dict[str, Any]:
    view, config = taken.view, taken.view.config
    return {
        "uuid": view.uuid,
        "name": view.name,
        "running": running,
        "rule": taken.rule,
        "passed_over": taken.passed_over,
        "source": None if config is None else config.source,
        "growth": None if config is None else config.growth,
        "trust": None if config is None else config.trust,
        "limits": None if config is None else asdict(config.limits),
        "reasons": list(taken.reasons),
        "notes": list(taken.notes),
    }


def _row(running: bool, taken: Taken) -> tuple[str, ...]:
    view, config = taken.view, taken.view.config
    state = "running" if running else "off"
    if config is None:
        said = f"rule[{taken.rule}]" if taken.rule else "-"
        why = view.problems if view.claimed else ("no rule is for it",)
        note = "; ".join((*taken.reasons, *taken.notes) or why)
        return (neutral(view.name), state, said, *["-"] * 6, neutral(note))
    limits = config.limits
    defaults = ", ".join(f"{name} of {whence}" for name, whence in config.defaults if name != "startup")
    said = "; ".join((*taken.notes, defaults) if defaults else taken.notes)
    return (
        neutral(view.name),
        state,
        config.source,
        format_size(limits.minimum_bytes),
        format_size(limits.maximum_bytes),
        f"{limits.buffer_percent} %",
        str(limits.weight),
        config.growth,
        config.trust,
        f"its own metadata goes before rule[{taken.passed_over}]" if taken.passed_over else said,
    )
