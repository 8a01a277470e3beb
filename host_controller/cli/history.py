"""`dynmem history VM`: what became of a VM, as a table, as JSON, as a picture."""

import time
from pathlib import Path
from typing import Any, Final

import click

from host_controller.api.answer import known
from host_controller.api.client import Client, understood
from host_controller.cli.events import entry_line
from host_controller.cli.export import FORMATS
from host_controller.cli.options import as_json, at_socket, plot_option, refuse_two_forms, vm_names
from host_controller.cli.text import json_text, number, paint, size, table, wants_colour
from host_controller.errors import InputError
from host_controller.neutral import neutral
from host_controller.units import parse_duration

SPAN_HEAD: Final = ("TIME", "ASSIGNED", "DEMAND", "LARGEST", "NEED", "CHARGE", "SEEN")
HEAD: Final = ("TIME", "ASSIGNED", "DEMAND", "PRESS", "GOAL", "CHARGE", "PHASE")
ROWS: Final = 24
LAST_EVENTS: Final = 20


@click.command()
@click.argument("vm", shell_complete=vm_names)
@click.option("--since", default="1h", show_default=True, metavar="DURATION", help="30min, 6h, 7d, …")
@click.option(
    "--step",
    type=click.Choice(["auto", "detail", "minute", "hour"]),
    default="auto",
    show_default=True,
    help="How fine; auto: as fine as so long a time is kept.",
)
@as_json
@plot_option("Draw it")
@click.option("--export", type=click.Choice(list(FORMATS)), help="For other programs, on standard output.")
@at_socket
def history(
    vm: str,
    since: str,
    step: str,
    *,
    as_json: bool,
    plot: Path | None,
    export: str | None,
    socket: str | None,
) -> None:
    """Show what VM had, needed and cost, and what was done about it.

    The last hour is known at full rate. A week is kept in detail, 35 days by the minute (the mean and the
    largest), and two years by the hour. `dynmem simulate --history` plays what `--step minute --export
    jsonl` gives.
    """
    try:
        parse_duration(since)
    except ValueError as error:
        raise InputError(f"--since: {error}") from None
    refuse_two_forms(json=as_json, plot=plot, export=export)
    asked = {} if step == "auto" else {"step": step}  # an older controller knows no steps
    answer = Client(socket).get("vms", vm, "history", since=since, **asked)
    with understood(answer, "history", "HistoryView"):
        _show(answer, export, plot, as_json=as_json)


def _show(answer: Any, export: str | None, plot: Path | None, *, as_json: bool) -> None:
    if export is not None:
        for line in FORMATS[export](answer):
            click.echo(line)
    elif plot is not None:
        from host_controller.cli.plot import draw

        draw(answer, plot)
        click.echo(f"drawn: {plot}")
    elif as_json:
        click.echo(json_text(answer))
    else:
        click.echo("\n".join(lines(answer)))


def lines(answer: dict[str, Any]) -> list[str]:
    """The history as text: at most 24 rows of figures, evenly spaced, and the last events."""
    colour = wants_colour()
    samples, entries = answer["samples"], answer["entries"]
    spans = answer.get("spans") or []
    count = f"{len(spans)} {answer['step']}s" if spans else f"{len(samples)} samples"
    title = f"{neutral(answer['name'])}: {count}, {len(entries)} events"
    found = [paint(title, "bold", colour)]
    if answer["damaged"]:
        found.append(paint(f"{number(answer['damaged'])} damaged rows were left out", "red", colour))
    if samples:
        found += table(HEAD, [_row(one) for one in _evenly(samples)], left=(0, 6))
    if spans:
        found += table(SPAN_HEAD, [_span_row(one) for one in _evenly(spans)], left=(0,))
    if entries:
        found += ["", *(entry_line(one, colour) for one in list(entries)[-LAST_EVENTS:])]
    if len(entries) > LAST_EVENTS:
        found.append(f"({len(entries) - LAST_EVENTS} events before these: --json)")
    return found


def _row(sample: dict[str, Any]) -> tuple[str, ...]:
    return (
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(known(sample["at"], 0))),
        size(sample["assigned_bytes"]),
        size(sample["demand_bytes"]),
        number(sample["pressure_percent"] if sample["demand_bytes"] is not None else None),
        size(sample["goal_bytes"]),
        size(sample["charge_bytes"]),
        str(sample["phase"]),
    )


def _span_row(span: dict[str, Any]) -> tuple[str, ...]:
    return (
        time.strftime("%Y-%m-%d %H:%M", time.localtime(known(span["at"], 0))),
        size(span["assigned_bytes"]),
        size(span["demand_bytes"]),
        size(span["demand_largest_bytes"]),
        size(span["need_largest_bytes"]),
        size(span["charge_bytes"]),
        f"{known(span['seconds'], 0):.0f} s",
    )


def _evenly(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sample in force at each of 24 moments, and the last one."""
    samples = [one for one in samples if known(one["at"], None) is not None] or samples[-1:]
    if len(samples) == 1:
        return samples
    first, last = samples[0]["at"], samples[-1]["at"]
    step = (last - first) / (ROWS - 1) or 1.0
    chosen, due = [], first
    for now, after in zip(samples, [*samples[1:], None], strict=True):
        if after is None or after["at"] > due:
            chosen.append(now)
            while due < (now if after is None else after)["at"]:
                due += step
    return chosen
