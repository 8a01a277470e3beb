"""A change that somebody waits for: made once the engine rests, and anew when another change came first.

The arbiter needs none of it: its next turn comes by itself. A command is said once, and a cluster whose VMs
are being probed or monitored changes its configuration's version every second.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from host_controller.fleet.clock import Clock
from host_controller.fleet.errors import EngineBusy, RaceLost

LOOK_SECONDS: Final = 1.0
TRIES: Final = 30

T = TypeVar("T")


def patiently(attempt: Callable[[], T], clock: Clock) -> T:
    """What `attempt` gives, which reads the configuration, thinks it over and changes it.

    Raises:
        EngineBusy, RaceLost: for half a minute. Nothing was changed.
        FleetError: anything else that it raises, at once.
    """
    for _ in range(TRIES - 1):
        try:
            return attempt()
        except (EngineBusy, RaceLost):
            clock.sleep(LOOK_SECONDS)
    return attempt()
