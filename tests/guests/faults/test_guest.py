"""Faults of the guest's kernel: it dies, hangs, is reset at the worst moment, or runs out of memory."""

import time
from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from host_controller.hypervisor.libvirt_calls import dimm_xml
from host_controller.units import MIB
from tests.guests.faults.conftest import FaultFactory
from tests.guests.faults.ward import Ward

SPIN = (
    "echo -1 > /proc/sys/kernel/sched_rt_runtime_us; "
    "(sleep 0.2; exec chrt -f 99 python3 -c 'while True: pass') > /dev/null 2>&1 &"
)

DIMM = 128 * MIB

SWAP_ON = "fallocate -l 256M /swapfile && chmod 600 /swapfile && mkswap -q /swapfile && swapon /swapfile"


def reboot(ward: Ward) -> None:
    """Reset the victim and wait until it has booted."""
    ward.victim.reset()
    ward.victim.wait_booted()


def wait_hung(ward: Ward) -> dict[str, Any]:
    """Until the controller knows that nothing is heard of the victim, and charges all of its RAM."""
    return ward.controller.wait_vm(
        ward.victim,
        lambda vm: vm["phase"] == "hung" and vm["charge_bytes"] >= vm["ram_bytes"],
        60,
        "hung, and charged all of its RAM",
    )


def test_a_panicked_kernel_is_noticed_and_charged(ward: Ward, survive: FaultFactory) -> None:
    with (
        survive(
            ward, "guest kernel panic", "known to hang, charged all of its RAM until it is reset"
        ) as fault,
        fault.on(),
    ):
        ward.victim.workload.crash()
        vm = wait_hung(ward)
        fault.saw(f"charge {vm['charge_bytes'] / MIB:.0f} of RAM {vm['ram_bytes'] / MIB:.0f} MiB")
        reboot(ward)


def test_a_guest_that_spins_without_an_agent_is_noticed_and_charged(
    ward: Ward, survive: FaultFactory
) -> None:
    with (
        survive(
            ward, "guest hung, vCPU at 100 %, no agent", "known to hang, charged all of its RAM"
        ) as fault,
        fault.on(),
    ):
        ward.victim.workload.exec(SPIN)
        vm = wait_hung(ward)
        fault.saw(f"charge {vm['charge_bytes'] / MIB:.0f} of RAM {vm['ram_bytes'] / MIB:.0f} MiB")
        reboot(ward)


def in_operation(word: str) -> Callable[[dict[str, Any]], bool]:
    """A VM in the middle of an operation."""
    return lambda vm: vm["operation"] is not None and word in vm["operation"]


def test_a_reset_in_the_middle_of_a_hot_add(ward: Ward, survive: FaultFactory) -> None:
    asserted = "charged all of its RAM; the DIMM that survives is taken out; it comes back at startup"
    with survive(ward, "guest reset in the middle of a hot add", asserted) as fault:
        workload = ward.victim.workload
        workload.allocate(450, rate=60)
        vm = ward.controller.wait_vm(ward.victim, in_operation("hot add"), 60, "a hot add under way")
        with fault.on():
            fault.saw(vm["operation"])
            reboot(ward)
            begun = time.monotonic()
            ward.controller.wait_vm(ward.victim, lambda vm: vm["dimms"] == 0, 60, "without DIMMs")
            fault.saw(f"without DIMMs {time.monotonic() - begun:.0f} s after its boot")


