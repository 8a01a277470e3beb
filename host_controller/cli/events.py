"""`dynmem events`: what happened and why, one line each."""

import json
import time
from typing import Any, Final

import click

from host_controller.api.answer import known
from host_controller.api.client import Client, understood
from host_controller.cli.options import at_socket, vm_names
from host_controller.cli.text import ljust, paint, wants_colour
from host_controller.neutral import neutral

FOLLOWED: Final = 10
"""Of what was, before what comes: enough to see where one is, as tail and journalctl do."""
COLOURS = {"overdraft": "red", "fault": "red", "gone": "dim", "connection": "yellow"}


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on until interrupted.")
@click.option("--lines", "-n", type=click.IntRange(0), metavar="N", help="Only the last N; 10 with --follow.")
@click.option("--vm", metavar="VM", shell_complete=vm_names, help="Only what is about this VM.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line (EntryView of GET /v1/schema).")
@at_socket
def events(*, follow: bool, lines: int | None, vm: str | None, as_json: bool, socket: str | None) -> None:
    """Show notices, decisions with their reasons, and commands with their results, oldest first.

    The last 20,000 are kept in memory; `dynmem history VM --since 7d` reaches further back.
    """
    query: dict[str, object] = {"follow": "true"} if follow else {}
    if follow or lines is not None:
        query["last"] = FOLLOWED if lines is None else lines
    if vm is not None:
        query["vm"] = vm
    colour = wants_colour()
    for entry in Client(socket).follow("events", **query):
        with understood(entry, "history", "EntryView"):
            line = json.dumps(entry) if as_json else entry_line(entry, colour)
        click.echo(line)


def entry_line(entry: dict[str, Any], colour: bool = False) -> str:
    """One event as people read it."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(known(entry["at"], 0)))
    about = neutral(entry["name"] or "-")
    failed = bool((entry["detail"] or {}).get("error"))
    line = f"{when}  {neutral(entry['kind']):<8}  {ljust(about, 16)}  {neutral(entry['text'])}"
    return paint(line, "red" if failed else COLOURS.get(str(entry["topic"])), colour)
