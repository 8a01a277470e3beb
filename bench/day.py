"""How long the simulator takes for a day of 100 VMs, second by second: `python -m bench.day [SECONDS]`."""

import sys
import time

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, diurnal
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

DAY = 86400.0
VMS = 100


def main(seconds: float = DAY) -> None:
    """A day's curve for everybody, which changes once a minute."""
    world = World(VMS * 2 * GIB, check=False, resolution=1.0, step=1.0)
    limits = Limits(512 * MIB, 256 * MIB, 4 * GIB)
    for i in range(VMS):
        curve = diurnal(200.0 * MIB, 1500.0 * MIB, DAY, i)
        world.define(GuestSpec(f"vm{i}", limits, growth=Growth.BALLOON, workload=Workload(curve)))
    world.control(lambda capacity: Engine(Settings(capacity)))
    for i in range(VMS):
        world.start(f"vm{i}")
    world.run(120.0)
    began = time.process_time()
    world.run(seconds)
    took = time.process_time() - began
    print(
        f"{took:.1f} s of one core for {seconds:.0f} s of {VMS} VMs: {took / seconds * DAY:.0f} s for a day"
    )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
