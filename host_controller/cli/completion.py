"""`dynmem completion`: what a shell needs to complete commands, options and VMs."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL; packages install those of bash, zsh and fish.

    For one session: eval "$(dynmem completion bash)"
    """
    from host_controller.cli import group

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(group, {}, "dynmem", "_DYNMEM_COMPLETE").source())
