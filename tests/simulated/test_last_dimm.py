"""Hosts that have less than their VMs by hot add want: the last DIMM is seldom free whole."""

import pytest

from host_controller.simulator.scenario import play
from tests.simulated.generator import tight_scenario
from tests.simulated.soak import make_engine, patient_engine


@pytest.mark.parametrize("seed", [3, 6, 10, 16, 23])
def test_a_dimm_that_others_make_whole_or_a_balloon_makes_room_for_breaks_no_rule(seed: int) -> None:
    """On each of these hosts somebody is given what lies in others' dead bands, or a DIMM beside what its own
    balloon keeps, while guests misbehave and controllers die.
    """
    assert not play(tight_scenario(seed), patient_engine if seed % 2 else make_engine).violations
