"""The steps of adopting and releasing. Each can be done twice, and says for people what it is.

Step ── Define           change the definition, in one go
     ├─ WriteMetadata    our element of the running domain; None takes it out
     ├─ AskStatistics    how often the balloon is asked for statistics
     ├─ PlugChannel      the agent's port, into the running domain
     ├─ UnplugChannel    out of it
     ├─ EmptyBalloon     wait until the controller has given everything back
     ├─ SetBalloon       to exactly what it was
     └─ SetVirtioMem     likewise
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from host_controller.units import format_size


@dataclass(frozen=True, slots=True)
class Define:
    """Change what the domain starts with next time, as that is by then: a guest is waited for before, and
    somebody may have edited it meanwhile, or undefined it.
    """

    change: Callable[[str], str] = field(repr=False)
    """Of the definition with its secrets."""
    say: str


@dataclass(frozen=True, slots=True)
class WriteMetadata:
    """Replace our element of the running domain."""

    element: str | None
    say: str = "its limits are written into the running domain"


@dataclass(frozen=True, slots=True)
class AskStatistics:
    """Have the balloon asked for statistics; 0: never."""

    seconds: int

    @property
    def say(self) -> str:
        """What is done, as a sentence."""
        return (
            f"its balloon is asked for statistics every {self.seconds} s"
            if self.seconds
            else ("its balloon is asked for statistics no more")
        )


@dataclass(frozen=True, slots=True)
class PlugChannel:
    """Plug the agent's port into the running domain."""

    xml: str
    say: str = "the agent's port is plugged"


@dataclass(frozen=True, slots=True)
class UnplugChannel:
    """Unplug the agent's port from the running domain."""

    xml: str
    say: str = "the agent's port is unplugged"


@dataclass(frozen=True, slots=True)
class EmptyBalloon:
    """Wait until the guest has so much again, and no more DIMMs than it had."""

    size_bytes: int
    memory_devices: int
    virtio_mem: bool = False
    """size_bytes counts what its virtio-mem device has plugged."""

    @property
    def say(self) -> str:
        """What is done, as a sentence."""
        return f"its balloon is emptied: it has {format_size(self.size_bytes)} again"


@dataclass(frozen=True, slots=True)
class SetBalloon:
    """Move the balloon to exactly where it was, once nobody else moves it."""

    size_bytes: int

    @property
    def say(self) -> str:
        """What is done, as a sentence."""
        return f"its balloon is where it was, at {format_size(self.size_bytes)}"


@dataclass(frozen=True, slots=True)
class SetVirtioMem:
    """Ask its virtio-mem device for exactly what it was asked for, once nobody else asks."""

    size_bytes: int

    @property
    def say(self) -> str:
        """What is done, as a sentence."""
        return f"its virtio-mem device has what it had, {format_size(self.size_bytes)}"


Step = (
    Define
    | WriteMetadata
    | AskStatistics
    | PlugChannel
    | UnplugChannel
    | EmptyBalloon
    | SetBalloon
    | SetVirtioMem
)
