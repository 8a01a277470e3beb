"""`dynmem simulate`: what would happen on a host, without one."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from host_controller.cli.options import all_as_json, plot_option, size, typed_bytes
from host_controller.cli.text import json_text, ljust
from host_controller.errors import InputError
from host_controller.neutral import neutral
from host_controller.units import format_size

MOST_DIGITS: Final = 18

if TYPE_CHECKING:
    from host_controller.simulator.trial import Result
    from host_controller.simulator.what_if import WhatIf


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--law", metavar="NAME", help="Another law, of FILE: static, mom, proxmox, qmemman, …")
@all_as_json
@plot_option("Draw it, from FILE", "--png")
@click.option("--replay", type=click.Path(path_type=Path), help="A recording of `dynmem run --record`.")
@click.option(
    "--history",
    "histories",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A history file or an export (jsonl) of any host: its weeks, played again.",
)
@size("--capacity", "Instead of the file's or the recording's.")
@click.option(
    "--with",
    "changes",
    multiple=True,
    metavar="VM:KEY=VALUE",
    help="What if, in a replay or a history: web:weight=300",
)
def simulate(
    file: Path | None,
    law: str | None,
    *,
    as_json: bool,
    plot: Path | None,
    replay: Path | None,
    histories: tuple[Path, ...],
    capacity: int | None,
    changes: tuple[str, ...],
) -> None:
    """Simulate the host that FILE describes, or play a recording or a history again with other settings.

    FILE is TOML. Demand is what programs hold; its kinds are steady, ramp, burst, diurnal, leak, sine, saw,
    square and trace. A wrong or missing key is named with what is allowed.

    \b
    [host]
    capacity = "16GiB"
    duration = "2h"
    [[vm]]
    name = "web"
    count = 3
    startup = "1GiB"
    minimum = "512MiB"
    maximum = "8GiB"
    demand = { kind = "diurnal", low = "400MiB", high = "3GiB", period = "1h" }

    Exit codes: 0 done, 1 a rule was broken (report it, please), 2 the input cannot be used.
    """  # noqa: D301 # the backspace itself is click's sign
    if plot is not None and file is None:
        raise InputError("--plot draws what FILE gives", hint="dynmem simulate FILE --plot FILE.png")
    if sum((file is not None, replay is not None, bool(histories))) != 1:
        raise InputError("one of FILE, --replay RECORDING and --history FILE is needed")
    if law is not None and file is None:
        raise InputError("--law is for FILE", hint="a replay and a history go by dynmem's own")
    if histories:
        from host_controller.cli.simulate_history import play_history

        play_history(histories, capacity, _parsed(changes), as_json=as_json)
        return
    if replay is not None:
        from host_controller.simulator.what_if import replay_with

        _tell_what_if(replay_with(replay, capacity, _parsed(changes)), as_json=as_json)
        return
    if changes:
        raise InputError("--with goes with --replay and --history", hint="edit FILE instead")
    assert file is not None
    from dataclasses import replace

    from host_controller.simulator.laws import LAWS
    from host_controller.simulator.trial import OURS, simulate
    from host_controller.simulator.trial_file import read_trial

    law = law or OURS
    if law != OURS and law not in LAWS:
        raise InputError(f"--law {law!r} is not known", hint=f"there are {', '.join([OURS, *LAWS])}")
    trial = read_trial(file)
    if capacity is not None:
        trial = replace(trial, capacity_bytes=capacity)
    result = simulate(trial, law)
    click.echo(json_text(result.as_json()) if as_json else _summary(result))
    if plot is not None:  # last: a picture that cannot be written costs no result
        from host_controller.cli.simulate_plot import draw

        draw(result, plot)
    if result.violations:
        raise SystemExit(1)


def _summary(result: "Result") -> str:
    lines = [
        f"{result.law}: {len(result.vms)} VMs, {result.seconds:.0f} s, {format_size(result.capacity_bytes)}",
        f"{'VM':16}{'assigned':>12}{'largest':>12}{'demand':>12}{'largest':>12}"
        f"{'unmet MiB·s':>14}{'commands':>10}",
    ]
    for vm in result.vms:
        sizes = (
            vm.mean_assigned_bytes,
            vm.largest_assigned_bytes,
            vm.mean_demand_bytes,
            vm.largest_demand_bytes,
        )
        told = "".join(f"{format_size(int(size)):>12}" for size in sizes)
        lines.append(f"{ljust(neutral(vm.name), 16)}{told}{vm.unmet_mib_seconds:14.0f}{vm.commands:10d}")
    lines.append(f"footprint {result.footprint:.2f}: assigned ÷ the larger of demand and minimum")
    if result.overcommitted_mib_seconds >= 1.0:
        lines.append(
            f"host overcommitted: {result.overcommitted_mib_seconds:.0f} MiB·s, which it does not have"
        )
    if result.overdraft_seconds:
        lines.append(f"overdraft for {result.overdraft_seconds:.0f} s")
    repaired = {vm.name: vm.repaired_values for vm in result.vms if vm.repaired_values}
    lines += [
        f"{neutral(name)}: {count} values of its trace were repaired" for name, count in repaired.items()
    ]
    lines += [f"BROKEN RULE {neutral(violation)}" for violation in result.violations]
    return "\n".join(lines)


def _tell_what_if(found: "WhatIf", *, as_json: bool) -> None:
    if as_json:
        click.echo(json_text(found.as_json()))
        return
    click.echo(f"{found.decisions} decisions in {found.seconds:.0f} s")
    if found.damaged:
        click.echo(f"{found.damaged} damaged lines were left out: what followed them may be another thing")
    for name in sorted(found.then | found.now):
        click.echo(f"{name:14}{found.then[name]:8} then{found.now[name]:8} now")
    first = found.first_difference
    if first is None:
        click.echo("every balloon target is the same")
    else:
        click.echo(
            f"the first other target comes after {first:.1f} s; from there on guests would have differed"
        )
    for name, goal in sorted(found.goals.items()):
        click.echo(f"{ljust(neutral(name), 24)}{format_size(int(goal)):>12} on average")


def _parsed(changes: tuple[str, ...]) -> dict[str, dict[str, int]]:
    from host_controller.simulator.what_if import LIMIT_FIELDS

    found: dict[str, dict[str, int]] = {}
    for change in changes:
        name, colon, rest = change.rpartition(":")
        key, equals, value = rest.partition("=")
        if not colon or not equals or key not in LIMIT_FIELDS:
            raise InputError(f"--with {change!r}", hint=f"VM:KEY=VALUE, KEY one of {', '.join(LIMIT_FIELDS)}")
        if key in ("startup", "minimum", "maximum"):
            try:
                number = typed_bytes(value)
            except ValueError as error:
                raise InputError(f"--with {change!r}: {error}") from None
        elif value.isdecimal() and len(value) < MOST_DIGITS:
            number = int(value)
        else:
            raise InputError(f"--with {change!r}: {value!r} is no whole number")
        found.setdefault(name, {})[key] = number
    return found