def test_a_dimm_that_comes_while_the_firmware_runs(ward: Ward, survive: FaultFactory) -> None:
    asserted = "taken out within 30 s, though the guest's firmware takes the first request for the plug"
    with survive(ward, "guest reset just before its DIMM comes", asserted) as fault, fault.on():
        ward.victim.reset()
        begun = time.monotonic()
        # What a hot add does that was under way; too short a moment to hit from outside.
        ward.victim.domain().attachDeviceFlags(dimm_xml(DIMM), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        ward.controller.wait_vm(ward.victim, lambda vm: vm["dimms"] == 1, 60, "with a DIMM")
        ward.victim.wait_booted()
        ward.controller.wait_vm(ward.victim, lambda vm: vm["dimms"] == 0, 60, "without DIMMs")
        fault.saw(f"without DIMMs {time.monotonic() - begun:.0f} s after the reset")


def test_a_reset_in_the_middle_of_an_unplug(ward: Ward, survive: FaultFactory) -> None:
    asserted = "charged all of its RAM; the DIMM that survives is taken out; it comes back at startup"
    with survive(ward, "guest reset in the middle of an unplug", asserted) as fault:
        ward.grow()
        ward.controller.wait_vm(ward.victim, lambda vm: vm["dimms"] > 0, 60, "grown by a DIMM")
        ward.victim.workload.free()
        vm = ward.controller.wait_vm(ward.victim, in_operation("unplug"), 90, "an unplug under way")
        with fault.on():
            fault.saw(vm["operation"])
            reboot(ward)
            ward.controller.wait_vm(ward.victim, lambda vm: vm["dimms"] == 0, 60, "without DIMMs")


def test_a_reset_in_the_middle_of_an_inflate(ward: Ward, survive: FaultFactory) -> None:
    asserted = "charged all of its RAM until its new driver is seen alive"
    with survive(ward, "guest reset in the middle of an inflate", asserted) as fault:
        ward.grow(230)
        ward.victim.workload.free()
        vm = ward.controller.wait_vm(
            ward.victim, lambda vm: vm["actual_bytes"] > vm["target_bytes"] + 8 * MIB, 60, "inflating"
        )
        with fault.on():
            fault.saw(f"at {vm['actual_bytes'] / MIB:.0f}, target {vm['target_bytes'] / MIB:.0f} MiB")
            ward.victim.reset()
            starting = ward.controller.wait_vm(
                ward.victim, lambda vm: vm["phase"] == "starting", 60, "known to boot"
            )
            assert starting["charge_bytes"] >= starting["ram_bytes"]
            ward.victim.wait_booted()


def test_a_guest_that_reboots_for_ever(ward: Ward, survive: FaultFactory) -> None:
    asserted = "charged all of its RAM until its driver is up"
    with survive(ward, "guest reboot loop", asserted) as fault:
        booting = 0
        with fault.on():
            for _ in range(5):
                ward.victim.reset()
                ward.rig.observer.lasts(1.5)
                vm = ward.vm()
                booting += vm["phase"] == "starting"
                assert vm["phase"] == "live" or vm["charge_bytes"] >= vm["ram_bytes"], vm
            ward.victim.wait_booted()
        assert booting, "none was caught in mid-boot"
        fault.saw(f"5 resets, 1.5 s apart, {booting} of them in mid-boot")


def test_a_guest_that_runs_out_of_memory_while_it_is_shrunk(ward: Ward, survive: FaultFactory) -> None:
    asserted = "shrinking ends at once, it grows to its maximum; only there its kernel kills the program"
    maximum = 1024 * MIB
    with survive(ward, "guest out of memory while shrinking", asserted, may_kill=True) as fault:
        ward.grow(230)
        ward.victim.workload.free()
        ward.controller.wait_vm(
            ward.victim, lambda vm: vm["actual_bytes"] > vm["target_bytes"] + 8 * MIB, 60, "inflating"
        )
        with fault.on():
            ward.victim.workload.allocate(1500, rate=60, name="greedy", greedy=True)
            ended = ward.victim.workload.wait_event("ended", "greedy", 120)
            reached = max(
                sample.guests["victim"].actual
                for sample in ward.rig.observer.samples
                if ended.received - 5 <= sample.at <= ended.received
            )
            fault.saw(f"killed at {reached / MIB:.0f} of {maximum / MIB:.0f} MiB, status {ended.status}")
        assert ended.status == -9
        assert reached == maximum


def test_an_allocation_as_fast_as_it_goes(ward: Ward, survive: FaultFactory) -> None:
    asserted = "a squeezed guest with 256 MiB of swap gets all that it asks for, and kills nothing"
    with survive(ward, "an allocation of 1 GiB/s (as fast as the guest can touch)", asserted) as fault:
        # Its buffer is gone before its agent looks again: README, limits.
        ward.victim.workload.exec(SWAP_ON)
        with fault.on():
            begun = time.monotonic()
            ward.victim.workload.allocate(600, name="burst", swaps=True)
            done = ward.victim.workload.wait_event("done", "burst", 90)
            fault.saw(f"600 MiB at {600 / (done.received - begun):.0f} MiB/s")
        ward.victim.workload.free()
    ward.victim.workload.exec("swapoff /swapfile && rm /swapfile")


@pytest.mark.parametrize("hours", [1, -1])
def test_a_guest_whose_clock_is_stepped(ward: Ward, survive: FaultFactory, hours: int) -> None:
    with survive(
        ward, f"the guest's clock stepped by {hours:+d} h", "its reports go on to be believed"
    ) as fault:
        before = ward.vm()["ignored"]
        with fault.on():
            ward.victim.workload.exec(f"date -s '{hours:+d} hour'")
            ward.rig.observer.lasts(6)
            ward.controller.wait_vm(ward.victim, lambda vm: vm["report_age_seconds"] < 6, 60, "heard")
            assert ward.vm()["ignored"] == before
