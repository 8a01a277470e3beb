"""Limits as commands take and show them; what a first `enable` fills in, and what a running VM can have."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import click

from host_controller.cli.options import size
from host_controller.core.model import BUFFER_RANGE, WEIGHT_RANGE, Limits, Trust
from host_controller.units import format_size

F = TypeVar("F", bound=Callable[..., Any])


def _within(allowed: range) -> click.IntRange:
    return click.IntRange(allowed.start, allowed.stop - 1)


buffer_option: Final = click.option(
    "--buffer",
    type=_within(BUFFER_RANGE),
    metavar="PERCENT",
    help="What it should have free, in percent of its demand.",
)
weight_option: Final = click.option(
    "--weight",
    type=_within(WEIGHT_RANGE),
    metavar="NUMBER",
    help="Its share against the others when memory is short.",
)


def limit_options(function: F) -> F:
    """The five settings."""
    for option in (
        weight_option,
        buffer_option,
        size("--maximum", "It never gets more."),
        size("--minimum", "It never gets less."),
        size("--startup", "What it is given when it starts."),
    ):
        function = option(function)
    return function


def given_limits(limits: Limits, given: dict[str, int | None]) -> Limits:
    """These limits with what was named on the command line in place."""
    fields = {
        "startup": "startup_bytes",
        "minimum": "minimum_bytes",
        "maximum": "maximum_bytes",
        "buffer": "buffer_percent",
        "weight": "weight",
    }
    return replace(limits, **{fields[key]: value for key, value in given.items() if value is not None})


def first_limits(defaults: Limits, given: dict[str, int | None]) -> Limits:
    """The limits of a VM that had none: a named startup draws the defaults of the others along."""
    limits = given_limits(defaults, given)
    if given["minimum"] is None:
        limits = replace(limits, minimum_bytes=min(limits.minimum_bytes, limits.startup_bytes))
    if given["maximum"] is None:
        limits = replace(limits, maximum_bytes=max(limits.maximum_bytes, limits.startup_bytes))
    return limits


def live_limits(now: Limits, wanted: Limits, ceiling_bytes: int) -> tuple[Limits, tuple[str, ...]]:
    """The part of the wanted limits that a running VM can have, and what must wait, in sentences.

    As Hyper-V has it: maximum only up, minimum only down. `ceiling_bytes` is what the running VM has
    room for.
    """
    waits = []
    maximum = now.maximum_bytes
    if wanted.maximum_bytes > now.maximum_bytes:
        maximum = max(maximum, min(wanted.maximum_bytes, ceiling_bytes))
        if maximum < wanted.maximum_bytes:
            waits.append(
                f"maximum {format_size(wanted.maximum_bytes)} waits for the next start: the running VM has "
                f"room for {format_size(maximum)}"
            )
    elif wanted.maximum_bytes < now.maximum_bytes:
        waits.append(
            f"maximum {format_size(wanted.maximum_bytes)} waits for the next start: it can only rise"
        )
    minimum = min(now.minimum_bytes, wanted.minimum_bytes)
    if wanted.minimum_bytes > now.minimum_bytes:
        waits.append(
            f"minimum {format_size(wanted.minimum_bytes)} waits for the next start: it can only fall"
        )
    if wanted.startup_bytes != now.startup_bytes:
        waits.append(f"startup {format_size(wanted.startup_bytes)} waits for the next start")
    limits = replace(
        now,
        minimum_bytes=minimum,
        maximum_bytes=maximum,
        buffer_percent=wanted.buffer_percent,
        weight=wanted.weight,
    )
    return limits, tuple(waits)


def in_words(limits: Limits, trust: Trust) -> str:
    """All five settings, for people."""
    return (
        f"startup {format_size(limits.startup_bytes)}, minimum {format_size(limits.minimum_bytes)}, "
        f"maximum {format_size(limits.maximum_bytes)}, buffer {limits.buffer_percent} %, "
        f"weight {limits.weight}" + (", no trust" if trust is Trust.NONE else "")
    )
