"""The hypervisor interface over the sockets of `fake_guests`, and the real daemon on top of it.

`python -m bench.real.fake_hypervisor CONFIG` is `dynmem run --config CONFIG` but for what it finds behind
the address in `[libvirt] uri`. Balloons follow at once, and are looked at as often as the engine asks.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import structlog

from agent import codec
from host_controller.core import interface as hv
from host_controller.core.model import BalloonStats, Growth, HostFacts, Limits, RunState, VmConfig
from host_controller.hypervisor.link import Link
from host_controller.service import Options, Service
from host_controller.units import GIB, MIB

LIMITS: Final = Limits(1024 * MIB, 256 * MIB, 8192 * MIB)
OVERHEAD_BYTES: Final = 40 * MIB
FIRST_PACE: Final = 1.0
HOST_SECONDS: Final = 1.0
HOST_BYTES: Final = 64 << 40


class _Port(asyncio.Protocol):
    """One guest's port."""

    def __init__(self, vm: str, inbox: hv.Inbox) -> None:
        self.link = Link(vm, time.monotonic())
        self.transport: Any = None
        self._inbox = inbox

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.link.vm.encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        for event in self.link.feed(data, time.monotonic()):
            self._inbox(event)


class _Balloon:
    """What is known of one VM's balloon, and how often it is looked at."""

    __slots__ = ("actual_bytes", "looks", "pace", "timer")

    def __init__(self, actual_bytes: int) -> None:
        self.actual_bytes = actual_bytes
        self.looks = 0
        self.pace = FIRST_PACE
        self.timer: asyncio.TimerHandle | None = None


class SocketHypervisor:
    """`hypervisor.interface.Hypervisor` for guests that are played by another process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._balloons: dict[str, _Balloon] = {}
        self._ports: dict[str, _Port] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, inbox: hv.Inbox) -> None:
        """Connect, and say what runs."""
        self._inbox = inbox
        self._loop = asyncio.get_running_loop()
        reader, self._control = await asyncio.open_unix_connection(self._path)
        self._control.write(b"control\n")
        self._tasks.append(asyncio.create_task(self._watch_host()))
        while "end" not in (told := json.loads(await reader.readline())):
            self._found(told)
        inbox(hv.ConnectionChanged(True, self._path))
        inbox(hv.VmsAwaited(()))
        for uuid in self._balloons:
            port = _Port(uuid, inbox)
            await self._loop.create_unix_connection(lambda port=port: port, self._path)  # type: ignore[misc]
            self._ports[uuid] = port
        self._tasks.append(asyncio.create_task(self._watch_balloons(reader)))

    async def stop(self) -> None:
        """Let go."""
        for task in self._tasks:
            task.cancel()
        for port in self._ports.values():
            port.transport.close()
        for balloon in self._balloons.values():
            if balloon.timer is not None:
                balloon.timer.cancel()
        self._control.close()

    def submit(self, command: hv.Command) -> None:
        """Carry out what balloons can."""
        match command:
            case hv.SetTarget(vm, ticket, target):
                self._control.write(json.dumps({"vm": vm, "target": target}).encode() + b"\n")
                self._loop.call_soon(self._inbox, hv.CommandDone(vm, ticket, None))
            case hv.SendToGuest(vm, message):
                if vm in self._ports:
                    self._ports[vm].transport.write(codec.encode(message))
            case hv.SetPace(vm, pace):
                self._balloons[vm].pace = pace
                self._look(vm)
            case _:
                self._loop.call_soon(self._inbox, hv.CommandDone(command.vm, command.ticket, "balloons only"))

    def _found(self, told: dict[str, Any]) -> None:
        uuid = told["vm"]
        config = VmConfig(uuid, told["name"], LIMITS, Growth.BALLOON, boot_ram_bytes=told["ram"])
        self._balloons[uuid] = _Balloon(told["actual"])
        self._inbox(hv.VmAppeared(uuid, config, RunState.RUNNING, (), told["actual"], booted=False))
        self._look(uuid)

    def _look(self, vm: str) -> None:
        """Read balloon and resident memory, and come back after the pace."""
        balloon = self._balloons[vm]
        if balloon.timer is not None:
            balloon.timer.cancel()
        balloon.looks += 1
        actual = balloon.actual_bytes
        stats = BalloonStats(actual - 100 * MIB, actual // 4, balloon.looks)
        self._inbox(hv.BalloonSampled(vm, actual, stats))
        self._inbox(hv.ResidentSampled(vm, actual, OVERHEAD_BYTES))
        balloon.timer = self._loop.call_later(balloon.pace, self._look, vm)

    async def _watch_balloons(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            told = json.loads(line)
            self._balloons[told["vm"]].actual_bytes = told["actual"]
            self._inbox(hv.BalloonChanged(told["vm"], told["actual"]))

    async def _watch_host(self) -> None:
        while True:
            self._inbox(hv.HostSampled(HostFacts(time.monotonic(), HOST_BYTES, HOST_BYTES - 64 * GIB)))
            await asyncio.sleep(HOST_SECONDS)


def main() -> None:
    """The daemon, until a signal."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(20),
    )
    asyncio.run(
        Service(
            Options(Path(sys.argv[1])), lambda config: SocketHypervisor(config.libvirt.uri), here=False
        ).run()
    )


if __name__ == "__main__":
    main()
