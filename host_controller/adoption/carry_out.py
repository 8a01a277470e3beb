"""Does the steps of a plan in order and says each. What fails leaves what was done, and says how to go on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from host_controller.adoption.steps import (
    AskStatistics,
    Define,
    EmptyBalloon,
    PlugChannel,
    SetBalloon,
    SetVirtioMem,
    Step,
    UnplugChannel,
    WriteMetadata,
)
from host_controller.core.policy.dead_band import grow_dead_band, shrink_dead_band
from host_controller.errors import DynmemError
from host_controller.neutral import shell_word
from host_controller.units import MIB, format_size

POLL_SECONDS: Final = 0.2
EXACT_BYTES: Final = MIB
"""A balloon moves in pages; libvirt tells KiB."""
TOLD_SECONDS: Final = 1.2
"""QEMU holds what a balloon tells back for up to a second (fact: balloon-told-late)."""
NUDGE_BYTES: Final = 4 * EXACT_BYTES
"""A move that is told, and that no guest feels."""
NUDGE_SECONDS: Final = 5.0
"""A balloon that has not made it by then does not follow."""


class Domain(Protocol):
    """One domain of a hypervisor's. Every method raises a DynmemError when that fails."""

    def definition(self) -> str | None:
        """What it starts with next time, with secrets; None: it has none."""

    def define(self, xml: str) -> None:
        """Replace what it starts with next time."""

    def write_metadata(self, element: str | None) -> None:
        """Replace our element of the running domain; None takes it out."""

    def ask_statistics(self, seconds: int) -> None:
        """How often its balloon is asked for statistics; 0: never."""

    def plug_channel(self, xml: str) -> None:
        """Plug a channel into the running domain."""

    def unplug_channel(self, xml: str) -> None:
        """Unplug a channel from the running domain."""

    def set_balloon(self, size_bytes: int) -> None:
        """Send its balloon a target."""

    def actual_bytes(self) -> int:
        """RAM less what is in the balloon."""

    def shown_bytes(self) -> int:
        """The same as libvirt shows it to others: what the balloon's driver was last heard of."""

    def memory_devices(self) -> int:
        """DIMMs and the like that are plugged."""

    def ask_virtio_mem(self, size_bytes: int) -> None:
        """Ask its virtio-mem device for a size."""

    def virtio_mem_bytes(self) -> int:
        """What its virtio-mem device has plugged; 0 without one."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, and how long the guest is waited for."""

    now: Callable[[], float]
    sleep: Callable[[float], None]
    limit_seconds: float


class CutOff(DynmemError):  # noqa: N818 # read as what happened
    """A step failed; those before it are done."""


class Short(DynmemError):  # noqa: N818 # read as what happened
    """The VM's memory could not be had within the time."""


def carry_out(
    vm: str, steps: tuple[Step, ...], domain: Domain, say: Callable[[str], None], clock: Clock, again: str
) -> None:
    """Do them in order. `again`: how to go on, for people.

    Raises:
        CutOff: one failed.
        Short: the guest did not get its memory back, or did not follow.
    """
    for step in steps:
        try:
            _do(vm, step, domain, clock)
        except Short:
            raise
        except DynmemError as error:
            raise CutOff(
                f"cut off before this was done: {step.say} ({error.message})", vm=vm, hint=again
            ) from None
        say(step.say)


def _do(vm: str, step: Step, domain: Domain, clock: Clock) -> None:
    match step:
        case Define(change):
            if (definition := domain.definition()) is not None:
                domain.define(change(definition))
        case WriteMetadata(element):
            domain.write_metadata(element)
        case AskStatistics(seconds):
            domain.ask_statistics(seconds)
        case PlugChannel(xml):
            domain.plug_channel(xml)
        case UnplugChannel(xml):
            domain.unplug_channel(xml)
        case EmptyBalloon(size_bytes, devices, with_virtio_mem):
            low, high = size_bytes - grow_dead_band(size_bytes), size_bytes + shrink_dead_band(size_bytes)

            def all_of_it() -> int:
                return domain.actual_bytes() + (domain.virtio_mem_bytes() if with_virtio_mem else 0)

            _wait(vm, domain, clock, all_of_it, size_bytes, range(low, high + 1), devices)
        case SetBalloon(size_bytes):
            domain.set_balloon(size_bytes)
            _wait(vm, domain, clock, domain.actual_bytes, size_bytes, _exactly(size_bytes), None)
            _have_it_shown(domain, clock, size_bytes)
        case SetVirtioMem(size_bytes):
            domain.ask_virtio_mem(size_bytes)
            _wait(vm, domain, clock, domain.virtio_mem_bytes, size_bytes, _exactly(size_bytes), None)
        case _:
            assert_never(step)


def _exactly(size_bytes: int) -> range:
    return range(size_bytes - EXACT_BYTES, size_bytes + EXACT_BYTES + 1)


def _wait(
    vm: str,
    domain: Domain,
    clock: Clock,
    size: Callable[[], int],
    wanted_bytes: int,
    near: range,
    devices: int | None,
) -> None:
    end, fewest = clock.now() + clock.limit_seconds, None
    while True:
        has, plugged = size(), 0 if devices is None else max(0, domain.memory_devices() - devices)
        if plugged <= 0 and has in near:
            return
        if fewest is None or plugged < fewest:  # DIMMs leave one by one, each in its own time
            end, fewest = clock.now() + clock.limit_seconds, plugged
        if clock.now() >= end:
            raise _short(vm, clock, has, wanted_bytes, near, plugged)
        clock.sleep(POLL_SECONDS)


def _have_it_shown(domain: Domain, clock: Clock, size_bytes: int) -> None:
    """Move the balloon a bit and back where libvirt shows an older size of it (fact: balloon-told-late)."""
    clock.sleep(TOLD_SECONDS)
    if domain.shown_bytes() in _exactly(size_bytes):
        return
    for target in (size_bytes - NUDGE_BYTES, size_bytes):
        domain.set_balloon(target)
        end = clock.now() + NUDGE_SECONDS
        while domain.shown_bytes() not in _exactly(target) and clock.now() < end:
            clock.sleep(POLL_SECONDS)


def _short(vm: str, clock: Clock, has: int, wanted_bytes: int, near: range, plugged: int) -> Short:
    lacks = []
    if has not in near:
        amount = format_size(abs(wanted_bytes - has))
        lacks.append(f"{amount} are {'too many' if has > wanted_bytes else 'missing'}")
    if plugged > 0:
        lacks.append(f"{plugged} DIMM{'s are' if plugged > 1 else ' is'} still in it")
    uses = has > wanted_bytes or has in near
    way_out = "its guest uses that memory: stop something in it" if uses else "stop another VM"
    return Short(
        f"after {clock.limit_seconds:.0f} s it has {format_size(has)} of {format_size(wanted_bytes)}: "
        f"{', and '.join(lacks)}",
        vm=vm,
        hint=f"`dynmem explain {shell_word(vm)}` says what holds it back; {way_out}, and release it again",
    )
