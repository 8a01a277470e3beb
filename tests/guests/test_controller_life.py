"""What becomes of guests when controllers die, start late, lose libvirt, or are not the only ones who act."""

import random
import time
from collections.abc import Iterator

import libvirt
import pytest

from host_controller.units import MIB
from lab.controller import Limits, dynmem
from tests.guests.conftest import Rig, RigFactory
from tests.guests.heirs import kill_and_inherit

CAPACITY = 1300


@pytest.fixture(scope="module")
def rig(make_shared_rig: RigFactory) -> Iterator[Rig]:
    rig = make_shared_rig(CAPACITY)
    # With swap, as nobody can give a guest memory while no controller runs.
    guests = [rig.define(name, Limits(maximum=1024), swap_mib=512) for name in ("giver", "taker")]
    rig.start(*guests)
    rig.controller.wait_managed(*guests)
    yield rig
    rig.assert_within()


@pytest.fixture(autouse=True)
def calm(rig: Rig) -> None:
    """Each test starts with idle guests at rest."""
    for guest in rig.guests.values():
        guest.workload.free()
        rig.controller.wait_vm(
            guest, lambda vm: vm["assigned_bytes"] - (vm["desired_bytes"] or 0) < 64 * MIB, 60, "small"
        )
    rig.controller.wait_at_rest(*rig.guests.values())


def test_a_controller_killed_in_mid_move_leaves_nobody_shrinking_and_its_heir_does_not_jump(
    rig: Rig,
) -> None:
    rng = random.Random(7)
    taker, giver = rig.guests["taker"], rig.guests["giver"]
    for _ in range(3):
        giver.workload.allocate(150, rate=50)
        giver.workload.wait_event("done", "memory", 60)
        rig.controller.wait_vm(giver, lambda vm: vm["assigned_bytes"] > 320 * MIB, 60, "grown")
        giver.workload.free()
        taker.workload.allocate(200, rate=50)
        after = time.monotonic() + rng.uniform(0.1, 6.0)
        rig.controller.wait_for(lambda _, until=after: time.monotonic() >= until, 60, "a random instant")
        kill_and_inherit(rig, taker, giver)
        taker.workload.wait_event("done", "memory", 60)
        taker.workload.free()


def test_a_controller_that_starts_late_takes_over_what_runs(rig: Rig) -> None:
    rig.controller.stop()
    sizes = {name: guest.actual for name, guest in rig.observer.latest().guests.items()}
    rig.controller.start()
    rig.controller.wait_managed(*rig.guests.values())
    for name, size in sizes.items():
        assert abs(rig.observer.latest().guests[name].actual - size) <= 64 * MIB


def test_a_second_controller_on_the_host_is_refused(rig: Rig) -> None:
    refused = dynmem("run", "--config", str(rig.controller.config), limit=60)
    assert refused.returncode != 0
    assert str(rig.controller.pid) in refused.stderr


def test_a_foreign_setmem_is_corrected_and_said(rig: Rig) -> None:
    giver = rig.guests["giver"]
    before = rig.controller.vm(giver)["actual_bytes"]
    giver.domain().setMemoryFlags((before + 120 * MIB) // 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    rig.controller.wait_vm(giver, lambda vm: vm["actual_bytes"] > before + 60 * MIB, 60, "seen")
    rig.controller.wait_vm(giver, lambda vm: vm["actual_bytes"] <= before + 24 * MIB, 60, "corrected")
    assert "without us" in rig.controller.log_tail(60)


def test_limits_that_are_changed_while_it_runs_are_adopted(rig: Rig) -> None:
    giver = rig.guests["giver"]
    changed = dynmem("set", "giver", "--minimum=150M", "--weight=250", "--connect", rig.lab.session.uri)
    assert changed.returncode == 0, changed.stderr
    rig.controller.wait_vm(giver, lambda vm: vm["limits"]["weight"] == 250, 60, "a weight of 250")
    assert rig.controller.vm(giver)["limits"]["minimum_bytes"] == 150 * MIB
