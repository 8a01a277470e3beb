"""A guest without an agent is served by its balloon's statistics: more slowly, with wider margins."""

from host_controller.units import MIB
from lab.controller import Limits
from tests.guests.conftest import RigFactory

CAPACITY = 1100


def test_an_agentless_guest_is_squeezed_and_grown_within_its_ram(make_rig: RigFactory) -> None:
    rig = make_rig(CAPACITY)
    guest = rig.define("mute", Limits(maximum=512), agent=None)
    rig.start(guest)
    small = rig.controller.wait_vm(
        guest,
        lambda vm: vm["phase"] == "live" and vm["assigned_bytes"] < 400 * MIB,
        60,
        "squeezed by what its balloon says",
    )
    assert small["agent"] is None
    rig.controller.wait_at_rest(guest)
    before = rig.controller.vm(guest)["assigned_bytes"]
    assert guest.workload.memory().available_bytes > 24 * MIB
    guest.workload.allocate(150, rate=15)
    guest.workload.wait_event("done", "memory", 60)
    grown = rig.controller.wait_vm(
        guest, lambda vm: vm["assigned_bytes"] > before + 100 * MIB, 60, "grown by what its balloon says"
    )
    print(f"\nwithout an agent: 512 → {before / MIB:.0f} → {grown['assigned_bytes'] / MIB:.0f} MiB")
    assert guest.workload.memory().vmstat["oom_kill"] == 0
    rig.assert_within()
