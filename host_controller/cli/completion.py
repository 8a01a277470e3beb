"""`dynmem completion`: what a shell needs to complete commands, options and VMs."""

import os
import shlex
from typing import Final

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class

_MEANS_SOMETHING: Final = {"'": "'", '"': '"$`\\!'}
"""Within quotes of each kind."""


class _Bash(BashComplete):
    """As click's, with words as a shell takes them. Bash runs what it has put on its line, and libvirt allows
    `$(…)` in a domain's name; zsh and fish quote by themselves.
    """

    source_template = BashComplete.source_template.replace("read type", "read -r type").replace(
        "($value)", '("$value")'
    )

    def format_completion(self, item: CompletionItem) -> str:
        """A line for the script; what cannot be said within quotes that are open is none."""
        typed = dict(enumerate(os.environ["COMP_WORDS"].split("\n"))).get(int(os.environ["COMP_CWORD"]), "")
        quote = typed[:1]
        if quote in _MEANS_SOMETHING:
            unfit = set(_MEANS_SOMETHING[quote]) & set(item.value)
            return "none," if unfit else f"{item.type},{item.value}"
        return f"{item.type},{shlex.quote(item.value)}"


add_completion_class(_Bash)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL; packages install those of bash, zsh and fish.

    For one session: eval "$(dynmem completion bash)"
    """
    from host_controller.cli import COMPLETES, group

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(group, {}, "dynmem", COMPLETES).source())
