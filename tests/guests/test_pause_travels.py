"""A VM that its operator has paused is migrated: it is paused there, and its end there holds here, too."""

from collections.abc import Iterator

import pytest

from host_controller.domain_xml.held import NAMESPACE
from lab.controller import Limits, dynmem
from lab.lab import Lab
from lab.migration import Migration
from tests.guests.conftest import Hosts, Rig, RigFactory

CAPACITY = 1400


@pytest.fixture(scope="module")
def hosts(lab: Lab, make_shared_rig: RigFactory) -> Iterator[Hosts]:
    here, there = (make_shared_rig(CAPACITY, lab.new_session(), shrink_after=3, settle=1) for _ in range(2))
    hosts = Hosts(here, there, here.add("mover", Limits(startup=512, minimum=160, maximum=1024)))
    yield hosts
    hosts.guest.remove()


def say(rig: Rig, what: str, hosts: Hosts) -> None:
    socket = str(rig.controller.directory / "run" / "control.sock")
    done = dynmem(what, hosts.guest.name, "--socket", socket)
    assert done.returncode == 0, done.stderr
    marked = what == "pause"
    rig.controller.wait_for(
        lambda _: (NAMESPACE in hosts.guest.domain().XMLDesc(0)) is marked, 10, f"marked after {what}"
    )


def move(hosts: Hosts, source: Rig, destination: Rig, *, paused: bool) -> None:
    migration = Migration(hosts.guest, destination.session)
    migration.wait(60)
    assert migration.error == ""
    hosts.guest = migration.arrived
    source.controller.wait_for(lambda status: not status["vms"], 60, "it is gone from there")
    destination.controller.wait_vm(
        hosts.guest, lambda vm: vm["state"] == "running" and vm["job"] is None, 60, "arrived"
    )
    assert destination.controller.vm(hosts.guest)["paused"] is paused


def test_a_pause_goes_along_and_so_does_its_end(hosts: Hosts) -> None:
    here, there = hosts.here, hosts.there
    say(here, "pause", hosts)
    move(hosts, here, there, paused=True)
    there.controller.kill()
    there.controller.start()
    assert there.controller.wait_vm(hosts.guest, lambda vm: vm["state"] == "running", 60, "found")["paused"]
    say(there, "resume", hosts)
    move(hosts, there, here, paused=False)
    here.controller.wait_vm(hosts.guest, lambda vm: vm["actual_bytes"] < 400 << 20, 60, "squeezed again")
