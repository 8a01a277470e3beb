"""`dynmem advise`: what each VM's limits could be, and what that would have done."""

import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from host_controller.cli.options import all_as_json, at_socket, size, vm_names
from host_controller.cli.text import json_text, paint, wants_colour
from host_controller.errors import DynmemError, InputError
from host_controller.neutral import by_name, neutral
from host_controller.units import MIB, format_size, parse_duration, round_up

if TYPE_CHECKING:
    from host_controller.advice.advise import Advice, HostAdvice
    from host_controller.advice.past import Past

history_files = click.option(
    "--history",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A history file or an export (jsonl), of this host or another; several are one host's.",
)
since_option = click.option(
    "--since", default="35d", show_default=True, metavar="DURATION", help="How far to look back."
)


@click.command()
@click.argument("vm", required=False, shell_complete=vm_names)
@since_option
@click.option("--anyway", is_flag=True, help="Also from less than a week.")
@click.option("--apply", "applied", is_flag=True, help="Set what is advised for VM.")
@all_as_json
@history_files
@size("--capacity", "Of the host, for the replay; the running controller's by default.")
@click.option("--connect", metavar="URI", help="For --apply: libvirt, if not the configuration's.")
@at_socket
def advise(
    vm: str | None,
    since: str,
    *,
    anyway: bool,
    applied: bool,
    as_json: bool,
    files: tuple[Path, ...],
    capacity: int | None,
    connect: str | None,
    socket: str | None,
) -> None:
    """Say what the limits of VM, or of each VM, could be, and what that would have done.

    The sizes come from what each VM wanted by the minute. They are proven by playing all VMs' recorded
    weeks through the engine, with the limits of now and with those that are advised. That takes some
    minutes for 100 VMs and a month. Nothing is advised from less than a week unless --anyway asks for it.
    """
    from host_controller.advice.advise import advise as advise_all

    if applied and vm is None:
        raise InputError("--apply is for one VM", hint="dynmem advise VM --apply")
    pasts = read_pasts(files, since)
    if vm is not None and not any(vm in (one.name, one.uuid) for one in pasts):
        raise InputError("nothing is known of it by the minute", vm=vm, hint="dynmem advise, without a VM")
    found = advise_all(pasts, capacity or running_capacity(socket), anyway=anyway)
    chosen = [one for one in found.vms if vm is None or vm in (one.past.name, one.past.uuid)]
    if vm is not None and not chosen:
        raise InputError("its limits are not in the history yet", vm=vm, hint="they are after a minute")
    if as_json:
        click.echo(json_text(found.as_json(chosen)))
    else:
        click.echo("\n".join(lines(found, chosen)))
    if applied:
        # A program that reads the advice finds nothing else behind it.
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            # Of those that have had the name, the one that was seen last.
            _apply(max(chosen, key=lambda one: one.past.end), connect)


def read_pasts(files: tuple[Path, ...], since: str) -> "list[Past]":
    """From the files that were named, or from this host's history.

    Raises:
        InputError: they cannot be read, or hold nothing.
    """
    from host_controller.advice.past import comparable
    from host_controller.advice.sources import pasts_in
    from host_controller.config import load

    try:
        seconds = parse_duration(since)
    except ValueError as error:
        raise InputError(f"--since: {error}") from None
    paths = list(files) or [Path(load().paths.history)]
    pasts, others = comparable(pasts_in(paths, time.time() - seconds))
    for one in others:
        click.echo(f"{neutral(one.name)} is left out: its time is not that of the others", err=True)
    if not pasts:
        where = ", ".join(str(path) for path in paths)
        raise InputError(
            f"{where}: there is nothing by the minute of the last {since}",
            hint="a managed VM that runs has a row each minute; what is older needs a longer --since",
        )
    return sorted(pasts, key=lambda one: by_name(one.name))


def running_capacity(socket: str | None) -> int | None:
    """Of the controller that runs here; None where there is none."""
    from host_controller.api.answer import known
    from host_controller.api.client import Client, understood

    try:
        status = Client(socket).get("status")
        with understood(status, "host", "StatusView"):
            found = known(status["host"]["capacity_bytes"], None)
    except DynmemError:
        return None
    return found if isinstance(found, int) and found > 0 else None


def lines(found: "HostAdvice", chosen: "list[Advice]") -> list[str]:
    """The advice as text."""
    colour = wants_colour()
    told = []
    for one in chosen:
        told += _of_one(one, colour)
    if found.left_out:
        names = ", ".join(map(neutral, found.left_out))
        told.append(f"of {names} the limits are not known, so nothing is advised")
    freed = sum(one.freed_bytes for one in chosen)
    told.append(
        f"replayed {found.then.seconds / 86400:.1f} days: {format_size(freed)} less promised; all "
        "VMs together had "
        f"{format_size(found.then.peak_bytes)} at the peak, and would have had "
        f"{format_size(found.advised.peak_bytes)}"
    )
    if found.then.overdraft_seconds or found.advised.overdraft_seconds:
        told.append(
            f"overdraft: {found.then.overdraft_seconds:.0f} s now, "
            f"{found.advised.overdraft_seconds:.0f} s as advised"
        )
    return told


def _of_one(one: "Advice", colour: bool) -> list[str]:
    past, suggestion = one.past, one.suggestion
    told = [paint(neutral(past.name), "bold", colour)]
    told.append(
        f"  seen for {past.days:.1f} days, {past.gaps} gaps, {past.reboots} resets: "
        f"confidence {suggestion.confidence}"
    )
    told += [f"  {finding}" for finding in suggestion.findings]
    if suggestion.refused is not None:
        told.append(f"  no advice: {suggestion.refused}")
    elif one.taken_back:
        told.append(
            "  its limits stay: with smaller ones the replay went short by "
            f"{100 * one.advised.unmet_share:.2f} % of what it wanted"
        )
    elif not suggestion.reasons:
        told.append("  its limits are right")
    else:
        told += [f"  {reason}" for reason in suggestion.reasons]
        told.append(
            f"  in the replay: {one.advised.unmet_mib_seconds:.0f} MiB·s unmet, "
            f"{one.then.unmet_mib_seconds:.0f} with "
            f"the limits of now; at most {format_size(one.advised.largest_bytes)} instead of "
            f"{format_size(one.then.largest_bytes)}"
        )
    return told


def _apply(one: "Advice", connect: str | None) -> None:
    """As `dynmem set` does it: what a running VM can take at once, the rest with its next start."""
    from host_controller.cli.set_limits import set_limits

    now, wanted = one.now, one.limits
    if wanted == now:
        click.echo("nothing to set")
        return
    given: dict[str, Any] = {
        "startup": round_up(wanted.startup_bytes, MIB),
        "minimum": round_up(wanted.minimum_bytes, MIB),
        "maximum": round_up(wanted.maximum_bytes, MIB),
        "buffer": wanted.buffer_percent,
    }
    before = {
        "startup": now.startup_bytes,
        "minimum": now.minimum_bytes,
        "maximum": now.maximum_bytes,
        "buffer": now.buffer_percent,
    }
    changed = {key: value if value != before[key] else None for key, value in given.items()}
    assert set_limits.callback is not None
    # By its UUID: what libvirt has of its name may be another VM.
    set_limits.callback(one.past.uuid, None, dry_run=False, connect=connect, weight=None, **changed)
