"""Without a configured capacity: what guests take is theirs, and what the host takes is the host's."""

import pytest

from lab.controller import MIB, Limits
from lab.guest import Guest
from tests.guests.conftest import Rig, RigFactory

NOISE = 160 * MIB
"""Of a machine on which other things run beside this test."""


@pytest.fixture
def rig(make_rig: RigFactory) -> Rig:
    rig = make_rig(1000)
    rig.controller.stop()
    text = rig.controller.config.read_text()
    rig.controller.config.write_text(text.replace('capacity = "1000MiB"', ""))
    rig.controller.start()
    return rig


def held(guest: Guest, rig: Rig) -> int:
    return int(rig.controller.vm(guest)["resident_bytes"])


def test_a_guest_that_grows_takes_nothing_from_the_hosts_own(rig: Rig) -> None:
    host = rig.controller.status()["host"]
    assert host["capacity_bound"] == "the host's memory less the reserve"
    assert host["capacity_bytes"] == host["ordinary_bytes"] - host["reserve_bytes"] - host["foreign_bytes"]
    guest = rig.add("grows", Limits(startup=256, minimum=160, maximum=1024))
    before = rig.controller.status()["host"]
    first = held(guest, rig)
    guest.workload.allocate(400, rate=100)
    guest.workload.wait_event("done", "memory", 60)
    rig.controller.wait_vm(guest, lambda vm: vm["resident_bytes"] > first + 300 * MIB, 20, "it holds more")
    after = rig.controller.status()["host"]
    assert after["others_bytes"] < before["others_bytes"] + NOISE
    assert after["foreign_bytes"] == before["foreign_bytes"] == 0
    guest.stop()
    gone = rig.controller.wait_for(lambda status: not status["vms"], 20, "it is gone")["host"]
    later = rig.controller.wait_for(
        lambda status: status["host"]["uptime_seconds"] > gone["uptime_seconds"] + 5, 20, "five seconds on"
    )["host"]
    assert later["others_bytes"] < before["others_bytes"] + NOISE, "a VM that ended is no use of others'"
    print(f"\nothers: {before['others_bytes'] / MIB:.0f} → {later['others_bytes'] / MIB:.0f} MiB")
