"""Reset, kexec, sleep and shutdown of real guests: without room for all of its RAM a VM stands still.

`web` is idle and squeezed; `db` grows into what that leaves, so that not all of web's RAM fits beside it.
"""

import time
from collections.abc import Iterator
from typing import Any

import libvirt
import pytest

from host_controller.units import MIB
from host_controller.verify.observer import ObservedEvent, describe
from lab.controller import Limits
from lab.guest import Guest
from tests.guests.conftest import Rig, RigFactory
from tests.guests.faults.books import Books

CAPACITY = 1400
RESET_WAIT = 12.0
LIMIT = 20.0
"""Seconds beyond that, for a busy machine: it ends a test that hangs, and is no figure."""
LIMITS = Limits(startup=512, minimum=160, maximum=1024)
NOISE = 16 * MIB
"""QEMU's own memory moves."""
KEXEC_SHORT = 128 * MIB
"""What a guest may take by a kexec before anybody looks: the host's reserve is for that."""
KEXEC_ROOM_MIB = 150
"""Makes a squeezed guest so large that it may load another kernel: into no more than half of what it has."""
STANDS_STILL_WITHIN = 2.0
"""Seconds from the reset until the vCPUs stand still, at most; TCG and a busy machine included."""


@pytest.fixture(scope="module")
def rig(make_shared_rig: RigFactory) -> Rig:
    rig = make_shared_rig(CAPACITY, reset_wait=RESET_WAIT, keep_ready=0)
    guests = [rig.define(name, LIMITS) for name in ("web", "db")]
    rig.start(*guests)
    rig.controller.wait_managed(*guests)
    return rig


@pytest.fixture
def books(rig: Rig) -> Iterator[Books]:
    """Every sample is within capacity, or in an overdraft that the controller recorded."""
    books, begun = Books(rig.controller), time.monotonic()
    books.look()
    yield books
    books.look()
    unrecorded = books.unrecorded(one for one in rig.observer.samples if one.at >= begun)
    assert not unrecorded, "\n".join(describe(one) for one in unrecorded[:5]) + rig.controller.log_tail()


def crowd_out(rig: Rig, mib: int) -> tuple[Guest, Guest]:
    """web squeezed, db at work with so much memory; both at rest."""
    web, db = rig.guests["web"], rig.guests["db"]
    for guest in (web, db):
        guest.workload.free()
    rig.controller.wait_vm(web, lambda vm: vm["phase"] == "live" and vm["agent"] is not None, 60, "live")
    db.workload.allocate(mib, rate=60)
    db.workload.wait_event("done", "memory", 60)
    rig.controller.wait_vm(web, lambda vm: vm["actual_bytes"] < 300 * MIB, 90, "squeezed")
    rig.controller.wait_at_rest(web, db, limit=60)
    return web, db


def reset_without_room(rig: Rig, mib: int) -> tuple[Guest, Guest, float, ObservedEvent]:
    """As `crowd_out`, then web is reset: with the time of that, and of its standing still."""
    web, db = crowd_out(rig, mib)
    since = time.monotonic()
    web.reset()
    return web, db, since, rig.observer.wait_event(web, "STOP", STANDS_STILL_WITHIN, since)


def overdrafts(rig: Rig, since: float) -> list[str]:
    """What the controller has said about overdrafts since a moment of CLOCK_MONOTONIC."""
    wall = since - time.monotonic() + time.time()
    entries = rig.controller.client.follow("events", after=0)
    return [one["text"] for one in entries if one["topic"] == "overdraft" and one["at"] >= wall]


def test_a_reset_without_room_stands_still_until_the_others_have_made_it(rig: Rig, books: Books) -> None:
    web, db = crowd_out(rig, 450)
    boot_id = web.workload.boot_id()
    db.workload.free()
    since = time.monotonic()
    web.reset()
    stopped = rig.observer.wait_event(web, "STOP", STANDS_STILL_WITHIN, since)
    still = rig.controller.wait_vm(web, lambda vm: vm["state"] == "paused", 60, "known to stand still")
    assert "stands still" in still["standstill"]
    assert still["charge_bytes"] >= 512 * MIB
    assert rig.controller.status()["host"]["overdraft"] is None, "what stands still takes nothing"
    resumed = rig.observer.wait_event(web, "RESUME", RESET_WAIT + LIMIT, since)
    headroom = rig.controller.status()["host"]["headroom_bytes"]
    assert headroom >= -NOISE, "there is room for all of its RAM"
    print(f"\nstood still {stopped.at - since:.2f} s after the reset, for {resumed.at - stopped.at:.1f} s")
    web.wait_booted()
    assert web.workload.boot_id() != boot_id
    live = rig.controller.wait_vm(web, lambda vm: vm["phase"] == "live", 60, "live again")
    assert live["standstill"] is None
    told = overdrafts(rig, since)
    print(f"overdrafts: {told}")
    assert not [text for text in told if "web runs on" in text], "the room was made, not waited for in vain"


