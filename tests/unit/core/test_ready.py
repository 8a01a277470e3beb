"""What is kept ready for bursts, and which differences are not worth a command."""

import pytest

from host_controller.core.policy.dead_band import grow_dead_band, shrink_dead_band
from host_controller.core.policy.ready import HALF_LIFE, Ready, budget_bytes
from host_controller.units import GIB, MIB


@pytest.mark.parametrize(
    ("there_is", "kept", "needed", "laid_out"),
    [
        (1000, 100, 500, 900),
        (1000, 100, 950, 950),  # what is kept yields to need
        (1000, 100, 2000, 1000),
        (50, 100, 0, 0),
        (0, 0, 0, 0),
    ],
)
def test_what_is_kept_ready_yields_to_whoever_lacks_what_it_needs(
    there_is: int, kept: int, needed: int, laid_out: int
) -> None:
    assert budget_bytes(there_is, kept, needed) == laid_out


def test_a_burst_is_remembered_with_a_half_life() -> None:
    ready = Ready()
    ready.observe(100.0 * MIB, 10.0)
    ready.observe(0.0, 10.0 + HALF_LIFE)
    assert ready.growth == pytest.approx(50 * MIB)
    ready.observe(0.0, 10.0 + 2 * HALF_LIFE)
    assert ready.growth == pytest.approx(25 * MIB)
    ready.observe(80.0 * MIB, 10.0 + 2 * HALF_LIFE)
    assert ready.growth == 80 * MIB
    ready.observe(0.0, 0.0)
    assert ready.growth == 80 * MIB, "a clock that goes back makes nothing larger"


@pytest.mark.parametrize(
    ("growth_mib", "kept_mib"), [(0, 16), (16, 16), (17, 17), (40, 40), (64, 64), (65, 64), (4000, 64)]
)
def test_a_second_of_growth_is_kept_between_a_64th_and_a_16th_of_the_capacity(
    growth_mib: int, kept_mib: int
) -> None:
    assert Ready(growth_mib * MIB).keep_bytes(GIB, None) == kept_mib * MIB


def test_the_operator_says_how_much_is_kept() -> None:
    assert Ready(4000.0 * MIB).keep_bytes(GIB, 0) == 0
    assert Ready().keep_bytes(GIB, 5 * MIB) == 5 * MIB


@pytest.mark.parametrize(
    ("usable_mib", "grow_mib", "shrink_mib"), [(256, 4, 16), (512, 4, 512 / 24), (1024, 8, 1024 / 24)]
)
def test_a_command_is_worth_a_share_and_no_less_than_a_least(
    usable_mib: int, grow_mib: float, shrink_mib: float
) -> None:
    assert grow_dead_band(usable_mib * MIB) == int(grow_mib * MIB)
    assert shrink_dead_band(usable_mib * MIB) == int(shrink_mib * MIB)
