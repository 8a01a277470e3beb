"""Virtio-mem that comes and goes within seconds, while its guests start anew and its QEMUs answer late."""

import pytest

from host_controller.simulator.scenario import play
from tests.simulated.generator import meddled_scenario, rough_scenario
from tests.simulated.soak import make_engine, patient_engine


@pytest.mark.parametrize("seed", [3, 7, 11])
def test_what_has_left_virtio_mem_is_not_asked_for_again_beyond_the_capacity(seed: int) -> None:
    """Each of these hosts was led beyond its capacity: by memory that was offline when it left, and by a
    command that was carried out when nobody waited for it any more.
    """
    assert not play(rough_scenario(seed), patient_engine).violations


def test_what_a_command_that_timed_out_takes_is_not_asked_for_again_of_a_guest_without_room() -> None:
    assert not play(rough_scenario(188), make_engine).violations


@pytest.mark.parametrize("seed", [0, 6])
def test_who_is_overtaken_by_somebody_elses_request_takes_nothing_back_by_what_it_began_with(
    seed: int,
) -> None:
    """A device that was on its way down was asked for more by others, and used it; what its guest had had
    before was then asked for, 738 MiB below what it used.
    """
    assert not play(meddled_scenario(seed), make_engine).violations


def test_a_size_that_never_came_is_not_asked_for_again_of_a_guest_that_has_no_room_for_it() -> None:
    assert not play(rough_scenario(20000115), make_engine).violations
