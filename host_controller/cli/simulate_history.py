"""`dynmem simulate --history`: a host's recorded weeks, played again with other limits or another
capacity.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from host_controller.advice.past import Past, comparable
from host_controller.advice.replay import Outcome, Replay
from host_controller.advice.sources import pasts_in
from host_controller.cli.text import json_text, ljust
from host_controller.core.model import Limits
from host_controller.errors import InputError
from host_controller.neutral import neutral
from host_controller.simulator.what_if import LIMIT_FIELDS
from host_controller.units import format_size


def play_history(
    files: tuple[Path, ...],
    capacity_bytes: int | None,
    changes: Mapping[str, Mapping[str, int]],
    *,
    as_json: bool,
) -> None:
    """Play what is known by the minute, and tell what became of it.

    Raises:
        InputError: nothing is known, or a change cannot be.
    """
    found, others = comparable([one for one in pasts_in(files, 0.0) if one.peak_bytes is not None])
    pasts = [*found, *others]
    known = [one for one in found if one.limits is not None]
    if not known:
        raise InputError("no VM in it has both figures and limits", hint="dynmem history VM --export jsonl")
    unknown = sorted(set(changes) - {one.name for one in known})
    if unknown:
        names = ", ".join(neutral(one.name) for one in known)
        raise InputError(f"no VM {', '.join(unknown)}", hint=f"there are {names}")
    limits = {one.uuid: _changed(one, changes.get(one.name, {})) for one in known}
    outcome = Replay(known, limits, capacity_bytes).play()
    left_out = [one.name for one in pasts if one not in known]
    click.echo(json_text(_as_json(outcome, left_out)) if as_json else _summary(outcome, left_out))


def _changed(past: Past, wanted: Mapping[str, int]) -> Limits:
    assert past.limits is not None
    fields = {LIMIT_FIELDS[key]: value for key, value in wanted.items()}
    limits: Limits = replace(past.limits.limits(), **fields)
    if problems := limits.problems():
        raise InputError("; ".join(problems), vm=past.name)
    return limits


def _summary(outcome: Outcome, left_out: list[str]) -> str:
    peak, mean = format_size(outcome.peak_bytes), format_size(int(outcome.mean_bytes))
    told = [
        f"{len(outcome.vms)} VMs, {outcome.seconds / 86400:.1f} days; "
        f"together {peak} at the peak, {mean} on average",
        f"{'VM':24}{'assigned':>12}{'largest':>12}{'unmet MiB·s':>14}{'short s':>10}",
    ]
    for one in outcome.vms.values():
        mean, largest = format_size(int(one.mean_bytes)), format_size(one.largest_bytes)
        unmet = f"{one.unmet_mib_seconds:14.0f}{one.short_seconds:10.0f}"
        told.append(f"{ljust(neutral(one.name, 23), 24)}{mean:>12}{largest:>12}{unmet}")
    if outcome.overdraft_seconds:
        told.append(f"overdraft for {outcome.overdraft_seconds:.0f} s")
    if left_out:
        names = ", ".join(map(neutral, left_out))
        told.append(f"left out, since their limits are not known or their time is another: {names}")
    return "\n".join(told)


def _as_json(outcome: Outcome, left_out: list[str]) -> dict[str, object]:
    return {
        "seconds": outcome.seconds,
        "peak_bytes": outcome.peak_bytes,
        "mean_bytes": round(outcome.mean_bytes),
        "overdraft_seconds": outcome.overdraft_seconds,
        "commands": outcome.commands,
        "vms": [
            {
                "uuid": uuid,
                "name": one.name,
                "mean_bytes": round(one.mean_bytes),
                "largest_bytes": one.largest_bytes,
                "unmet_mib_seconds": round(one.unmet_mib_seconds, 1),
                "short_seconds": one.short_seconds,
            }
            for uuid, one in outcome.vms.items()
        ],
        "left_out": left_out,
    }
