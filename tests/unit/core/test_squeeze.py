"""How a guest is brought below what it uses: when, and how far, as tables."""

import pytest

from host_controller.core.vm.squeeze import Squeeze, step_bytes
from host_controller.units import GIB, MIB


@pytest.mark.parametrize(
    ("stall_share", "step_mib"),
    [
        (0.0, 32.0),
        (0.1, 32.0),  # so much is no stall
        (0.2, 24.0),
        (0.3, 16.0),
        (0.4, 8.0),
        (0.9, 8.0),
        (None, 8.0),  # nobody can tell how it bears it
    ],
)
def test_a_step_is_a_32nd_of_what_it_has_and_smaller_where_it_hurts(
    stall_share: float | None, step_mib: float
) -> None:
    assert step_bytes(GIB, stall_share) == pytest.approx(step_mib * MIB, abs=1)
    assert isinstance(step_bytes(GIB, stall_share), int)


@pytest.mark.parametrize(
    ("asked_at", "granted"),
    [
        ([10.0], [False]),
        ([10.0, 12.0, 12.9, 13.0], [False, False, False, True]),  # a shortage must last
        ([10.0, 12.6, 13.0, 15.5], [False, False, False, False]),  # that began anew at 12.6
        ([10.0, 12.5, 15.0], [False, False, True]),  # asked for all the time
        ([10.0, 12.0, 14.0, 17.0], [False, False, True, False]),
    ],
)
def test_only_a_shortage_that_lasts_squeezes(asked_at: list[float], granted: list[bool]) -> None:
    squeeze = Squeeze()
    assert [squeeze.ask(at) for at in asked_at] == granted


def test_a_second_lies_between_two_steps() -> None:
    squeeze = Squeeze()
    for at in (10.0, 12.0, 14.0):
        squeeze.ask(at)
    squeeze.step(14.0)
    assert [squeeze.ask(at) for at in (14.1, 14.9, 15.0)] == [False, False, True]
