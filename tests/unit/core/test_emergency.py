"""When the host itself runs out."""

from host_controller.core.model import HostFacts
from host_controller.core.policy.emergency import STALL_PERCENT, SWAP_CALM_SECONDS, Emergency
from host_controller.units import GIB, MIB

RESERVE = 4 * GIB


def facts(
    available_bytes: int, *, at: float = 0.0, swap_bytes: int = 0, psi: float | None = None
) -> HostFacts:
    return HostFacts(at, 64 * GIB, available_bytes, swap_bytes, psi_some_percent=psi)


def test_it_begins_below_half_of_the_reserve_and_ends_above_three_quarters() -> None:
    emergency = Emergency()
    assert not emergency.observe(facts(2 * GIB), RESERVE)
    assert emergency.observe(facts(2 * GIB - 1), RESERVE)
    assert not emergency.observe(facts(3 * GIB - 1), RESERVE)
    assert emergency.cause is not None
    assert emergency.observe(facts(3 * GIB), RESERVE)
    assert emergency.cause is None


def test_pages_that_a_vm_loses_to_swap_are_one_and_pages_that_lie_there_are_none() -> None:
    emergency = Emergency()
    assert not emergency.observe(facts(8 * GIB, at=0.0, swap_bytes=100 * MIB), RESERVE)
    assert emergency.observe(facts(8 * GIB, at=1.0, swap_bytes=110 * MIB), RESERVE)
    assert not emergency.observe(facts(8 * GIB, at=30.0, swap_bytes=110 * MIB), RESERVE)
    assert emergency.observe(facts(8 * GIB, at=1.0 + SWAP_CALM_SECONDS, swap_bytes=110 * MIB), RESERVE)
