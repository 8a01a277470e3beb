"""`dynmem explain VM`: where the memory went, and why."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from host_controller.api.answer import known
from host_controller.api.client import Client, understood
from host_controller.cli.options import as_json, at_socket, plot_option, refuse_two_forms, vm_names
from host_controller.cli.status import agent_of, decision_of, state_of
from host_controller.cli.text import duration, json_text, number, paint, size, wants_colour
from host_controller.errors import InputError
from host_controller.neutral import neutral, shell_word
from host_controller.units import format_size, parse_duration

ANSWER_SECONDS: Final = 1.0
"""For the guest to say who holds its memory; then what it said before is shown."""
LOOK_AGAIN_SECONDS: Final = 0.05


@click.command()
@click.argument("vm", shell_complete=vm_names)
@as_json
@plot_option("Draw the balance of all VMs")
@click.option(
    "--at", "when", metavar="TIME", help="As it was: 2h (ago), or '2026-11-28 14:05'. A week is kept."
)
@at_socket
def explain(vm: str, *, as_json: bool, plot: Path | None, when: str | None, socket: str | None) -> None:
    """Say why VM has the memory that it has, and why not more or less.

    --plot draws the balance: who asks for what, by tier, what each gets, and where the level stands at which
    memory is shared out. --at shows the balance of a past moment, as a table or as a picture.
    """
    refuse_two_forms(json=as_json, plot=plot)
    client = Client(socket)
    if when is not None:
        _past(client, vm, moment_of(when, time.time()), as_json=as_json, plot=plot)
        return
    answer = client.get("vms", vm, "explain")
    end = time.monotonic() + ANSWER_SECONDS
    while plot is None and _pending(answer) and time.monotonic() < end:
        time.sleep(LOOK_AGAIN_SECONDS)
        answer = client.get("vms", vm, "explain")
    if plot is not None:
        from host_controller.cli.plot_balance import draw_balance, rows_of

        status, now = client.get("status"), client.get("balance")
        with understood(status, "host", "StatusView"):
            budget = format_size(int(known(status["host"]["budget_bytes"], 0)))
            rows = rows_of(status)
        with understood(now, "history", "MomentView"):
            rows = rows_of(now) or rows  # an older controller tells the past only
        with understood(answer, "explain", "ExplainView"):
            name = answer["vm"]["name"]
        draw_balance(rows, name, f"{budget} to lay out", plot)
        click.echo(f"drawn: {plot}")
        return
    if as_json:
        click.echo(json_text(answer))
        return
    with understood(answer, "explain", "ExplainView"):
        shown = lines(answer)
    click.echo("\n".join(shown))


def _pending(answer: Any) -> bool:
    with understood(answer, "explain", "ExplainView"):
        return bool((answer.get("holders") or {}).get("pending"))


def moment_of(text: str, now: float) -> float:
    """A time that was named, seconds since 1970: so long ago, or a date and a time of this host's zone.

    Raises:
        InputError: it is neither, or lies ahead.
    """
    try:
        at = now - parse_duration(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            raise InputError(f"--at {text}: no time", hint="2h, or '2026-11-28 14:05'") from None
    if not 0 <= at <= now:
        raise InputError(
            f"--at {text}: it has not been yet, or is too long ago", hint="a time of the last week"
        )
    return at


def _past(client: Client, vm: str, at: float, *, as_json: bool, plot: Path | None) -> None:
    from host_controller.cli.plot_balance import draw_balance, rows_of, table_of

    answer = client.get("balance", at=int(at))
    with understood(answer, "history", "MomentView"):
        mine = [one for one in answer["vms"] if vm in (one["name"], one["uuid"])]
        rows = rows_of(answer)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    if not mine:
        raise InputError(
            f"nothing is known of it at {when}", vm=vm, hint=f"dynmem history --since 7d {shell_word(vm)}"
        )
    if as_json:
        click.echo(json_text(answer))
        return
    name = mine[0]["name"]
    laid_out = f"{when}, {format_size(sum(one.goal for one in rows))} laid out"
    if plot is not None:
        draw_balance(rows, name, laid_out, plot)
        click.echo(f"drawn: {plot}")
    else:
        click.echo("\n".join([laid_out, *table_of(rows, name)]))


def _limits(vm: dict[str, Any]) -> str:
    """Each with where it is from, unless that is its own metadata, as of most VMs."""
    limits, whence = vm["limits"], vm.get("limit_sources", {})
    told = {
        "minimum": size(limits["minimum_bytes"]),
        "startup": size(limits["startup_bytes"]),
        "maximum": size(limits["maximum_bytes"]),
        "buffer": f"{limits['buffer_percent']} %",
        "weight": str(limits["weight"]),
    }
    sources = {name: neutral(whence.get(name, "metadata")) for name in told}
    return ", ".join(
        f"{name} {text}" + ("" if sources[name] == "metadata" else f" ({sources[name]})")
        for name, text in told.items()
    )


def lines(answer: dict[str, Any]) -> list[str]:
    """The explanation as text."""
    colour = wants_colour()
    vm = answer["vm"]
    decision = vm["decision"]
    found = [
        paint(f"{neutral(vm['name'])}: {headline(vm)}", "bold", colour),
        f"  state     {state_of(vm)}; memory is {neutral(vm['status'])}; agent: {agent_of(vm)}{_heard(vm)}",
        f"  limits    {_limits(vm)}",
        f"  hardware  {size(vm['ram_bytes'])} of RAM, {_beside(vm)}growth by {neutral(vm['growth'])}"
        + (f", {size(vm['offline_bytes'])} of it offline" if vm["offline_bytes"] else ""),
    ]
    if decision:
        at = known(decision["at"], None)
        ago = duration(at if at is None else max(0.0, time.time() - at))
        found.append(f"  decision  {decision_of(vm)} ({ago} ago)")
    if vm["operation"]:
        found.append(f"  under way {neutral(vm['operation'])}")
    if answer["why"]:
        found += ["", "Why", *(f"  {neutral(one)}" for one in answer["why"])]
    found += _parts("Demand: what it works with", answer["demand"], colour, mark=False)
    found += _parts("Balance: what it asks for and gets", answer["balance"], colour, mark=False)
    found += _holders(answer.get("holders"), colour)
    total = f"Charge: what it costs the host, {size(vm['charge_bytes'])}"
    found += _parts(total, answer["charge"], colour, mark=True)
    if vm["ignored"]:
        counts = ", ".join(f"{count} × {neutral(kind)}" for kind, count in vm["ignored"].items())
        found += ["", f"Not believed of what the guest sent: {counts}"]
    return found


def headline(vm: dict[str, Any]) -> str:
    """The VM in one sentence."""
    text = f"has {size(vm['assigned_bytes'])}"
    if vm["demand_bytes"] is None:
        return f"{text}; it has not reported yet"
    text = f"{text}, demands {size(vm['demand_bytes'])} ({number(vm['pressure_percent'])} % pressure)"
    return text if vm["goal_bytes"] is None else f"{text}, should have {size(vm['goal_bytes'])}"


def _beside(vm: dict[str, Any]) -> str:
    if vm["growth"] == "virtio-mem":
        plugged, asked = vm["virtio_mem_bytes"], vm["virtio_mem_requested_bytes"]
        return f"{size(plugged)} of virtio-mem{'' if plugged == asked else f' ({size(asked)} asked for)'}, "
    return f"{vm['dimms']} of {vm['slots']} DIMMs, " if vm["slots"] else ""


def _heard(vm: dict[str, Any]) -> str:
    age = vm["report_age_seconds"]
    return "" if known(age, None) is None else f", heard {duration(age)} ago"


def _holders(answer: dict[str, Any] | None, colour: bool) -> list[str]:
    """Who holds the guest's memory, by the guest's word; an older controller does not ask."""
    if answer is None:
        return []
    top, missing = answer["top"], answer["missing"]
    since, at = known(answer["since"], None), known(answer["at"], None)
    span = "" if since is None or at is None else f" in {duration(max(0.0, at - since))}"
    parts = [
        {
            "name": one["name"],
            "size_bytes": one["size_bytes"],
            "text": "" if one["grown_bytes"] is None else _grown(one) + span,
            "deciding": False,
        }
        for one in top
    ]
    ago = "" if at is None else f", {duration(max(0.0, time.time() - at))} ago"
    found = _parts(f"Held by: the largest of its {neutral(answer['by'])}{ago}", parts, colour, mark=False)
    if missing:
        found += [*([] if found else ["", "Held by"]), f"  {neutral(missing)}"]
    return [line.rstrip() for line in found]


def _grown(one: dict[str, Any]) -> str:
    return f"grew by {'at least ' if one['grown_at_least'] else ''}{size(one['grown_bytes'])}"


def _parts(title: str, parts: list[dict[str, Any]], colour: bool, *, mark: bool) -> list[str]:
    if not parts:
        return []
    names = [neutral(one["name"]) for one in parts]
    width = max(map(len, names))
    sizes = [size(one["size_bytes"]) for one in parts]
    room = max(map(len, sizes))
    found = ["", title]
    for one, name, text in zip(parts, names, sizes, strict=True):
        sign = "*" if mark and one["deciding"] else " "
        line = f"{sign} {name.ljust(width)}  {text.rjust(room)}  {one['text']}"
        found.append(paint(line, "bold" if one["deciding"] else None, colour))
    if mark:
        found.append("  * counts: the largest of the rules, and all that comes on top of it")
    return found
