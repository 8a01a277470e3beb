"""Options that several commands share."""

import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from host_controller.core.model import Trust
from host_controller.errors import DynmemError, InputError
from host_controller.units import format_size, parse_duration, parse_size, with_unit

F = TypeVar("F", bound=Callable[..., Any])


def vm_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """For shell completion: the VMs that run; none when nobody can be asked."""
    from host_controller.api.client import Client

    try:
        names = [str(one["name"]) for one in Client().get("vms")]
        return [one for one in names if one.startswith(incomplete) and one.isprintable()]
    except DynmemError:
        return []


as_json: Final = click.option(
    "--json", "as_json", is_flag=True, help="The controller's answer as it is; GET /v1/schema describes it."
)
all_as_json: Final = click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
at_socket: Final = click.option(
    "--socket", metavar="PATH", help="The controller's socket, if not /run/dynmem/control.sock."
)

config_file: Final = click.option(
    "--config", type=click.Path(path_type=Path), help="Instead of /etc/dynmem/dynmem.toml."
)
connect: Final = click.option(
    "--connect", metavar="URI", help="Which libvirt, if not the one of the configuration."
)
dry_run: Final = click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")


def domain_names(context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """For shell completion: every domain, prepared or not; none when libvirt cannot be asked."""
    from host_controller.config import load
    from host_controller.hypervisor.definitions import Definitions

    try:
        with Definitions(context.params.get("connect") or load().libvirt.uri) as definitions:
            names = definitions.names()
            return [one for one in names if one.startswith(incomplete) and one.isprintable()]
    except DynmemError:
        return []


trust_option: Final = click.option(
    "--trust",
    type=click.Choice([one.value for one in Trust]),
    help="none: charged with all of its RAM always, so nothing that its guest says frees memory for others.",
)


class Seconds(click.FloatRange):
    """Seconds within bounds, also written as `90s` or `2min`. click takes `nan` for a number that no bound
    excludes.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or a refusal."""
        with suppress(ValueError):
            value = parse_duration(str(value))
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return found


def interval_option(least: float, default: float, help_text: str) -> Callable[[F], F]:
    """--interval of a view that is drawn anew again and again: seconds, 60 at most."""
    return click.option(
        "--interval",
        type=Seconds(least, 60),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=help_text,
    )


PICTURES: Final = ("png", "pdf", "svg")


def picture_format(path: Path) -> str | None:
    """Which of them a file's name says; without a suffix it is a PNG. None: the name says another one."""
    suffix = path.suffix[1:].lower() or PICTURES[0]
    return suffix if suffix in PICTURES else None


class _Picture(click.Path):
    """A file for a picture. One that cannot be written is refused before there is anything to be drawn."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or a refusal."""
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        if picture_format(path) is None:
            names = ", ".join(f".{one}" for one in PICTURES)
            self.fail(f"{value!r} says no format that a picture can have: {names}", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no directory {str(path.parent)!r}", param, ctx)
        return path


def plot_option(help_text: str, *names: str) -> Callable[[F], F]:
    """--plot, and other names of it; what it draws is said in help_text, without a full stop."""
    told = f"{help_text}: PNG, PDF or SVG, by its name."
    return click.option(
        "--plot", *names, "plot", type=_Picture(path_type=Path), metavar="FILE.png", help=told
    )


def refuse_two_forms(**wanted: object) -> None:
    """An answer has one form; by option, what was asked for.

    Raises:
        InputError: more than one is asked for.
    """
    named = [f"--{name}" for name, value in wanted.items() if value]
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)} cannot be had at once", hint="say it once for each")


def needs_screen(instead: str) -> None:
    """What is shown is drawn anew again and again; instead: the command for where that cannot be.

    Raises:
        InputError: there is no terminal, or one on which nothing can be drawn anew.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError("top needs a terminal", hint=f"{instead} is for pipes")
    if (term := os.environ.get("TERM", "")).lower() in ("dumb", "unknown"):
        raise InputError(f"top cannot draw on a terminal that is called {term}", hint=instead)


def size(name: str, help_text: str) -> Callable[[F], F]:
    """An option whose value is a size as people write it, given to the command in bytes."""
    return click.option(name, metavar="SIZE", callback=_bytes, help=help_text)


def _bytes(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return typed_bytes(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def typed_bytes(value: str) -> int:
    """A size as somebody has typed it, bytes.

    Raises:
        ValueError: with a sentence: it is none, is nothing, or lacks its unit.
    """
    found = parse_size(value)
    if not found:
        raise ValueError(f"{value} is no size: it must be more than nothing")
    if meant := with_unit(value):
        raise ValueError(
            f"{value} is a size of {format_size(found)}, since a number alone counts bytes: "
            f"did you mean {meant}?"
        )
    return found