@pytest.mark.faults
def test_what_cannot_be_found_in_time_is_a_recorded_overdraft_that_ends(rig: Rig, books: Books) -> None:
    web, db, since, stopped = reset_without_room(rig, 600)
    resumed = rig.observer.wait_event(web, "RESUME", RESET_WAIT + LIMIT, since)
    print(f"\nstood still for {resumed.at - stopped.at:.1f} s")
    assert resumed.at - since >= RESET_WAIT - 1, "it is not let run sooner"
    overdraft = rig.controller.wait_for(lambda s: s["host"]["overdraft"] is not None, 60, "an overdraft")
    found = overdraft["host"]["overdraft"]
    assert found["cause"].startswith("web runs on")
    assert found["bytes_peak"] > 30 * MIB
    db.workload.free()
    rig.controller.wait_for(lambda status: status["host"]["overdraft"] is None, 60, "worked off")
    web.wait_booted()
    said = overdrafts(rig, since)
    print(said)
    assert said[-1].startswith("overdraft ended after")


@pytest.mark.faults
def test_the_heir_of_a_killed_controller_lets_it_run(rig: Rig, books: Books) -> None:
    web, _, since, stopped = reset_without_room(rig, 600)
    rig.controller.wait_vm(web, lambda vm: vm["state"] == "paused", 60, "known to stand still")
    books.look()  # its journal goes with it
    rig.controller.kill()
    rig.controller.start()
    resumed = rig.observer.wait_event(web, "RESUME", RESET_WAIT + LIMIT, since)
    print(f"\nstood still for {resumed.at - stopped.at:.1f} s, over two controllers")
    web.wait_booted()
    rig.guests["db"].workload.free()
    rig.controller.wait_managed(*rig.guests.values())


@pytest.mark.faults
def test_a_guest_that_its_user_has_paused_stays_paused(rig: Rig) -> None:
    """Also one that we had stopped, that its user let run and paused again while no controller was there."""
    web, db, _, _ = reset_without_room(rig, 600)
    rig.controller.wait_vm(web, lambda vm: vm["state"] == "paused", 60, "known to stand still")
    rig.controller.kill()
    web.domain().resume()
    web.wait_booted()
    web.domain().suspend()
    rig.controller.start()
    seen = rig.controller.wait_vm(web, lambda vm: vm["state"] == "paused", 60, "found")
    assert seen["standstill"] is None
    end = time.monotonic() + RESET_WAIT + 2
    while time.monotonic() < end:
        assert web.domain().state()[0] == libvirt.VIR_DOMAIN_PAUSED
        time.sleep(0.5)
    web.domain().resume()
    db.workload.free()
    rig.controller.wait_managed(web, db)


@pytest.mark.faults
def test_a_kexec_is_charged_with_what_it_touches_and_what_its_new_driver_says(rig: Rig, books: Books) -> None:
    web = rig.guests["web"]
    web.workload.allocate(KEXEC_ROOM_MIB, rate=60)
    web.workload.wait_event("done", "memory", 60)
    web.workload.load_kexec()
    crowd_out(rig, 100)
    boot_id = web.workload.boot_id()
    short = []

    def driver_is_up(vm: dict[str, Any]) -> bool:
        seen = rig.observer.latest().guests["web"]
        short.append(seen.resident + seen.overhead - vm["charge_bytes"])
        return bool(vm["actual_bytes"] > 450 * MIB)

    begun = time.monotonic()
    web.workload.kexec()
    up = rig.controller.wait_vm(web, driver_is_up, 60, "given all of its memory back by its new driver")
    print(
        f"\ndriver up after {time.monotonic() - begun:.1f} s, charge {up['charge_bytes'] / MIB:.0f} MiB; "
        f"until then the charge was at most {max(short) / MIB:.0f} MiB below what the guest held"
    )
    assert up["charge_bytes"] >= up["actual_bytes"]
    assert max(short) <= KEXEC_SHORT
    web.wait_booted()
    assert web.workload.boot_id() != boot_id
    rig.controller.wait_vm(
        web, lambda vm: vm["phase"] == "live" and vm["agent"] is not None, 60, "heard again"
    )
    rig.controller.wait_vm(web, lambda vm: vm["actual_bytes"] < 300 * MIB, 90, "as small as before")
    assert web.workload.memory().vmstat["oom_kill"] == 0


@pytest.mark.faults
def test_sleep_to_ram_is_charged_with_what_the_driver_gives_back(rig: Rig, books: Books) -> None:
    web, _ = crowd_out(rig, 100)
    since = time.monotonic()
    small = rig.controller.vm(web)["actual_bytes"]
    web.workload.sleep_to_ram()
    rig.observer.wait_event(web, "SUSPEND", 60, since)
    asleep = rig.controller.wait_vm(web, lambda vm: vm["state"] == "paused", 60, "asleep")
    print(f"\nasleep: actual {small / MIB:.0f} → {asleep['actual_bytes'] / MIB:.0f} MiB, {asleep['phase']}")
    web.domain().pMWakeup()
    web.workload.wait_answering(30)
    rig.controller.wait_vm(web, lambda vm: vm["phase"] == "live" and vm["state"] == "running", 60, "awake")
    rig.controller.wait_vm(web, lambda vm: vm["actual_bytes"] < small + 64 * MIB, 90, "as small as before")


def test_a_shutdown_gives_everything_back_at_once(rig: Rig, books: Books) -> None:
    db = rig.guests["db"]
    before = rig.controller.status()["host"]
    charge = rig.controller.vm(db)["charge_bytes"]
    db.workload.power_off()
    after = rig.controller.wait_for(
        lambda status: all(vm["name"] != db.name for vm in status["vms"]), 15, f"{db.name} is gone"
    )["host"]
    assert before["charged_bytes"] - after["charged_bytes"] >= charge - 64 * MIB
