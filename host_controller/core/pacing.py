"""Look closely at what moves, and seldom at what does not."""

from typing import Final

from host_controller.core.commands import SetPace
from host_controller.core.state import State
from host_controller.core.vm.record import LIVE, Vm
from host_controller.units import MIB

MOVING_PACE: Final = 0.1
UNSURE_PACE: Final = 0.5
AGENTLESS_PACE: Final = 1.0
CALM_PACE: Final = 5.0
"""Seconds between two readings of a VM's balloon and resident memory."""
LOOK_SECONDS: Final = 4.0
"""At the latest after so long a VM of which nothing is heard is looked at again."""


def pace(vm: Vm, state: State, now: float) -> SetPace | None:
    """The command for another pace, where one is due."""
    balloon, stale_seconds = vm.balloon, state.settings.stale_seconds
    if (
        balloon.sent
        or balloon.claim_bytes > balloon.actual_bytes
        or (vm.evidence.contradiction is not None and vm.phase is LIVE)  # QEMU may tell of it later
        or vm.config.uuid in state.operations
        or (balloon.target_bytes is not None and abs(vm.present_bytes - balloon.target_bytes) > MIB)
    ):
        seconds = MOVING_PACE
    elif vm.phase is not LIVE or vm.pauses.job is not None:
        seconds = UNSURE_PACE
    elif not vm.has_agent(now, stale_seconds):
        seconds = AGENTLESS_PACE
    else:
        seconds = CALM_PACE
    look_at = now + (seconds if seconds < LOOK_SECONDS else LOOK_SECONDS)
    facts = vm.guest.facts
    if facts is not None and now <= facts.at + stale_seconds < look_at:
        look_at = facts.at + stale_seconds
    return SetPace(vm.config.uuid, seconds) if vm.pace.look(seconds, look_at) else None
