"""`dynmem status`: the whole host at a glance."""

from typing import Any, Final

import click

from host_controller.api.answer import known
from host_controller.api.client import Client, understood
from host_controller.cli.options import as_json, at_socket
from host_controller.cli.text import duration, json_text, number, paint, size, table, wants_colour
from host_controller.neutral import UNKNOWN, by_name, neutral, neutral_lines

HEAD: Final = (
    "VM", "STATE", "MEMORY", "ASSIGNED", "DEMAND", "PRESS", "GOAL", "MIN", "STARTUP", "MAX", "WEIGHT",
    "LIMITS", "CHARGE", "AGENT", "LAST DECISION",
)  # fmt: skip
NOBODY: Final = "no managed VM is running; see dynmem enable"
LEFT: Final = (0, 1, 2, 11, 13, 14)
COLOURS: Final = {"warning": "red", "low": "yellow", "unknown": "dim"}


@click.command()
@as_json
@at_socket
def status(*, as_json: bool, socket: str | None) -> None:
    """Show the host and every managed VM that runs.

    MEMORY is ok, low (less than demand and buffer), warning (less than demand), or unknown (its guest was not
    heard yet). PRESS is demand in percent of what the guest can use. GOAL is what it should have now, CHARGE
    the most that it can come to hold. LIMITS says where its limits stand, AGENT who tells of its memory.
    """
    answer = Client(socket).get("status")
    if as_json:
        click.echo(json_text(answer))
        return
    with understood(answer, "host", "StatusView"):
        host = answer["host"]
        nobody = "no managed VM is known yet" if host.get("untold") else NOBODY
        shown = (*host_lines(host), "", *(vm_lines(answer["vms"]) or [nobody]))
    click.echo("\n".join(shown))


def host_lines(host: dict[str, Any]) -> list[str]:
    """The host in a few lines; what is wrong comes last, where it is seen."""
    colour = wants_colour()
    up = duration(host["uptime_seconds"])
    lines = [
        f"dynmem {neutral(host['version'])} on {neutral(host['connection'])}, up {up}",
        f"capacity {size(host['capacity_bytes'])} ({_whence(host)})"
        f" · charged {size(host['charged_bytes'])}"
        f" · headroom {size(host['headroom_bytes'])}"
        f" · kept ready {size(host['ready_bytes'])}"
        + (f" · reserved {size(host['reserved_bytes'])}" if host["reserved_bytes"] else "")
        + (f" · unmanaged VMs {size(host['unmanaged_bytes'])}" if host["unmanaged_bytes"] else "")
        + (f" · other QEMUs {size(host['foreign_bytes'])}" if host.get("foreign_bytes") else ""),
    ]
    lines += [
        f"huge pages of {size(one['page_bytes'])}: {size(one['total_bytes'])}, {size(one['free_bytes'])} free"
        f" · VMs {size(one['vms_bytes'])}"
        + (f" · reserved {size(one['reserved_bytes'])}" if one["reserved_bytes"] else "")
        for one in host.get("pools", ())
    ]
    return lines + [paint(text, name, colour) for name, text in _troubles(host)]


def _whence(host: dict[str, Any]) -> str:
    """How the capacity comes about. Controllers before this one do not say what bounds it."""
    ordinary, everything = host.get("ordinary_bytes"), host["physical_bytes"]
    of = f"of {size(everything)}"
    if ordinary is not None and ordinary != everything:
        of = f"of {size(ordinary)} outside of huge pages"
    bound = neutral(host.get("capacity_bound", ""))
    kept = f"{of}, {size(host['reserve_bytes'])} kept for the host"
    return f"{kept}; bounded by {bound}" if bound else kept


