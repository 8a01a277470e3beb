"""When the host itself runs out."""

import pytest

from host_controller.core.model import HostFacts
from host_controller.core.policy.emergency import (
    STALL_END_PERCENT,
    STALL_PERCENT,
    SWAP_CALM_SECONDS,
    Emergency,
)
from host_controller.units import GIB, MIB

SPARE = 4 * GIB


def facts(
    available_bytes: int, *, at: float = 0.0, swap_bytes: int = 0, psi: float | None = None
) -> HostFacts:
    return HostFacts(at, 64 * GIB, available_bytes, swap_bytes, psi_some_percent=psi)


def test_it_begins_below_half_of_what_should_stay_available_and_ends_above_three_quarters() -> None:
    emergency = Emergency()
    assert not emergency.observe(facts(2 * GIB), SPARE)
    assert emergency.observe(facts(2 * GIB - 1), SPARE)
    assert not emergency.observe(facts(3 * GIB - 1), SPARE)
    assert emergency.cause is not None
    assert emergency.observe(facts(3 * GIB), SPARE)
    assert emergency.cause is None


def test_pages_that_a_vm_loses_to_swap_are_one_on_a_host_that_is_low_on_memory() -> None:
    emergency = Emergency()
    low = 5 * SPARE // 8
    assert not emergency.observe(facts(low, at=0.0, swap_bytes=100 * MIB), SPARE)
    assert emergency.observe(facts(low, at=1.0, swap_bytes=110 * MIB), SPARE)
    assert not emergency.observe(facts(low, at=30.0, swap_bytes=110 * MIB), SPARE)
    assert not emergency.observe(facts(low, at=1.0 + SWAP_CALM_SECONDS, swap_bytes=110 * MIB), SPARE)
    assert emergency.cause is not None, "it ends above three quarters, as any other"
    assert emergency.observe(facts(3 * GIB, at=70.0, swap_bytes=110 * MIB), SPARE)


def test_swap_that_leaves_the_host_memory_is_none() -> None:
    """A large VM boots: the host swaps for a moment, and then has gigabytes free."""
    emergency = Emergency()
    assert not emergency.observe(facts(8 * GIB, at=0.0, swap_bytes=0), SPARE)
    assert not emergency.observe(facts(8 * GIB, at=1.0, swap_bytes=2 * GIB), SPARE)
    assert emergency.cause is None


def test_a_host_without_a_spare_is_low_with_a_64th_of_its_memory() -> None:
    emergency = Emergency()
    assert not emergency.observe(facts(GIB // 2, at=0.0, swap_bytes=0), 0)
    assert emergency.observe(facts(GIB // 2, at=1.0, swap_bytes=2 * GIB), 0)


def test_it_says_why_and_since_when_and_keeps_to_its_first_reason() -> None:
    emergency = Emergency()
    emergency.observe(facts(GIB, at=5.0), SPARE)
    why = "only 1 GiB are available on the host, less than 50% of the 4 GiB that should stay so"
    assert (emergency.cause, emergency.since) == (why, 5.0)
    emergency.observe(facts(GIB, at=6.0, swap_bytes=100 * MIB), SPARE)
    assert (emergency.cause, emergency.since) == (why, 5.0)
    emergency.observe(facts(8 * GIB, at=100.0), SPARE)
    assert (emergency.cause, emergency.since) == (None, 100.0)


def test_the_first_reading_and_a_little_noise_are_no_swap_that_grows() -> None:
    emergency, low = Emergency(), 5 * GIB // 2  # of a spare of 4 GiB
    emergency.observe(facts(low, at=1.0, swap_bytes=500 * MIB), SPARE)
    assert not emergency.observe(facts(low, at=2.0, swap_bytes=501 * MIB), SPARE)
    assert emergency.observe(facts(low, at=3.0, swap_bytes=502 * MIB + 1), SPARE)
    assert emergency.cause == "the host is low on memory, and 502 MiB of VMs are in its swap"
    assert not emergency.observe(facts(low, at=3.0 + SWAP_CALM_SECONDS), SPARE), "it is low still"
    assert emergency.observe(facts(3 * GIB, at=4.0 + SWAP_CALM_SECONDS), SPARE)


def test_pages_that_a_vm_loses_are_one_where_tasks_wait_for_memory_and_not_much_is_available() -> None:
    emergency = Emergency()
    near = 2 * SPARE
    assert not emergency.observe(facts(near, psi=0.0), SPARE)
    assert not emergency.observe(facts(near, at=1.0, swap_bytes=100 * MIB, psi=STALL_PERCENT - 0.1), SPARE)
    assert emergency.observe(facts(near, at=2.0, swap_bytes=100 * MIB, psi=STALL_PERCENT), SPARE)
    assert emergency.cause == "the host waits for memory, and 100 MiB of VMs are in its swap"
    assert not emergency.observe(facts(near, at=3.0, swap_bytes=100 * MIB, psi=STALL_END_PERCENT), SPARE)
    assert emergency.observe(facts(near, at=4.0, swap_bytes=100 * MIB, psi=STALL_END_PERCENT - 0.1), SPARE)
    assert emergency.cause is None
    # Waiting alone is none: a container at its own limit waits on a host with memory to spare.
    calm = 2.0 + 2 * SWAP_CALM_SECONDS
    assert not emergency.observe(facts(near, at=calm, swap_bytes=100 * MIB, psi=90.0), SPARE)


@pytest.mark.parametrize("psi", [STALL_PERCENT, 76.0, 100.0])
@pytest.mark.parametrize("available", [2 * SPARE + 1, 40 * GIB])
def test_a_container_that_waits_beside_a_vm_that_is_swapped_is_none_with_memory_to_spare(
    available: int, psi: float
) -> None:
    emergency = Emergency()
    for second in range(0, 120, 10):
        swapped = second * MIB
        assert not emergency.observe(facts(available, at=second, swap_bytes=swapped, psi=psi), SPARE)
    assert emergency.cause is None


def test_a_kernel_without_psi_is_judged_by_what_is_available() -> None:
    emergency = Emergency()
    emergency.observe(facts(SPARE, psi=None), SPARE)
    assert not emergency.observe(facts(SPARE, at=1.0, swap_bytes=GIB, psi=None), SPARE)
    assert emergency.observe(facts(SPARE // 2, at=2.0, swap_bytes=2 * GIB, psi=None), SPARE)
