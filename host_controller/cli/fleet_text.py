"""What `dynmem fleet` says to people and to programs."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from host_controller.cli.text import paint, size, table, wants_colour
from host_controller.fleet.core.drain import Drain
from host_controller.fleet.core.model import Resource
from host_controller.fleet.core.publication import told_elsewhere
from host_controller.fleet.core.why import Obstacle
from host_controller.fleet.pacemaker.needs import Need
from host_controller.fleet.placement.publisher import Outcome
from host_controller.fleet.progress import Progress
from host_controller.fleet.status import status_of
from host_controller.fleet.view import View
from host_controller.neutral import neutral
from host_controller.units import MIB

HOSTS: Final = ("HOST", "CAPACITY", "NEED", "LOAD", "BOOKED", "STARTS GET", "PUBLISHED", "VMS", "STATE")
VMS: Final = ("VM", "HOST", "NEED", "CHARGE", "BOOKED", "STATE")


def status_plain(view: View, wall: float) -> dict[str, Any]:
    """For programs. `wall`: seconds since 1970."""
    return status_of(view.cell, view.silent, (*view.cib.notes, *told_elsewhere(view.cell)), wall)


def status_lines(plain: Mapping[str, Any]) -> list[str]:
    """For people, from what programs get."""
    colour = wants_colour()
    hosts, vms = plain["hosts"], plain["vms"]
    colours = [None if one["state"] == "ok" else "yellow" for one in hosts]
    lines = table(HOSTS, [host_cells(one) for one in hosts], (0, 8), colours)
    lines += ["", *table(VMS, [vm_cells(one) for one in vms], (0, 1, 5))]
    return lines + [paint(f"note: {neutral(note)}", "yellow", colour) for note in plain["notes"]]


def host_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """A host's row, by `HOSTS`."""
    return (
        neutral(one["name"]),
        size(one["capacity_bytes"]),
        size(one["need_bytes"]),
        "-" if one["load"] is None else f"{one['load']:.0%}",
        _mib(one["booked_mib"]),
        size(one["admits_bytes"]),
        _mib(one["published_mib"]),
        str(one["vms"]),
        neutral(one["state"]),
    )


def vm_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """A VM's row, by `VMS`."""
    return (
        neutral(one["name"]),
        neutral(one["host"] or "-"),
        size(one["need_bytes"]),
        size(one["charge_bytes"]),
        _mib(one["booked_mib"]),
        neutral(one["state"]),
    )


def why_lines(resource: Resource, size_mib: int, found: Sequence[Obstacle]) -> list[str]:
    """Each host, and what it lacks."""
    where = f"is on {neutral(resource.node)}" if resource.node else "is stopped"
    lines = [f"{neutral(resource.name)} {where}; a host needs {_mib(size_mib)} for it"]
    for one in found:
        if one.takes:
            lines.append(f"  {neutral(one.host)}: takes it, {_mib(one.free_mib)} are free for starts")
            continue
        reasons = list(one.reasons)
        if one.shortfall_mib:
            reasons.insert(
                0, f"{_mib(one.shortfall_mib)} are missing, {_mib(one.free_mib)} are free for starts"
            )
        lines.append(f"  {neutral(one.host)}: {neutral('; '.join(reasons))}")
        if one.holders:
            held = ", ".join(f"{neutral(vm.name)} {_mib(vm.size_mib)}" for vm in one.holders)
            lines.append(f"    cannot do without: {held}")
    return lines


def drain_lines(host: str, found: Drain, *, done: bool) -> list[str]:
    """The moves, or why there are none."""
    if not found.refusals:
        what = "is empty" if done else "can be emptied"
        moves = [f"  {neutral(one.vm)} → {neutral(one.destination)}" for one in found.moves]
        return [f"{neutral(host)} {what}", *moves]
    lines = [f"{neutral(host)} is not drained, and nothing was begun:"]
    for refusal in found.refusals:
        lines.append(f"  {neutral(refusal.vm)} ({_mib(refusal.size_mib)}): {neutral(refusal.reason)}")
        for one in refusal.obstacles:
            missing = f"{_mib(one.shortfall_mib)} missing" if one.shortfall_mib else ""
            text = "; ".join((*([missing] if missing else []), *one.reasons)) or "has room"
            lines.append(f"    {neutral(one.host)}: {neutral(text)}")
    return lines


def progress_line(progress: Progress) -> str:
    """How far it is."""
    left = ", ".join(neutral(one) for one in progress.left) or "none"
    return f"{len(progress.moved)} of {len(progress.moved) + len(progress.left)} moved; still there: {left}"


def need_lines(needs: Sequence[Need], *, check: bool) -> list[str]:
    """What is missing or was set."""
    if not needs:
        return ["all that Pacemaker needs is set"]
    lines = []
    for one in needs:
        state = "by hand " if one.by_hand else "missing " if check else "set     "
        lines.append(f"{state}{neutral(one.what)}: {neutral(one.found)}, wanted {one.wanted}")
        lines.append(f"        protects from {one.protects}")
    return lines


def outcome_lines(done: Sequence[Outcome], silent: Mapping[str, str]) -> list[str]:
    """What Placement was told."""
    lines = []
    for one in done:
        text = one.problem or ("as it was" if one.ratio is None else f"ratio {one.ratio:.4f}")
        quiet = f"; silent: {silent[one.host]}" if one.host in silent else ""
        lines.append(f"{neutral(one.host)}: {neutral(text + quiet)}")
    return lines


def _mib(size_mib: int | None) -> str:
    return size(None if size_mib is None else size_mib * MIB)
