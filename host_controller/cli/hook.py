"""`dynmem hook install|remove`: libvirt asks the controller before it starts a VM."""

import contextlib
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from host_controller.errors import DynmemError, InputError

DIRECTORY: Final = Path("/etc/libvirt/hooks/qemu.d")
"""libvirt 6.5 and later runs what is here, beside its single hook `qemu`."""
NAME: Final = "dynmem"
MARK: Final = "# Installed by `dynmem hook install`."
PROGRAM: Final = Path(__file__).resolve().parent.parent / "hook.py"

INTERPRETER: Final = Path("/usr/bin/python3")
NEEDS: Final = "import http.client, json, tomllib"
"""Of the standard library, by the hook. A host's own Python may be older than ours, and have no tomllib: then
the configuration would be passed over, and with it whom `without_controller` refuses.
"""
LOOK_SECONDS: Final = 30.0

directory = click.option(
    "--directory", type=click.Path(path_type=Path), default=DIRECTORY, help=f"Instead of {DIRECTORY}."
)


def _refuse_if_others_can_write(path: Path) -> None:
    """What libvirtd runs as root, or obeys, may be changed by root alone, and by whoever installs it.

    A link counts with the directory that it lies in, and its target with its own.
    """
    path = path.absolute()
    places = {place for one in (path, path.resolve()) for place in (one, *one.parents)}
    for place in sorted(places):
        with contextlib.suppress(FileNotFoundError):
            try:
                problem = _who_else_can_write(place)
            except (NotADirectoryError, PermissionError) as error:
                raise InputError(f"{place}: {error.strerror}", hint="name another file") from None
            if problem is not None:
                raise InputError(
                    f"{path} would be run by libvirtd as root, and {place} {problem}",
                    hint="install dynmem's package, or use a program that only root can write",
                )


def _who_else_can_write(place: Path) -> str | None:
    known = place.lstat()
    if known.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {known.st_uid}"
    if stat.S_ISLNK(known.st_mode):
        return None
    # In a sticky directory nobody can exchange what is another's.
    shared = stat.S_ISDIR(known.st_mode) and known.st_mode & stat.S_ISVTX
    if known.st_mode & stat.S_IWOTH and not shared:
        return "can be written by everybody"
    if known.st_mode & stat.S_IWGRP and known.st_gid != 0 and not shared:
        return f"can be written by the group {known.st_gid}"
    return None


def _interpreter() -> Path:
    """The system's Python where it can run the hook, else the one that runs us.

    Raises:
        InputError: neither can.
    """
    # Not a link of ours into a virtual environment: that may go before its target does.
    for one in (INTERPRETER, Path(sys.executable).resolve()):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            command = [str(one), "-I", "-S", "-c", NEEDS]
            tried = subprocess.run(command, capture_output=True, timeout=LOOK_SECONDS, check=False)
            if tried.returncode == 0:
                return one
    raise InputError(f"{INTERPRETER} cannot run the hook", hint="install Python 3.11 or newer, all of it")


def _is_ours(file: Path) -> bool | None:
    """Whether we have installed it; None: it is not there.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return MARK in file.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}", hint="run as root, or name a --directory") from None


@click.group()
def hook() -> None:
    """Let libvirt ask the controller before a VM starts, so that no start takes memory that is not there."""


@hook.command()
@directory
@click.option("--config", type=click.Path(path_type=Path), help="The controller's, if not the default one.")
def install(directory: Path, config: Path | None) -> None:
    """Install the hook. libvirtd sees it when it starts: restart libvirtd if it had no hook before."""
    file = directory / NAME
    if _is_ours(file) is False:
        raise InputError(f"{file} is there and is not ours", hint="move it away first")
    interpreter = _interpreter()
    for path in (PROGRAM, interpreter, directory, *([config.absolute()] if config else [])):
        _refuse_if_others_can_write(path)
    options = f" --config {shlex.quote(str(config.absolute()))}" if config else ""
    program, python = shlex.quote(str(PROGRAM)), shlex.quote(str(interpreter))
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_text(
            f"#!/bin/sh\n{MARK}\n"
            "# What was taken out without `dynmem hook remove` refuses nobody.\n"
            f"[ -r {program} ] && [ -x {python} ] || exit 0\n"
            f'exec {python} -I {program}{options} "$@"\n'
        )
        fresh.chmod(0o755)
        fresh.replace(file)
    except OSError as error:
        raise DynmemError(f"{file}: {error.strerror}", hint="run as root, or name a --directory") from None
    click.echo(f"{file} is installed; if libvirtd runs without hooks, restart it once")


@hook.command()
@directory
def remove(directory: Path) -> None:
    """Remove the hook: every VM may start."""
    file = directory / NAME
    ours = _is_ours(file)
    if ours is None:
        click.echo(f"{file} is not there; nothing to remove")
        return
    if not ours:
        raise InputError(f"{file} is not ours", hint="remove it by hand if you want to")
    try:
        file.unlink()
    except OSError as error:
        raise DynmemError(f"{file}: {error.strerror}", hint="run as root") from None
    click.echo(f"{file} is removed")
