"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from host_controller.units import MIB, format_size, parse_size, with_unit

F = TypeVar("F", bound=Callable[..., Any])


def vm_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """For shell completion: the VMs that run; none when nobody can be asked."""
    from host_controller.api.client import Client
    from host_controller.errors import DynmemError

    try:
        names = [str(one["name"]) for one in Client().get("vms")]
        return [one for one in names if one.startswith(incomplete) and one.isprintable()]
    except DynmemError:
        return []


as_json: Final = click.option(
    "--json", "as_json", is_flag=True, help="The controller's answer as it is; GET /v1/schema describes it."
)
at_socket: Final = click.option(
    "--socket", metavar="PATH", help="The controller's socket, if not /run/dynmem/control.sock."
)


def size(name: str, help_text: str) -> Callable[[F], F]:
    """An option whose value is a size as people write it, given to the command in bytes."""
    return click.option(name, metavar="SIZE", callback=_bytes, help=help_text)


def _bytes(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        found = parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if found < MIB and (meant := with_unit(value)):
        raise click.BadParameter(
            f"{value} is a size of {format_size(found)}, since a number alone counts bytes: "
            f"did you mean {meant}?"
        )
    return found
