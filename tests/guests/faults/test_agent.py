"""Faults of the agent."""

import signal
import time

import pytest

from host_controller.units import MIB
from tests.guests.faults.conftest import FaultFactory
from tests.guests.faults.ward import Ward

SLOW = 15
"""MiB/s: balloon statistics, which stand in for an agent, come once a second."""


@pytest.mark.representative
def test_an_agent_that_is_killed_is_missed_by_nobody(ward: Ward, survive: FaultFactory) -> None:
    workload = ward.victim.workload
    with (
        survive(
            ward, "agent killed", "the guest is grown by its balloon's statistics; the new agent is heard"
        ) as fault,
        fault.on(),
    ):
        workload.signal_agent(signal.SIGKILL, respawn=False)
        workload.allocate(100, rate=SLOW)
        workload.wait_event("done", "memory", 60)
        grown = ward.controller.wait_vm(
            ward.victim, lambda vm: vm["assigned_bytes"] >= vm["need_bytes"], 60, "grown without it"
        )
        fault.saw(f"grown to {grown['assigned_bytes'] / MIB:.0f} MiB without it")
        workload.start_agent()


def test_an_agent_that_is_stopped_is_replaced_by_statistics(ward: Ward, survive: FaultFactory) -> None:
    workload = ward.victim.workload
    with (
        survive(
            ward, "agent stopped (SIGSTOP)", "silence is noticed; balloon statistics stand in for it"
        ) as fault,
        fault.on(),
    ):
        begun = time.monotonic()
        workload.signal_agent(signal.SIGSTOP)
        ward.controller.wait_vm(ward.victim, lambda vm: vm["agent"] is None, 60, "its silence noticed")
        fault.saw(f"noticed after {time.monotonic() - begun:.0f} s")
        workload.allocate(100, rate=SLOW)
        workload.wait_event("done", "memory", 60)
        workload.signal_agent(signal.SIGCONT)


def test_an_agent_that_restarts_for_ever_costs_nobody_anything(ward: Ward, survive: FaultFactory) -> None:
    workload = ward.victim.workload
    restarts = 12
    with survive(
        ward, "agent restarted in a loop", "each new agent is greeted; the last one serves"
    ) as fault:
        with fault.on():
            pid = workload.agent().pid
            for _ in range(restarts):
                workload.signal_agent(signal.SIGKILL, respawn=True)
                pid = workload.wait_agent(20, other_than=pid)
        fault.saw(f"{restarts} restarts")


def test_a_second_agent_gets_no_port_and_disturbs_nobody(ward: Ward, survive: FaultFactory) -> None:
    workload = ward.victim.workload
    with survive(
        ward, "two agents on one port", "the kernel gives the port to one; the second waits and says so"
    ) as fault:
        with fault.on():
            said = workload.exec("timeout -s TERM 5 dynmem-agent run 2>&1; true", limit=20)
            assert ward.vm()["agent"] is not None, "the first agent goes on"
        fault.saw(f"the second said: {said.strip().splitlines()[-1][:80]}")
