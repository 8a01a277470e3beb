"""Releases that meet on a host of real guests: upgrade and downgrade while guests work, an older agent."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bench.replay.__main__ import ReplayError, unpack
from host_controller.units import MIB
from lab.code_disk import make_code_disk
from lab.controller import Limits, enable
from lab.domain import GuestSpec
from tests.guests.conftest import Rig, RigFactory
from tests.meetings.release import FIRST_RELEASE, PRESENT, Release

CAPACITY = 1500
LIMITS = Limits(maximum=768)
STIR_MIB = 8
"""What a balloon may be moved by without anybody having decided on it: pages that were under way."""


@dataclass
class Upgraded:
    """A host whose controller is of one release and then of another."""

    rig: Rig
    old: Release
    new: Release

    def runs(self, release: Release) -> None:
        """The next start is of this release."""
        self.rig.controller.program = (*release.program, "run")
        self.rig.controller.environment = release.environment


@pytest.fixture(scope="module")
def host(make_shared_rig: RigFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    """0.1.0 manages a guest with its own agent and one with the present's."""
    try:
        old = Release(unpack(FIRST_RELEASE, tmp_path_factory.mktemp("release") / "0.1.0"))
    except ReplayError as error:
        pytest.skip(f"0.1.0 is not in this clone: {error}")
    rig = make_shared_rig(CAPACITY)
    host = Upgraded(rig, old, Release(PRESENT))
    rig.controller.stop()
    host.runs(old)
    rig.controller.start()
    rig.guests["present"] = rig.define("present", LIMITS)
    code_disk = rig.lab.directory / "code-0.1.0.ext4"
    make_code_disk(code_disk, rig.lab.image.initrd, old.tree)
    rig.guests["older"] = rig.lab.guest(GuestSpec("older"), rig.session, code_disk)
    enable(rig.guests["older"], LIMITS)
    rig.start(*rig.guests.values())
    rig.controller.wait_managed(*rig.guests.values())
    yield host
    rig.assert_within()


@pytest.mark.figures
@pytest.mark.parametrize("step", ["upgrade", pytest.param("downgrade", marks=pytest.mark.faults)])
def test_a_controller_of_another_release_takes_over_under_load_and_nobody_jumps(
    host: Upgraded, step: str
) -> None:
    rig, release = host.rig, host.new if step == "upgrade" else host.old
    working, idle = (
        rig.guests[name] for name in (("older", "present") if step == "upgrade" else ("present", "older"))
    )
    rig.controller.wait_vm(
        idle, lambda vm: vm["assigned_bytes"] - (vm["desired_bytes"] or 0) < 64 * MIB, 60, "squeezed"
    )
    rig.controller.wait_at_rest(idle)
    working.workload.allocate(240, rate=12)
    rig.controller.wait_vm(working, lambda vm: vm["decision"] is not None, 60, "at work")
    host.runs(release)
    since = rig.observer.latest()
    left = time.monotonic()
    rig.controller.stop()
    rig.controller.start()
    without = time.monotonic() - left
    rig.controller.wait_managed(*rig.guests.values())
    working.workload.wait_event("done", "memory", 120)
    print(f"{step}: {without:.2f} s without a controller")
    seen = [sample for sample in rig.observer.samples if sample.at >= since.at]
    sizes = {name: [sample.guests[name].actual / MIB for sample in seen] for name in rig.guests}
    assert max(sizes[idle.name]) - min(sizes[idle.name]) <= STIR_MIB, sizes[idle.name]
    steps = [
        after - before for before, after in zip(sizes[working.name], sizes[working.name][1:], strict=False)
    ]
    assert min(steps) >= -STIR_MIB, "nobody that works is shrunk"
    rig.assert_within()
    working.workload.free()


def test_agents_of_both_releases_are_heard(host: Upgraded) -> None:
    """By whichever the story above has left in charge: the present, or 0.1.0 again."""
    versions = {
        vm["name"]: (vm["agent"]["version"], vm["phase"]) for vm in host.rig.controller.status()["vms"]
    }
    assert versions == {"older": ("0.1.0", "live"), "present": ("0.2.0", "live")}
