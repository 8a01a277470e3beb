"""`dynmem pause`, `resume`, `reload` and `check-config`: what operators do to the controller."""

from pathlib import Path
from typing import Any

import click

from host_controller.api.client import Client
from host_controller.cli.options import at_socket, vm_names
from host_controller.cli.text import json_text
from host_controller.errors import InputError
from host_controller.neutral import neutral

all_vms = click.option("--all", "everything", is_flag=True, help="All VMs, also those that start later.")


@click.command()
@click.argument("vm", required=False, shell_complete=vm_names)
@all_vms
@at_socket
def pause(vm: str | None, *, everything: bool, socket: str | None) -> None:
    """Stop managing VM: it is still observed and charged, and nothing is done to it.

    This outlives restarts of the VM and of the controller, goes along where the VM is migrated, and is shown
    by every view. Say it again after the host has restarted. --all is of this host alone.
    """
    _hold("pause", vm, everything, socket)


@click.command()
@click.argument("vm", required=False, shell_complete=vm_names)
@all_vms
@at_socket
def resume(vm: str | None, *, everything: bool, socket: str | None) -> None:
    """Manage VM again after `dynmem pause`."""
    _hold("resume", vm, everything, socket)


def _hold(action: str, vm: str | None, everything: bool, socket: str | None) -> None:
    if (vm is None) is not everything:
        raise InputError(f"say which VM to {action}, or --all", hint=f"dynmem {action} VM")
    client = Client(socket)
    answer = client.post(action) if vm is None else client.post("vms", vm, action)
    click.echo(neutral(answer["done"]))


@click.command()
@at_socket
def reload(socket: str | None) -> None:
    """Let the controller read its configuration again: all of it is taken over, or none."""
    click.echo(neutral(Client(socket).post("reload")["done"]))


@click.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--offline", is_flag=True, help="Read the file only; ask nothing of this machine.")
@click.option("--json", "as_json", is_flag=True, help="CheckView of GET /v1/schema.")
def check_config(file: Path | None, *, offline: bool, as_json: bool) -> None:
    """Read FILE, or /etc/dynmem/dynmem.toml, as `dynmem run` would, and name every mistake.

    What `dynmem run` would refuse on this machine is a mistake too: memory that is not there, an address that
    is taken, another controller. A controller that runs with this very file is not in its own way.

    Exit code 0 when it can be used, 2 when not.
    """
    from host_controller.config import DEFAULT_PATH, ConfigError, load
    from host_controller.preflight import problems_of, source

    path = file or DEFAULT_PATH
    try:
        config = load(file)
        problems = [] if offline else problems_of(config, running_from=source(file))
        if problems:
            raise ConfigError(str(path), problems)
    except ConfigError as error:
        if not as_json:
            raise
        click.echo(_checked(path, [one._asdict() for one in error.problems]))
        raise SystemExit(error.exit_code) from None
    if as_json:
        click.echo(_checked(path, []))
        return
    click.echo(f"{path}: " + ("can be used" if path.exists() else "is not there; the defaults are used"))


def _checked(path: Path, problems: list[dict[str, Any]]) -> str:
    return json_text({"file": str(path), "problems": problems})
