"""Nothing that somebody else writes makes a reader do anything but take it or refuse it."""

import pytest

from tests.fuzz.__main__ import found, fuzz
from tests.fuzz.targets import TARGETS, Target

SHORT = 5_000
"""Inputs: a few seconds each; `make fuzz` tries a million."""


each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@each_target
def test_what_was_found_once_is_dealt_with(target: Target) -> None:
    for data in [*target.seeds, *found(target)]:
        target.run(data)


@each_target
def test_a_short_search_finds_nothing(target: Target) -> None:
    assert fuzz(target, SHORT, seed=1) == 0
