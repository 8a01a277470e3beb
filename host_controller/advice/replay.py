"""A host's recorded weeks, played through the engine that will act, in slots of five minutes.

What a guest wants is what it wanted then: nothing that it is given changes it. Every VM is played as one
with a balloon: it boots with its maximum as RAM. So the figures say what its limits do, and not what a
DIMM's blocks or an unplug that fails would do. Balloons obey within the second. Each slot begins with a few
seconds, in which memory moves; the rest of the slot stays as they ended. What a slot wants it wants at
once, which is harder than life.

The engine sees what it sees on hosts: usable and available, so no demand beyond what a VM has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from agent import wire
from host_controller.advice.past import SLOT, Past, aligned
from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, RunState, Settings, VmConfig
from host_controller.units import MIB, round_up

SECONDS: Final = 60
"""Of each slot in which memory moves, at most."""
TAKE_OVER_SECONDS: Final = 4
"""For which whoever comes is looked at each second: the engine takes it over as it would on a host."""
FLOOR_BYTES: Final = 8 * MIB
SEEN_SHARE: Final = 100
"""A guest whose demand has moved by less than 1/100 has nothing new to say."""
SEEN_BYTES: Final = 4 * MIB
NEVER: Final = 1e12
"""No report is stale here: a guest that says nothing wants what it wanted."""
_PAGE: Final = 4096


@dataclass(slots=True)
class VmOutcome:
    """What one VM had and lacked. Sizes are bytes."""

    name: str
    wanted_byte_seconds: float = 0.0
    unmet_byte_seconds: float = 0.0
    short_seconds: float = 0.0
    """How long it lacked more than 1/100 of what it wanted."""
    largest_bytes: int = 0
    mean_bytes: float = 0.0
    seconds: float = 0.0

    @property
    def unmet_share(self) -> float:
        """What it lacked of what it wanted, 0 to 1."""
        return self.unmet_byte_seconds / self.wanted_byte_seconds if self.wanted_byte_seconds else 0.0

    @property
    def unmet_mib_seconds(self) -> float:
        """What it wanted and did not have, MiB times seconds."""
        return self.unmet_byte_seconds / MIB


@dataclass(slots=True)
class Outcome:
    """What became of the host."""

    vms: dict[str, VmOutcome] = field(default_factory=dict)
    """By UUID."""
    peak_bytes: int = 0
    """The most that all VMs had together."""
    mean_bytes: float = 0.0
    overdraft_seconds: float = 0.0
    seconds: float = 0.0
    commands: int = 0


class _Guest:
    """A balloon and what its guest wants."""

    __slots__ = ("actual", "new_for", "number", "ram", "sequence", "told", "uuid", "wants")

    def __init__(self, number: int, uuid: str, ram: int, actual: int) -> None:
        self.number, self.uuid, self.ram, self.actual = number, uuid, ram, actual
        self.wants = self.sequence = 0
        self.new_for = TAKE_OVER_SECONDS
        self.told: tuple[int, int] | None = None
        """What it wanted and had when it reported last."""

    @property
    def boot(self) -> str:
        return f"b{self.number}".ljust(8, "0")

    def has_news(self) -> bool:
        if self.told is None or self.told[1] != self.actual:
            return True
        moved = abs(self.wants - self.told[0])
        return moved > max(SEEN_BYTES, self.told[0] // SEEN_SHARE) or (moved > 0 and self.wants > self.actual)

    def report(self, now: float) -> wire.Report:
        self.sequence += 1
        self.told = self.wants, self.actual
        available = max(0, self.actual - self.wants)
        return wire.Report(
            self.boot,
            self.sequence,
            now,
            self.actual,
            available,
            available,
            online_bytes=self.ram,
            ballooned_bytes=self.ram - self.actual,
            floor_bytes=FLOOR_BYTES,
        )


class Replay:
    """One host, played once.

    capacity_bytes: what its VMs may cost; None: as much as they can come to want. limits: of each VM, by
    UUID.
    """

    def __init__(
        self, pasts: Sequence[Past], limits: dict[str, Limits], capacity_bytes: int | None = None
    ) -> None:
        self._pasts = pasts
        self._limits = limits
        enough = sum(one.maximum_bytes for one in limits.values()) * 5 // 4 + (1 << 30)
        capacity = capacity_bytes or enough
        self._engine = Engine(
            Settings(capacity, stale_seconds=NEVER, hang_seconds=NEVER, overhead_floor_bytes=0)
        )
        self._guests: dict[str, _Guest] = {}
        self._now = 0.0
        self.outcome = Outcome({one.uuid: VmOutcome(one.name) for one in pasts})

    def play(self) -> Outcome:
        """Play all of it."""
        _, rows = aligned(self._pasts)
        weight = 0.0
        for row in rows:
            self._slot(row)
            weight += SLOT
        outcome = self.outcome
        outcome.seconds = weight
        outcome.mean_bytes /= max(1.0, weight)
        for one in outcome.vms.values():
            one.mean_bytes /= max(1.0, one.seconds)
        return outcome

    def _slot(self, row: Sequence[int | None]) -> None:
        begin = self._now
        for past, wants in zip(self._pasts, row, strict=True):
            guest = self._guests.get(past.uuid)
            if wants is None:
                if guest is not None:
                    self._leave(guest)
                continue
            if guest is None:
                guest = self._arrive(past, wants)
            guest.wants = wants
        self._handle(hv.Tick())
        for _ in range(SECONDS):
            if not self._second():
                break
        rest = begin + SLOT - self._now
        self._count(rest)
        self._now = begin + SLOT

    def _second(self) -> bool:
        """Let a second pass; False when nothing moves any more."""
        moved = False
        for guest in self._guests.values():
            if guest.new_for:
                guest.new_for -= 1
                guest.told = None
                moved = True
                self._look_at(guest)
            if guest.has_news():
                self._handle(hv.GuestSpoke(guest.uuid, guest.report(self._now)))
        for command in self._engine.decide(self._now):
            if isinstance(command, hv.SetTarget):
                moved = True
                self._obey(command)
        if moved:
            self._count(1.0)
            self._now += 1.0
        return moved

    def _look_at(self, guest: _Guest) -> None:
        self._handle(hv.BalloonSampled(guest.uuid, guest.actual, None))
        self._handle(hv.ResidentSampled(guest.uuid, guest.actual, 0))

    def _obey(self, command: hv.SetTarget) -> None:
        guest = self._guests[command.vm]
        self.outcome.commands += 1
        guest.actual = min(guest.ram, command.target_bytes)
        self._handle(hv.BalloonChanged(guest.uuid, guest.actual))
        self._look_at(guest)
        self._handle(hv.CommandDone(guest.uuid, command.ticket, None))

    def _count(self, seconds: float) -> None:
        outcome = self.outcome
        total = 0
        for guest in self._guests.values():
            vm = outcome.vms[guest.uuid]
            lacks = guest.wants - guest.actual
            if lacks > 0:
                vm.unmet_byte_seconds += lacks * seconds
                if lacks * SEEN_SHARE > guest.wants:
                    vm.short_seconds += seconds
            vm.wanted_byte_seconds += guest.wants * seconds
            vm.mean_bytes += guest.actual * seconds
            vm.seconds += seconds
            vm.largest_bytes = max(vm.largest_bytes, guest.actual)
            total += guest.actual
        outcome.mean_bytes += total * seconds
        outcome.peak_bytes = max(outcome.peak_bytes, total)
        if self._engine.uncovered_bytes:
            outcome.overdraft_seconds += seconds

    def _arrive(self, past: Past, wants: int) -> _Guest:
        limits = self._limits[past.uuid]
        ram = round_up(limits.maximum_bytes, _PAGE)
        begin = max(limits.minimum_bytes, wants + wants * limits.buffer_percent // 100)
        guest = _Guest(len(self._guests), past.uuid, ram, min(ram, round_up(begin, _PAGE)))
        self._guests[past.uuid] = guest
        config = VmConfig(past.uuid, past.name, limits, Growth.BALLOON, boot_ram_bytes=ram)
        appeared = hv.VmAppeared(past.uuid, config, RunState.RUNNING, (), guest.actual, booted=False)
        self._handle(appeared)
        hello = wire.Hello(guest.boot, "1", "6.1", 128 * MIB, True, "", "kernel", True)
        self._handle(hv.GuestSpoke(past.uuid, hello))
        return guest

    def _leave(self, guest: _Guest) -> None:
        del self._guests[guest.uuid]
        self._handle(hv.VmGone(guest.uuid, "its history ends"))

    def _handle(self, event: hv.HypervisorEvent | hv.Tick) -> None:
        self._engine.handle(event, self._now)
