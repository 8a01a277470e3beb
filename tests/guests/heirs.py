"""What must be true of guests whose controller is killed, and of the controller that comes after it."""

import time
from typing import Final

from host_controller.units import MIB
from host_controller.verify.observer import Sample
from lab.guest import Guest
from tests.guests.conftest import Rig

STILL: Final = 3.0
"""Seconds."""


def kill_and_inherit(rig: Rig, *guests: Guest) -> float:
    """SIGKILL the controller, look, start another; returns in how many seconds it managed the guests."""
    names = [guest.name for guest in guests]
    rig.controller.kill()
    # What was under way ends: a second of inflation, however long a guest that swaps takes on a busy machine.
    # Then nothing moves without a controller.
    before = rig.observer.latest()

    def still(sample: Sample) -> bool:
        seen = [one for one in rig.observer.samples if sample.at - STILL <= one.at <= sample.at]
        moved = [abs(one.guests[name].actual - sample.guests[name].actual) for one in seen for name in names]
        return sample.at > before.at + STILL and max(moved) <= MIB

    later = rig.observer.wait_for(still, 60, "nothing moves without a controller")
    for name in names:
        assert before.guests[name].actual - later.guests[name].actual <= 256 * MIB
    begun = time.monotonic()
    rig.controller.start()
    rig.controller.wait_managed(*guests)
    took = time.monotonic() - begun
    taken_over = rig.observer.latest()
    for guest in guests:
        assert abs(taken_over.guests[guest.name].actual - later.guests[guest.name].actual) <= 300 * MIB
        uuid = rig.controller.vm(guest)["uuid"]
        first = rig.controller.wait_sent("SetTarget", vm=uuid)[0].data["target_bytes"]
        held = later.guests[guest.name]
        # What the host's khugepaged has filled in is not taken away unheard, either.
        most = max(held.actual, held.resident) + MIB
        assert held.actual - MIB <= first <= most, f"{guest.name}: first target := actual"
    return took