def _troubles(host: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    if host["connected"] is False:
        found.append(("red", f"the hypervisor cannot be reached: {neutral(host['connection'])}"))
    if untold := host.get("untold"):
        found.append(("yellow", f"{neutral(untold)}: until then no VM is admitted, and none grows"))
    if overdraft := host["overdraft"]:
        found.append(
            (
                "red",
                f"overdraft of {size(overdraft['bytes_now'])} (at most {size(overdraft['bytes_peak'])}): "
                f"{neutral(overdraft['cause'])}",
            )
        )
    if host["emergency"]:
        found.append(("red", f"emergency: {host['emergency']}"))
    if host["vm_swap_bytes"]:
        available = host["available_bytes"] or 0
        colour = "yellow" if available > host.get("spare_bytes", available) else "red"
        found.append((colour, f"{size(host['vm_swap_bytes'])} of VMs lie in the host's swap"))
    if host.get("unread"):
        why = neutral(next(iter(host["unread"].values())))
        found.append(("red", f"of {len(host['unread'])} VMs it is not known what they hold: {why}"))
    if host["waiting_bytes"]:
        found.append(("yellow", f"{size(host['waiting_bytes'])} are granted and not free yet"))
    if host["paused"]:
        found.append(("yellow", "paused: no VM is managed until dynmem resume --all"))
    if host["dry_run"]:
        found.append(("yellow", "dry run: decisions are shown and not carried out"))
    if host["configuration_error"]:
        found.append(("red", f"the last reload was refused: {neutral_lines(host['configuration_error'])}"))
    if problem := host.get("history_problem"):
        found.append(("yellow", f"the history is not written: {neutral(problem)}"))
    if host["lateness_seconds"] > 0.5:
        found.append(("yellow", f"the controller is up to {duration(host['lateness_seconds'])} late"))
    if host["errors"]:
        counts = ", ".join(f"{count} × {kind}" for kind, count in host["errors"].items())
        found.append(("yellow", f"errors since the start, see the log: {counts}"))
    return found


def vm_lines(vms: list[dict[str, Any]]) -> list[str]:
    """The table of VMs; nothing where there is none."""
    if not vms:
        return []
    vms = sorted(vms, key=lambda vm: by_name(str(vm["name"])))
    rows = [vm_row(vm) for vm in vms]
    return table(HEAD, rows, LEFT, [COLOURS.get(str(vm["status"])) for vm in vms])


def vm_row(vm: dict[str, Any]) -> tuple[str, ...]:
    """One VM's cells."""
    limits = vm["limits"]
    return (
        neutral(vm["name"]),
        state_of(vm),
        str(vm["status"]),
        size(vm["assigned_bytes"]),
        size(vm["demand_bytes"]),
        number(vm["pressure_percent"]),
        size(vm["goal_bytes"]),
        size(limits["minimum_bytes"]),
        size(limits["startup_bytes"]),
        size(limits["maximum_bytes"]),
        str(limits["weight"]),
        neutral(vm.get("source", UNKNOWN)),
        size(vm["charge_bytes"]),
        agent_of(vm),
        decision_of(vm),
    )


def state_of(vm: dict[str, Any]) -> str:
    """The one word that matters most."""
    if vm["standstill"]:
        return "stands still"
    if vm["state"] != "running":
        return neutral(vm["state"])
    if vm["paused"]:
        return "not managed"
    if known(vm["uncooperative_seconds"], None) is not None:
        return "uncooperative"
    return neutral(vm["job"] or vm["phase"])


def agent_of(vm: dict[str, Any]) -> str:
    """Who speaks for the guest."""
    if vm["agent"]:
        return neutral(vm["agent"]["version"]) or "yes"
    if known(vm["report_age_seconds"], None) is None:
        return "none"
    # Controllers before this one do not say who it is.
    return "guest agent" if vm.get("witness") == "guest agent" else "statistics"


def decision_of(vm: dict[str, Any]) -> str:
    """The last decision in words."""
    decision = vm["decision"]
    if not decision:
        return "-"
    held = f" (held back: {decision['held_back']})" if decision["held_back"] else ""
    return neutral(f"{decision['action']}: {decision['reason']}{held}")
