"""Who looks on in a simulated world beside the checker: what was said is kept, and commands are ambushed."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from host_controller.core import interface as hv
from host_controller.simulator.behaviours import Behaviour
from host_controller.simulator.guest import SimulatedVm
from host_controller.units import format_size

if TYPE_CHECKING:
    from host_controller.simulator.world import World

HISTORY: Final = 400
"""Commands and events kept for the report of a violation."""


def kind_of(command: hv.Command, vm: SimulatedVm | None) -> str:
    """What a command does, in a word: a balloon target grows or shrinks its VM."""
    if vm is not None and isinstance(command, hv.SetTarget):
        return "Grow" if command.target_bytes > vm.ram_bytes - vm.balloon.wanted else "Shrink"
    return type(command).__name__


@dataclass(slots=True)
class Ambushes:
    """A witness that lets a guest change its ways the very moment it is given a command of some kind."""

    world: "World"
    laid: dict[tuple[str, str], Behaviour] = field(default_factory=dict)

    def submitted(self, command: hv.Command) -> None:
        """Spring it: the command meets the new behaviour."""
        vm = self.world.hypervisor.find(command.vm)
        behaviour = self.laid.pop((command.vm, kind_of(command, vm)), None)
        if vm is not None and behaviour is not None:
            vm.behave(behaviour)

    def delivered(self, event: hv.HypervisorEvent) -> None:
        """Nothing to do."""

    def happened(self, kind: str, vm: str) -> None:
        """Nothing to do."""


@dataclass(slots=True)
class History:
    """A witness that remembers what was said lately, and counts which command met which behaviour."""

    world: "World"
    said: deque[tuple[float, str, object]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)

    def submitted(self, command: hv.Command) -> None:
        """Take down a command."""
        self._say("<-", command)
        vm = self.world.hypervisor.find(command.vm)
        kind = kind_of(command, vm)
        self.commands[kind] += 1
        if vm is not None:
            self.met[kind, vm.behaviour.name] += 1

    def delivered(self, event: hv.HypervisorEvent) -> None:
        """Take down an event; samples only when asked for, since they are most of all events."""
        if not isinstance(event, hv.HostSampled):
            self._say("->", event)

    def happened(self, kind: str, vm: str) -> None:
        """Take down what befell a VM."""
        self._say("!!", f"{kind} {self.world.name_of(vm)}")

    def _say(self, way: str, what: object) -> None:
        """What comes after the first violation does not explain it, except the command that made it.

        (That the engine has left somebody alone is found whenever it is asked for, and ends nothing here.)
        """
        violations = self.world.checker.violations
        if not violations or violations[0].at == self.world.now:
            self.said.append((self.world.now, way, what))

    def tail(self, vm: str | None = None, lines: int = 40) -> Iterator[str]:
        """The last lines, of one VM by its name or of all."""
        chosen = [
            (at, way, what)
            for at, way, what in self.said
            if vm is None or self.world.name_of(getattr(what, "vm", "")) == vm or vm in str(what)
        ]
        for at, way, what in chosen[-lines:]:
            yield f"{at:9.2f} {way} {_render(what)}"


def _render(what: object) -> str:
    if isinstance(what, hv.GuestSpoke):
        message = what.untrusted_message
        kept = {
            key: value
            for key, value in message._asdict().items()
            if key in ("reason", "sequence", "zone", "request_id", "ok", "detail", "boot_id_prefix")
        }
        sizes = {
            key.removesuffix("_bytes"): format_size(value)
            for key, value in message._asdict().items()
            if key in ("total_bytes", "available_bytes", "offline_bytes", "ballooned_bytes") and value
        }
        return f"{type(message).__name__} {kept | sizes}"
    return str(what)
