"""What the checks need of a guest and its QEMU; `real.py` has one, and the tests have one with defects."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

MIB: Final = 1 << 20
LOOK_SECONDS: Final = 0.05


class CheckFailed(Exception):  # noqa: N818 # read as what happened
    """What a check waited for did not come true; the text says what was seen instead."""


@dataclass(frozen=True, slots=True)
class InGuest:
    """The guest's own view, bytes; `oom_kills` counts from its boot."""

    total_bytes: int
    available_bytes: int
    oom_kills: int


class Machine(Protocol):
    """A guest of this host that nobody needs. Sizes are bytes, limits seconds; all may raise VerifyError."""

    ram_bytes: int
    """What it boots with."""
    block_bytes: int
    """The size of a DIMM: its kernel's memory block."""

    def clock(self) -> float:
        """Seconds of a monotonic clock."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""

    def boot(self) -> None:
        """Start it; returns when it answers."""

    def reset(self) -> None:
        """Pull the reset line; returns when it answers again."""

    def hears_agent(self, limit: float) -> bool:
        """Whether its agent says hello and reports within the limit, and takes the zone of new memory."""

    def set_balloon(self, target: int) -> None:
        """Ask its balloon for so much to be left to the guest, in QEMU's terms."""

    def actual(self) -> int:
        """What the balloon says that the guest has."""

    def resident(self) -> int:
        """Guest memory that the host has in use."""

    def plug(self) -> str:
        """Hot add a DIMM of a block; its alias."""

    def offline(self, alias: str) -> bool:
        """Have its agent take the DIMM offline; whether it did."""

    def unplug(self, alias: str) -> None:
        """Ask for the DIMM back."""

    def dimms(self) -> tuple[str, ...]:
        """Aliases of those that are plugged."""

    def resize(self, requested: int) -> None:
        """Ask virtio-mem for so much."""

    def virtio_mem(self) -> int:
        """What virtio-mem has plugged."""

    def inside(self) -> InGuest:
        """What its kernel says."""

    def touch(self, mib: int) -> None:
        """Allocate and write so much, and let it go."""

    def begin_allocation(self, mib: int, rate: float) -> None:
        """Allocate and write so much, `rate` MiB a second."""

    def allocation_survives(self, limit: float) -> bool:
        """Whether it comes to its end within the limit; what it holds is let go."""

    def forge_actual(self, mib: int) -> None:
        """Have guest root write into the balloon's device that it holds so much, and give nothing."""

    def unbind_balloon(self) -> None:
        """Have guest root take the balloon's driver away."""

    def bind_balloon(self) -> None:
        """Have guest root give it back."""


def until(machine: Machine, true: Callable[[], bool], limit: float, what: str) -> float:
    """Wait until it is true. Returns the seconds that it took.

    Raises:
        CheckFailed: after `limit` seconds.
    """
    begun = machine.clock()
    while not true():
        if machine.clock() - begun > limit:
            raise CheckFailed(f"{what}: not within {limit:g} s")
        machine.wait(LOOK_SECONDS)
    return machine.clock() - begun
