"""What `adopt` and `release` have in common: how a VM is read, and what is said of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import click

from host_controller.adoption.carry_out import Clock, CutOff, Short
from host_controller.adoption.facts import Facts, ManagedAlready
from host_controller.api.client import Client, ControllerUnreachable, RequestRefused
from host_controller.api.schema.adoption import AdoptionOutcome
from host_controller.cli.text import json_text
from host_controller.errors import DynmemError
from host_controller.hypervisor.running import RunningDomain
from host_controller.neutral import neutral

WAIT_SECONDS: Final = 60.0
KNOWN_SECONDS: Final = 3.0
"""For so long a controller may take to notice a VM that has just been adopted."""


@dataclass(slots=True)
class Result:
    """What became of one VM, for people and programs."""

    name: str
    uuid: str | None = None
    outcome: AdoptionOutcome = "nothing to do"
    steps: list[str] = field(default_factory=list)
    """Done, or to be done."""
    now: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    reason: str | None = None
    way_out: str | None = None

    def failed(self, error: DynmemError) -> None:
        """It ended with that."""
        if isinstance(error, ManagedAlready):
            self.now.append(f"{error.message}; {error.hint}")
            return
        self.outcome = "failed" if isinstance(error, CutOff | Short) else "refused"
        self.reason, self.way_out = error.message, error.hint


def facts_of(domain: RunningDomain) -> Facts:
    """What libvirt says of it now."""
    return Facts(domain.name, domain.uuid, domain.live_xml(), domain.definition(), domain.job())


def controller_of(uuid: str | None, socket: str, limit_seconds: float = 0.0) -> bool | None:
    """Whether the controller that answers there manages that VM; None: no controller answers.

    One of another libvirt answers as well, and would never move this VM's memory.
    """
    until = time.monotonic() + limit_seconds
    while True:
        try:
            Client(socket).get("vms", uuid or "")
        except ControllerUnreachable:
            return None
        except RequestRefused:
            if time.monotonic() >= until:
                return False
            time.sleep(KNOWN_SECONDS / 10)
        else:
            return True


def told_of_controller(adopted: Result, manages: bool | None) -> None:
    """Say when nobody moves its memory."""
    if manages is None:
        click.echo("no controller answers: memory moves once there is one (systemctl start dynmem)")
    elif not manages:
        click.echo(
            f"the controller that answers does not know {neutral(adopted.name)}: it is of another libvirt, "
            "or has lost its connection (dynmem status); memory moves once one is in charge here"
        )


def clock(limit_seconds: float) -> Clock:
    """This machine's, and how long a guest is waited for."""
    return Clock(time.monotonic, time.sleep, limit_seconds)


def progress(as_json: bool) -> Callable[[str, str], None]:
    """Steps as they are done: on stderr where stdout is for a program."""
    return lambda vm, text: click.echo(f"{neutral(vm)}: {neutral(text)}", err=as_json)


def told(result: Result, as_json: bool) -> Result:
    """The same, said to people."""
    if as_json:
        return result
    name = neutral(result.name)
    if result.reason is not None:
        click.echo(
            f"{name}: {result.outcome}: {neutral(result.reason)}"
            + (f"; {neutral(result.way_out)}" if result.way_out else "")
        )
        return result
    click.echo(f"{name}: {result.outcome}")
    if result.outcome.startswith("would"):
        for step in result.steps:
            click.echo(f"  · {neutral(step)}")
    for title, lines in (("now", result.now), ("from its next start", result.later)):
        for line in lines:
            click.echo(f"  {title}: {neutral(line)}")
    return result


def end(results: list[Result], as_json: bool, nothing: str) -> None:
    """All of them for a program, or a line that counts them. `nothing`: what is said of none."""
    if as_json:
        fields = ("name", "uuid", "outcome", "steps", "now", "later", "reason", "way_out")
        views = [{name: getattr(one, name) for name in fields} for one in results]
        click.echo(json_text({"vms": views}))
    elif not results:
        click.echo(nothing)
    elif len(results) > 1:
        counts = {one.outcome: sum(1 for other in results if other.outcome == one.outcome) for one in results}
        click.echo(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
