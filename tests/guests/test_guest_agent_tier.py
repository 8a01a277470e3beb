"""Without our agent a guest is read through its QEMU guest agent: at a pace, and never in anybody's way."""

import itertools
import time

import libvirt
import pytest

from lab.controller import dynmem
from lab.domain import AGENT, GuestSpec
from lab.guest import Guest
from lab.migration import Migration
from tests.guests import guest_agents
from tests.guests.conftest import Rig, RigFactory

CAPACITY = 1100
PACE = 10.0
"""Seconds between two readings, at the least."""
CHANGEOVER = 90.0
"""A witness is believed for a minute after its last word."""


def wait_witness(rig: Rig, guest: Guest, witness: str, limit: float = CHANGEOVER) -> None:
    rig.controller.wait_vm(guest, lambda vm: vm["witness"] == witness, limit, f"told by: {witness}")


def readings(rig: Rig) -> list[float]:
    return rig.controller.heard("GuestRead")


def none_for(rig: Rig, paces: float) -> bool:
    """Whether nothing is read for so long. The recording is written out every second."""
    until = time.monotonic() + paces * PACE
    rig.controller.wait_for(lambda _: time.monotonic() > until + 1.0, paces * PACE + 30, "time has passed")
    return not [at for at in readings(rig) if until - paces * PACE < at <= until]


@pytest.mark.faults  # its pace is ten seconds
def test_a_guest_is_read_at_a_pace_and_never_during_a_backup_or_a_job_and_it_changes_over_both_ways(
    make_rig: RigFactory,
) -> None:
    rig = make_rig(CAPACITY, shrink_after=1)
    guest = rig.lab.guest(GuestSpec("read", agent=None), rig.session)
    rig.guests["read"] = guest
    guest.redefine(guest.xml.replace("<memballoon", f"{guest_agents.CHANNEL}<memballoon"))
    rig.start(guest)
    guest_agents.listen(guest)
    to = ("--connect", rig.session.uri, "--config", str(rig.controller.config))
    done = dynmem("adopt", "read", "--minimum", "160M", *to)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[libvirt] guest_agent = false" in done.stdout, "that it will be tainted is said before"
    wait_witness(rig, guest, "guest agent")
    rig.controller.wait_for(lambda _: len(readings(rig)) >= 4, 60, "four readings")
    seen = readings(rig)
    gaps = [later - sooner for sooner, later in itertools.pairwise(seen)]
    print(f"\nread every {min(gaps):.1f} to {max(gaps):.1f} s")
    assert min(gaps) >= PACE - 0.5
    shown = dynmem("status", "--socket", rig.controller.client.path).stdout
    assert "guest agent" in shown

    left_alone_during_a_migration(rig, guest)
    out_of_the_way_of_a_backup(rig, guest)

    guest_agents.end(guest)
    wait_witness(rig, guest, "statistics")
    guest_agents.listen(guest)
    wait_witness(rig, guest, "guest agent")
    guest.workload.start_agent(AGENT)
    wait_witness(rig, guest, "agent", 60)
    assert none_for(rig, 2), "our agent speaks"
    guest.workload.signal_agent(respawn=False)
    wait_witness(rig, guest, "guest agent")
    assert guest.workload.memory().vmstat["oom_kill"] == 0
    rig.assert_within()


def left_alone_during_a_migration(rig: Rig, guest: Guest) -> None:
    migration = Migration(guest, rig.lab.new_session(), mib_per_second=1)
    rig.controller.wait_vm(guest, lambda vm: vm["job"] is not None, 60, "a job is seen")
    assert none_for(rig, 2.5)
    migration.cancel()
    migration.wait(60)
    assert migration.error, "it was called off"
    before = len(readings(rig))
    rig.controller.wait_for(lambda _: len(readings(rig)) > before, 60, "read again")


def out_of_the_way_of_a_backup(rig: Rig, guest: Guest) -> None:
    """Frozen file systems: the guest agent serves nobody but whoever froze them, and they wait for nobody."""
    domain: libvirt.virDomain = guest.domain()
    assert domain.fsFreeze() > 0
    try:
        wait_witness(rig, guest, "statistics")
        begun = time.monotonic()
    finally:
        domain.fsThaw()
    took = time.monotonic() - begun
    print(f"thawed in {took:.1f} s")
    assert took < 5.0
    wait_witness(rig, guest, "guest agent", 2 * CHANGEOVER)
