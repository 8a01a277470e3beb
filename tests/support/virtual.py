"""A controller over simulated VMs in an asyncio loop whose time is virtual: minutes pass in milliseconds."""

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from host_controller.control.controller import Controller
from host_controller.core.interface import Command, HypervisorEvent
from host_controller.core.model import Limits, Settings
from host_controller.records.journal import Journal
from host_controller.simulator.clock import Agenda
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.hypervisor import SimulatedHypervisor
from host_controller.units import GIB, MIB

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Sees what is ready now; a wait makes time pass instead."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> Any:
        stand_still = timeout is None or (self.loop.frozen and timeout > 0)
        ready = super().select(None if stand_still else 0)
        if not ready and timeout:
            self.loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Jumps to whatever is due next. While it is frozen, it waits for I/O and no time passes."""

    _clock_resolution: float

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        self.frozen = False
        super().__init__(selector)
        # asyncio takes a nanosecond. After 194 days a float is coarser, and what is due would never be run.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time; tasks that it leaves behind fail the test."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(main)
        left = [task for task in asyncio.all_tasks(runner.get_loop()) if not task.done()]
    assert not left, f"left behind: {left}"
    return result


class Host:
    """Simulated VMs, and the controllers that run over them."""

    def __init__(self, capacity_bytes: int = 4 * GIB) -> None:
        self.agenda = Agenda()
        self.hypervisor = SimulatedHypervisor(self.agenda, total_bytes=2 * capacity_bytes)
        self.settings = Settings(
            capacity_bytes=capacity_bytes, shrink_after_seconds=10.0, settle_seconds=10.0
        )
        self.commands: list[Command] = []
        """What has reached the hypervisor."""
        self.hypervisor.witnesses.append(self)

    def submitted(self, command: Command) -> None:
        self.commands.append(command)

    def delivered(self, event: HypervisorEvent) -> None: ...

    def happened(self, kind: str, vm: str) -> None: ...

    def vm(self, name: str, **more: Any) -> SimulatedVm:
        """A VM that is started."""
        limits = more.pop("limits", Limits(GIB, 256 * MIB, 2 * GIB))
        vm = self.hypervisor.define(GuestSpec(name, limits, **more))
        self.hypervisor.power_on(vm)
        return vm

    @asynccontextmanager
    async def controller(self, **options: Any) -> AsyncIterator[Controller]:
        """A controller at work."""
        loop = asyncio.get_running_loop()
        journal = options.pop("journal", None) or Journal(loop.time)
        controller = Controller(self.hypervisor, self.settings, journal, clock=loop.time, **options)
        world = asyncio.create_task(self._turn())
        running = asyncio.create_task(controller.run())
        try:
            yield controller
        finally:
            controller.stop()
            await running
            world.cancel()
            await asyncio.gather(world, return_exceptions=True)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.agenda.run_until(loop.time())
            await asyncio.sleep(self.agenda.resolution)


async def aside(function: Callable[..., T], *args: Any) -> T:
    """Call what blocks, such as a client of ours, in a thread, while time stands still."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.frozen = True
    try:
        return await asyncio.to_thread(function, *args)
    finally:
        loop.frozen = False


async def until(condition: Callable[[], Any], what: str, limit: float = 120.0) -> None:
    """Wait for a condition, in virtual seconds."""
    end = asyncio.get_running_loop().time() + limit
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"not within {limit:g} s: {what}"
        await asyncio.sleep(0.05)
