"""`dynmem run` with simulated VMs behind it, in real time: a host to measure and to look at.

    python -m bench.simulated_host VMS DIRECTORY [PORT]

The daemon is the real one: configuration, lock, socket, history, page. Only libvirt and the guests are
simulated, in the same process and loop, so what is measured here is measured against a busy loop.
"""

import asyncio
import contextlib
import gc
import sys
from pathlib import Path
from typing import Final

from host_controller import service
from host_controller.hypervisor.interface import ConnectionChanged, Inbox
from host_controller.model import Limits
from host_controller.simulator.clock import Agenda
from host_controller.simulator.guest import GuestSpec
from host_controller.simulator.hypervisor import SimulatedHypervisor
from host_controller.simulator.workload import DAY, Workload, burst
from host_controller.units import GIB, MIB

TURN_SECONDS: Final = 0.02
SHARE_BYTES: Final = 1280 * MIB
"""Capacity for each VM: enough for most and not for all at once, so that there is something to decide."""


class RealTime(SimulatedHypervisor):
    """Simulated VMs whose time is the loop's."""

    async def start(self, inbox: Inbox) -> None:
        """Connect, and let time pass until the controller ends."""
        await super().start(inbox)
        inbox(ConnectionChanged(True, "simulated VMs"))
        loop = asyncio.get_running_loop()
        gc.collect()
        gc.freeze()  # the simulated guests' objects are not the controller's
        while True:
            # Behind after a long step of the controller's: a little at a time, and its turn in between.
            self.agenda.run_until(min(loop.time(), self.agenda.now + 2 * TURN_SECONDS))
            await asyncio.sleep(max(0.0, self.agenda.now + TURN_SECONDS - loop.time()))


def host(count: int, now: float) -> RealTime:
    """So many VMs, which run. About 50 allocate and free at any time, each in its own bursts."""
    agenda = Agenda()
    agenda.run_until(now)
    every = max(90.0, 0.5 * count)
    hypervisor = RealTime(agenda, total_bytes=2 * count * SHARE_BYTES)
    for number in range(count):
        base, peak = (160 + number * 37 % 400) * MIB, (600 + number * 53 % 1200) * MIB
        first = now + 10 + number * every / count
        curve = burst(base, peak, every, 20, now + DAY / 4, rise=15, first=first)
        hypervisor.power_on(
            hypervisor.define(
                GuestSpec(
                    f"vm{number:04}",
                    Limits(GIB, 256 * MIB, 2 * GIB, weight=100 + number % 3 * 50),
                    workload=Workload(anonymous=curve),
                    swap_bytes=number % 2 * GIB,
                    agent=number % 20 != 7,
                )
            )
        )
    return hypervisor


def configure(directory: Path, count: int, port: int | None) -> Path:
    """The daemon's configuration, in `directory` as everything else of it."""
    file = directory / "dynmem.toml"
    listen = "" if port is None else f'[http]\nlisten = "127.0.0.1:{port}"\n'
    file.write_text(
        f'[libvirt]\nuri = "simulated:///"\n[host]\ncapacity = "{count * SHARE_BYTES // MIB}MiB"\n{listen}'
        f'[paths]\nstate_dir = "{directory}/run"\nhistory = "{directory}/history.sqlite"\n'
    )
    return file


async def main(count: int, directory: Path, port: int | None) -> None:
    """Run until a signal."""
    config = configure(directory, count, port)
    now = asyncio.get_running_loop().time()
    await service.Service(service.Options(config), lambda uri: host(count, now)).run()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(arguments[0]), Path(arguments[1]), int(arguments[2]) if arguments[2:] else None))
