"""A guest that wants more than startup as soon as it has booted, some seconds before its agent runs."""

from pathlib import Path

import pytest

from host_controller.simulator.trial import simulate
from host_controller.simulator.trial_file import parse


@pytest.mark.parametrize("growth", ["hotadd", "virtio-mem"])
def test_what_is_wanted_before_the_agent_runs_comes_when_it_does(growth: str) -> None:
    """Plugged by the word of its balloon's statistics it stayed offline, and growth rested after that for
    half a minute: this guest was short of 2 GiB for most of a minute beside 5 GiB that were free.
    """
    vm = {"name": "web", "growth": growth, "startup": "1GiB", "minimum": "512MiB", "maximum": "4GiB"}
    demand = {"kind": "ramp", "low": "704MiB", "high": "3GiB", "start": 5, "over": 2}
    vms = [vm | {"boot": 2, "demand": demand}]
    result = simulate(parse({"host": {"capacity": "8GiB", "duration": 60}, "vm": vms}, "host", Path()))
    assert not result.violations
    assert result.missing_mib_seconds < 2000, "a second of what it grows by"
