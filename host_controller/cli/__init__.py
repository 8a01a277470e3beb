"""The command `dynmem`. Commands are imported when they are called: `status` must not pay for the others."""

import importlib
import os
import sys
from typing import Any, Final

import click

from agent.said import click_status, exit_status
from host_controller import __version__
from host_controller.errors import DynmemError
from host_controller.neutral import neutral, neutral_lines

COMMANDS: Final = {
    "advise": "host_controller.cli.advise:advise",
    "agent": "host_controller.cli.agent:agent",
    "adopt": "host_controller.cli.adopt:adopt",
    "check-config": "host_controller.cli.manage:check_config",
    "completion": "host_controller.cli.completion:completion",
    "disable": "host_controller.cli.enable:disable",
    "doctor": "host_controller.cli.doctor:doctor",
    "enable": "host_controller.cli.enable:enable",
    "fleet": "host_controller.cli.fleet:fleet",
    "forecast": "host_controller.cli.forecast:forecast",
    "events": "host_controller.cli.events:events",
    "explain": "host_controller.cli.explain:explain",
    "history": "host_controller.cli.history:history",
    "hook": "host_controller.cli.hook:hook",
    "pause": "host_controller.cli.manage:pause",
    "reload": "host_controller.cli.manage:reload",
    "release": "host_controller.cli.release:release",
    "resume": "host_controller.cli.manage:resume",
    "rules": "host_controller.cli.rules:rules",
    "run": "host_controller.cli.run:run",
    "savings": "host_controller.cli.forecast:savings",
    "set": "host_controller.cli.set_limits:set_limits",
    "simulate": "host_controller.cli.simulate:simulate",
    "status": "host_controller.cli.status:status",
    "top": "host_controller.cli.top:top",
    "verify": "host_controller.cli.verify:verify",
}
"""Name and place of every command: `module:function`, a click command."""


class LazyGroup(click.Group):
    """A group whose commands are named in COMMANDS and imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name, in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        _take_text(command)
        return command


class _Text(click.types.StringParamType):
    """A name or another word. Bytes that are no UTF-8 would be lone surrogates in it, which nobody can encode
    whom it is handed to: libvirt, a URL, a database. A path may hold them.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        try:
            found.encode()
        except UnicodeEncodeError:
            self.fail(f"'{neutral(found, 100)}' is no text in UTF-8", param, ctx)
        if not found and isinstance(param, click.Argument):  # as of "$vm" where that is not set
            self.fail("it is empty", param, ctx)
        return found


def _take_text(command: click.Command) -> None:
    for one in command.params:
        if one.type is click.STRING:
            one.type = _Text()
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _take_text(each)


COMPLETES: Final = "_DYNMEM_COMPLETE"
"""In the environment where a shell asks what a word could become."""
SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(cls=LazyGroup, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="dynmem")
def group() -> None:
    """Dynamic Memory for Linux VMs: memory moves between them as they need it.

    Exit codes: 0 done, 1 it went wrong, 2 what was asked for cannot be and nothing was changed.
    """


def main() -> None:
    """Run the command; an error of ours is one sentence on stderr and an exit code."""
    sys.exit(exit_status("dynmem", _run))


def _run() -> int:
    if COMPLETES in os.environ:
        importlib.import_module("host_controller.cli.completion")  # how words are told to a shell
    try:
        return click_status(group)
    except DynmemError as error:
        click.echo(f"dynmem: {neutral_lines(error)}", err=True)
        return error.exit_code
