"""VMs that the engine moves, followed until none is left where it was, while their promises are renewed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from host_controller.fleet.clock import Clock
from host_controller.fleet.errors import FleetError
from host_controller.fleet.moving import Promised
from host_controller.fleet.pacemaker.cell import Engine
from host_controller.fleet.pacemaker.cib import failed_moves

LOOK_SECONDS: Final = 1.0
STALLED_SECONDS: Final = 60.0
"""The engine rests and VMs are still there, or it does not answer."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a drain is, or its end."""

    left: tuple[str, ...]
    moved: tuple[str, ...]


Tell = Callable[[Progress], None]


def follow(
    engine: Engine,
    sources: Mapping[str, str],
    promised: Promised,
    tell: Tell,
    clock: Clock,
    hint: str,
) -> None:
    """Until no VM is where it was. `hint`: what to do about some that stay there.

    Raises:
        FleetError: the engine rests and leaves some there, or it does not answer.
    """
    moved_at, before = clock.now(), len(sources)
    while True:
        clock.sleep(LOOK_SECONDS)
        promised.renew()
        try:
            idle = engine.idle()
            cib = engine.query()
            places = engine.simulate(cib.text).running
        except FleetError:
            if clock.now() - moved_at >= STALLED_SECONDS:
                raise
            continue  # the node that decides may just be changing; VMs on their way need their promises
        # The engine leaves such a VM alone. Its promise went with its arrival, and would be asked for anew.
        promised.let_go([one for one, node in failed_moves(cib).items() if sources.get(one) == node])
        left = tuple(sorted(one for one, source in sources.items() if places.get(one) == source))
        tell(Progress(left, tuple(sorted(set(sources) - set(left)))))
        if not left:
            return
        if len(left) != before or not idle:
            moved_at, before = clock.now(), len(left)
        if clock.now() - moved_at >= STALLED_SECONDS:
            where = ", ".join(sorted({sources[one] for one in left}))
            raise FleetError(f"the engine rests and leaves {', '.join(left)} on {where}", hint=hint)
