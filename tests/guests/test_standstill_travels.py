"""A VM that its host has stopped after a reset is moved or saved by somebody else: it runs again."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt
import pytest

from host_controller.domain_xml.ours import NAMESPACE as LIMITS_OF_OURS
from host_controller.domain_xml.ours import PREFIX
from host_controller.domain_xml.standing import NAMESPACE
from host_controller.units import MIB
from lab.controller import Limits
from lab.guest import Guest
from lab.lab import Lab
from lab.migration import Migration
from tests.guests.conftest import Hosts, Rig, RigFactory
from tests.support.starts import HOOK, xml

CAPACITY = 1400
LIMITS = Limits(startup=512, minimum=160, maximum=1024)
RESET_WAIT = 120.0
"""Longer than the test: nobody lets it run but for room."""


@pytest.fixture(scope="module")
def hosts(lab: Lab, make_shared_rig: RigFactory) -> Iterator[Hosts]:
    here, there = (
        make_shared_rig(CAPACITY, lab.new_session(), shrink_after=3, settle=1, reset_wait=RESET_WAIT)
        for _ in range(2)
    )
    hosts = Hosts(here, there, here.add("mover", LIMITS))
    yield hosts
    hosts.guest.remove()


def ask(rig: Rig, moment: str, mib: int = 512) -> None:
    """As libvirt does for a VM `other`, which is about to start or is not."""
    socket = str(rig.controller.directory / "run" / "control.sock")
    arguments = ("--config", str(rig.controller.config), "--socket", socket, "other", *moment.split(), "-")
    subprocess.run(
        [sys.executable, "-I", "-S", str(HOOK), *arguments], input=xml("other", mib * MIB), check=True
    )


@contextmanager
def no_room(rig: Rig, guest: Guest) -> Iterator[None]:
    """What the squeezed guest has given back is promised to another VM."""
    rig.controller.wait_vm(guest, lambda vm: vm["phase"] == "live" and vm["agent"] is not None, 60, "live")
    rig.controller.wait_vm(guest, lambda vm: vm["actual_bytes"] < 300 * MIB, 60, "squeezed")
    rig.controller.wait_at_rest(guest)
    free = rig.controller.status()["host"]["headroom_bytes"] // MIB
    ask(rig, "prepare begin", free - 192)
    yield
    ask(rig, "release end")


def stands_still(rig: Rig, guest: Guest) -> str:
    """It was reset, and is stopped; its boot id before that."""
    boot_id = guest.workload.boot_id()
    guest.reset()
    rig.controller.wait_vm(guest, lambda vm: vm["state"] == "paused", 60, "stopped")
    rig.controller.wait_for(lambda _: NAMESPACE in guest.domain().XMLDesc(0), 10, "marked")
    return boot_id


def runs_on(rig: Rig, guest: Guest, boot_id: str) -> None:
    """It boots, and is as any other VM here."""
    since = time.monotonic()
    rig.observer.start(guest)
    rig.controller.wait_vm(guest, lambda vm: vm["state"] == "running", 60, "let run")
    print(f"\nlet run {time.monotonic() - since:.1f} s after it came")
    guest.wait_booted()
    assert guest.workload.boot_id() != boot_id
    rig.controller.wait_for(lambda _: NAMESPACE not in guest.domain().XMLDesc(0), 10, "not marked")
    vm = rig.controller.wait_vm(guest, lambda vm: vm["phase"] == "live", 60, "live")
    assert vm["standstill"] is None


def test_it_is_let_run_by_the_controller_of_the_host_that_it_is_migrated_to(hosts: Hosts) -> None:
    here, there, guest = hosts.here, hosts.there, hosts.guest
    with no_room(here, guest):
        boot_id = stands_still(here, guest)
        migration = Migration(guest, there.session)
        migration.wait(60)
        assert migration.error == ""
        hosts.guest = migration.arrived
        runs_on(there, hosts.guest, boot_id)
        here.controller.wait_for(lambda status: not status["vms"], 60, "it is gone from here")


def test_it_is_let_run_by_the_controller_where_it_is_restored(hosts: Hosts) -> None:
    there, guest = hosts.there, hosts.guest
    file = str(guest.place / "saved")
    with no_room(there, guest):
        boot_id = stands_still(there, guest)
        guest.domain().save(file)
        guest.workload.close()
        there.controller.wait_for(lambda status: not status["vms"], 60, "it costs nothing")
    there.session.connection().restore(file)
    runs_on(there, guest, boot_id)


def test_it_is_let_run_when_it_is_not_managed_any_longer(hosts: Hosts) -> None:
    there, guest = hosts.there, hosts.guest
    with no_room(there, guest):
        boot_id = stands_still(there, guest)
        live = libvirt.VIR_DOMAIN_AFFECT_LIVE
        guest.domain().setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, PREFIX, LIMITS_OF_OURS, live)
        guest.wait_booted()
    assert guest.workload.boot_id() != boot_id
    assert NAMESPACE not in guest.domain().XMLDesc(0)
    assert not there.controller.status()["vms"]
