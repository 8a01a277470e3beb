"""Drives a controller over simulated VMs as the daemon drives it over real ones."""

from collections.abc import Sequence
from typing import Final, Protocol

from host_controller.core.interface import Command, HypervisorEvent, Tick
from host_controller.simulator.clock import LAST, Agenda
from host_controller.simulator.hypervisor import SimulatedHypervisor

COALESCE_SECONDS: Final = 0.05
TICK_SECONDS: Final = 1.0


class Controller(Protocol):
    """What the engine looks like from outside."""

    def handle(self, event: HypervisorEvent | Tick, now: float) -> None:
        """Take in an event."""

    def decide(self, now: float) -> Sequence[Command]:
        """What is to be done."""


class EngineDriver:
    """Every event is handled at once; decisions follow events, at most one in 50 ms, and every second."""

    def __init__(
        self,
        controller: Controller,
        hypervisor: SimulatedHypervisor,
        agenda: Agenda,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self.controller = controller
        self.decisions = 0
        self.tick_seconds = tick_seconds
        self._hypervisor = hypervisor
        self._agenda = agenda
        self._alive = False
        self._due = False
        self._decided_at = -COALESCE_SECONDS

    def start(self) -> None:
        """Connect, and go on until `stop`."""
        self._alive = True
        self._hypervisor.connect(self.take)
        self._tick()

    def stop(self) -> None:
        """As killed: nothing more is handled, decided or sent."""
        self._alive = False
        self._hypervisor.disconnect()

    def take(self, event: HypervisorEvent | Tick) -> None:
        """The inbox."""
        if not self._alive:
            return
        self.controller.handle(event, self._agenda.now)
        if not self._due:
            self._due = True
            when = max(self._agenda.now, self._decided_at + COALESCE_SECONDS)
            self._agenda.at(when, self._decide, LAST)

    def _tick(self) -> None:
        if self._alive:
            self.take(Tick())
            self._agenda.after(self.tick_seconds, self._tick)

    def _decide(self) -> None:
        if not self._alive:
            return
        self._due = False
        self._decided_at = self._agenda.now
        self.decisions += 1
        for command in self.controller.decide(self._agenda.now):
            self._hypervisor.submit(command)
