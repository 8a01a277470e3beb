"""`dynmem forecast` and `dynmem savings`: when this host is full, and what it has saved."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from host_controller.cli.advise import history_files, read_pasts, running_capacity, since_option
from host_controller.cli.options import all_as_json, at_socket, size
from host_controller.cli.text import json_text
from host_controller.errors import InputError
from host_controller.neutral import neutral
from host_controller.units import format_size, parse_duration

if TYPE_CHECKING:
    from host_controller.advice.forecast import Forecast, Range
    from host_controller.advice.savings import Savings


@click.command()
@since_option
@size("--shape", "How many more VMs of this maximum fit?")
@click.option("--without", multiple=True, metavar="VM", help="As if it were not there.")
@size("--add", "As if the host had so much more.")
@size("--capacity", "Of the host; the running controller's by default.")
@all_as_json
@history_files
@at_socket
def forecast(
    since: str,
    shape: int | None,
    without: tuple[str, ...],
    add: int | None,
    capacity: int | None,
    *,
    as_json: bool,
    files: tuple[Path, ...],
    socket: str | None,
) -> None:
    """Say when the sum of needs reaches the host's capacity, and what would change that.

    Ranges are meant to hold 80 % of the hours. They come from the same hours of the weeks that are known
    and the trend between them, and from how wrong the same rule was on those weeks.
    """
    from host_controller.advice.forecast import forecast as make
    from host_controller.advice.forecast import hourly_needs, room_for

    pasts = read_pasts(files, since)
    unknown = [one for one in without if not any(one in (past.name, past.uuid) for past in pasts)]
    if unknown:
        raise InputError(
            f"nothing is known of {', '.join(unknown)}", hint="--without names VMs of this history"
        )
    pasts = [one for one in pasts if one.name not in without and one.uuid not in without]
    if not pasts:
        raise InputError("no VM is left", hint="fewer --without")
    found = make(*hourly_needs(pasts))
    whole = capacity or running_capacity(socket)
    whole = None if whole is None else whole + (add or 0)
    room = None if shape is None or whole is None else room_for(shape, found, pasts, whole)
    if as_json:
        told: dict[str, Any] = _as_json(found, whole)
        if room is not None:
            told["fit"] = {"by_demand": room.by_demand, "safely": room.safely}
        click.echo(json_text(told))
        return
    click.echo("\n".join(_lines(found, whole)))
    if shape is not None and room is None:
        click.echo("how many fit is not known without a capacity: --capacity")
    elif shape is not None and room is not None:
        click.echo(f"VMs of {format_size(shape)}: {room.by_demand} more by demand, {room.safely} more safely")


@click.command()
@click.option("--since", default="730d", show_default=True, metavar="DURATION", help="How far to look back.")
@click.option("--price", type=float, help="Of a GiB for an hour, in money; by default `[savings] price`.")
@all_as_json
@history_files
def savings(since: str, price: float | None, *, as_json: bool, files: tuple[Path, ...]) -> None:
    """Say what dynamic memory has saved against static sizes: each VM with its maximum."""
    from host_controller.advice.savings import savings as add_up
    from host_controller.advice.sources import recorded
    from host_controller.config import load

    price = load().savings.price if price is None else price
    if not 0 <= price < 1e6:
        raise InputError(f"--price {price}", hint="0 or more, for a GiB and an hour")
    try:
        begin = time.time() - parse_duration(since)
    except ValueError as error:
        raise InputError(f"--since: {error}") from None
    found = add_up(recorded(list(files) or [Path(load().paths.history)], begin, by_hour=True))
    if found is None:
        raise InputError("no VM's cost and limits are both known", hint="they are after an hour")
    click.echo(json_text(found.as_json(price)) if as_json else "\n".join(_saved(found, price)))


def _lines(found: "Forecast", capacity: int | None) -> list[str]:
    told = [
        f"from {found.weeks_seen} week{'s' if found.weeks_seen > 1 else ''}; "
        f"trend {100 * found.trend_per_week:+.1f} % a week, {100 * found.trust:.0f} % of which is believed",
        f"peak of the next week: {_range(found.peak(1))}; of four weeks: {_range(found.peak())}",
    ]
    if found.weeks_seen == 1:
        told.append("one week shows no trend, and the range is a guess: ask again in a week")
    if capacity is None:
        return [*told, "when that is too much is not known without a capacity: --capacity"]
    times = found.full_at(capacity)
    if times[0] is None:  # then the others are none, either
        return [*told, f"{format_size(capacity)} are not reached within 26 weeks"]
    earliest, likely, latest = map(_date, times)
    told.append(
        f"{format_size(capacity)} are reached at the earliest {earliest}, likely {likely}, at the "
        f"latest {latest}"
    )
    return told


def _range(one: "Range") -> str:
    return f"{format_size(int(one.low))} to {format_size(int(one.high))}"


def _date(at: float | None) -> str:
    return "not within 26 weeks" if at is None else time.strftime("%Y-%m-%d", time.localtime(at))


def _as_json(found: "Forecast", capacity: int | None) -> dict[str, Any]:
    ranges = {"next_week": found.peak(1), "four_weeks": found.peak()}
    told: dict[str, Any] = {
        "weeks_seen": found.weeks_seen,
        "trend_per_week": found.trend_per_week,
        "peak_bytes": {
            name: {"low": round(one.low), "middle": round(one.middle), "high": round(one.high)}
            for name, one in ranges.items()
        },
        "capacity_bytes": capacity,
    }
    if capacity is not None:
        told["full_at"] = dict(zip(("earliest", "likely", "latest"), found.full_at(capacity), strict=True))
    return told


def _saved(found: "Savings", price: float) -> list[str]:
    since = time.strftime("%Y-%m-%d", time.localtime(found.since))
    peak = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.peak_at))
    saved = found.peak_static_bytes - found.peak_dynamic_bytes
    told = [
        f"since {since}: {found.saved_gib_hours:.0f} GiB·h of {found.static_gib_hours:.0f} that "
        "static sizes take",
        f"at the peak ({peak}): {format_size(saved)} of {format_size(found.peak_static_bytes)}",
    ]
    if price:
        told.append(f"at {price:g} for a GiB and an hour: {found.saved_gib_hours * price:.2f}")
    if found.left_out:
        names = ", ".join(neutral(one) for one in found.left_out)
        told.append(f"left out, since their limits are not known: {names}")
    return told
