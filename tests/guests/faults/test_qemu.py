"""Faults of QEMU and of libvirtd."""

import os
import signal
import time

import pytest

from host_controller.units import MIB
from lab.controller import Limits
from tests.guests.conftest import RigFactory
from tests.guests.faults.conftest import CAPACITY, FaultFactory, make_ward
from tests.guests.faults.ward import Ward

TINY, OVERHEAD = Limits(startup=64, minimum=32, maximum=64), 64
"""MiB: guests that are only there to be stopped."""


@pytest.fixture(scope="module")
def ward(make_shared_rig: RigFactory) -> Ward:
    """The neighbour has swap: while libvirtd is away nobody can give it memory."""
    room = 6 * (TINY.startup + OVERHEAD)
    rig = make_shared_rig(CAPACITY + room, shrink_after=2, keep_ready=32, overhead_floor=OVERHEAD)
    return make_ward(rig, neighbour_swap=512)


def test_a_qemu_that_is_stopped_holds_up_nobody(ward: Ward, survive: FaultFactory) -> None:
    with survive(
        ward, "QEMU SIGSTOP for 20 s", "charged as before or more while nothing is known of it"
    ) as fault:
        charge = ward.vm()["charge_bytes"]
        pid = ward.victim.qemu_pid()
        with fault.on():
            os.kill(pid, signal.SIGSTOP)
            try:
                for _ in range(10):
                    ward.rig.observer.lasts(2)
                    assert ward.vm()["charge_bytes"] >= charge - MIB
            finally:
                os.kill(pid, signal.SIGCONT)
        fault.saw(f"charge {charge / MIB:.0f} → {ward.vm()['charge_bytes'] / MIB:.0f} MiB")


def test_a_qemu_that_is_killed_is_forgotten(ward: Ward, survive: FaultFactory) -> None:
    with (
        survive(
            ward, "QEMU SIGKILL", "its charge is free at once; started again it is managed as before"
        ) as fault,
        fault.on(),
    ):
        ward.victim.workload.close()
        begun = time.monotonic()
        os.kill(ward.victim.qemu_pid(), signal.SIGKILL)
        ward.controller.wait_for(
            lambda status: all(vm["name"] != "victim" for vm in status["vms"]), 60, "known to be gone"
        )
        fault.saw(f"gone after {time.monotonic() - begun:.1f} s")
        ward.rig.start(ward.victim)


@pytest.mark.representative
def test_a_libvirtd_that_is_restarted_is_found_again(ward: Ward, survive: FaultFactory) -> None:
    with (
        survive(
            ward, "libvirtd restarted", "missed, waited for, and all VMs taken over", service_down=True
        ) as fault,
        fault.on(),
    ):
        ward.rig.lab.session.stop()
        ward.controller.wait_for(lambda status: not status["host"]["connected"], 60, "missed")
        ward.rig.lab.session.start()


def test_a_libvirtd_that_is_away_for_30_seconds(ward: Ward, survive: FaultFactory) -> None:
    asserted = (
        "a guest that grows meanwhile lives on its swap; no size changes without a controller that sees it"
    )
    with survive(ward, "libvirtd stopped for 30 s", asserted, service_down=True) as fault, fault.on():
        ward.rig.lab.session.stop()
        ward.controller.wait_for(lambda status: not status["host"]["connected"], 60, "missed")
        ward.rig.observer.lasts(30)
        ward.rig.lab.session.start()


def test_six_stopped_qemus_hold_up_no_healthy_guest(ward: Ward, survive: FaultFactory) -> None:
    asserted = "libvirtd serves five requests of a connection at a time; the others are served nevertheless"
    six = [ward.rig.define(f"stopped{number}", TINY) for number in range(6)]
    with survive(ward, "six QEMUs stopped at once beside a healthy guest", asserted) as fault:
        for guest in six:
            # Before its kernel has booted: it costs no time of the processor.
            guest.start()
            ward.rig.observer.start(guest)
            ward.controller.wait_vm(guest, lambda vm: vm["phase"] == "starting", 60, "known")
            os.kill(guest.qemu_pid(), signal.SIGSTOP)
        with fault.on():
            ward.rig.observer.lasts(10)
            for guest in six:
                guest.remove()
