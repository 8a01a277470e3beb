"""`dynmem agent push|remove`: the agent brought into a running guest by its QEMU guest agent."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click

from host_controller.cli.options import connect, vm_names
from host_controller.config import load
from host_controller.delivery import push as delivery
from host_controller.delivery.agent_file import NAME, agent_file
from host_controller.delivery.cloud_config import cloud_config as user_data
from host_controller.delivery.push import PushNotAllowed
from host_controller.errors import InputError
from host_controller.guest_agent.conversation import GuestAgent
from host_controller.guest_agent.errors import GuestAgentAbsent
from host_controller.hypervisor.guest_agent_line import GuestAgentLine
from host_controller.neutral import neutral

PACKAGED_FILE: Final = Path("/usr/share/dynmem") / NAME
TAINT: Final = (
    "Libvirt will mark {vm} as tainted (custom-ga-command) until it is shut down: its guest agent is given\n"
    "commands that are not libvirt's own. Nothing else comes of it. The agent is written to\n"
    f"{delivery.INSTALLED} in the guest, with a unit and a rule for udev, and runs as root there."
)

yes = click.option("--yes", is_flag=True, help="Do not ask: the VM may be marked as tainted.")
name = click.argument("vm", shell_complete=vm_names)


@click.group()
def agent() -> None:
    """Bring the agent into a running Linux guest, or take it out, through its QEMU guest agent.

    No package and no network is needed, only Python 3.9 in the guest. What was cut off is finished by saying
    it again.
    """


@agent.command()
@name
@yes
@click.option("--by-hand", is_flag=True, help="Only print the two commands that do it without a guest agent.")
@connect
def push(vm: str, *, yes: bool, by_hand: bool, connect: str | None) -> None:
    """Bring the agent into VM and start it. `remove` is the way back."""
    if by_hand:
        click.echo(_by_hand(vm))
        return
    _ask(vm, yes=yes)
    content = agent_file()
    try:
        _carry_out(vm, connect, lambda talk: delivery.push(talk, content, _progress(len(content))))
    except (PushNotAllowed, GuestAgentAbsent):
        click.echo(_by_hand(vm), err=True)
        raise


@agent.command()
@name
@yes
@connect
def remove(vm: str, *, yes: bool, connect: str | None) -> None:
    """Stop the agent that `push` brought into VM, and remove all that came with it."""
    _ask(vm, yes=yes)
    _carry_out(vm, connect, delivery.remove)


@agent.command("cloud-config")
def cloud_config() -> None:
    """Print user data for cloud-init: a VM that boots with it has the agent, without a package or a network.

    What else a VM is to be told goes in beside it, or into another part of a multi-part archive.
    """
    click.echo(user_data(agent_file()), nl=False)


def _carry_out(vm: str, uri: str | None, work: Callable[[GuestAgent], Iterator[str]]) -> None:
    with GuestAgentLine(uri or load().libvirt.uri, vm) as line:
        if (job := line.job()) is not None:
            hint = "say it again once that is over; nothing was changed"
            raise InputError(f"a job holds it ({job})", vm=vm, hint=hint)
        try:
            for step in work(GuestAgent(line, time.monotonic, time.sleep)):
                click.echo(step)
        except delivery.PushFailed as error:
            error.vm = vm
            raise


def _ask(vm: str, *, yes: bool) -> None:
    click.echo(TAINT.format(vm=neutral(vm)))
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError(
            "nobody is there to agree", vm=vm, hint="say --yes, or see --by-hand; nothing was changed"
        )
    if not click.confirm("Go on?"):
        raise InputError("nothing was changed", vm=vm)


def _by_hand(vm: str) -> str:
    file = PACKAGED_FILE if PACKAGED_FILE.exists() else Path("dist") / NAME
    copy, install = delivery.by_hand(neutral(vm), str(file))
    return f"Without a guest agent, on this host and then in the guest, as root:\n  {copy}\n  {install}"


def _progress(total: int) -> Callable[[int], None]:
    if not sys.stderr.isatty():
        return lambda done: None

    def show(done: int) -> None:
        end = "\n" if done == total else ""
        click.echo(f"\r{done >> 10} of {total >> 10} KiB", nl=False, err=True)
        click.echo(end, nl=False, err=True)

    return show
