"""Somebody lacks what it needs for long: then no difference between others and their goals is too small."""

import pytest

from host_controller.core.policy.lack import FORGOTTEN_SECONDS, PATIENCE_SECONDS, Lack


@pytest.mark.parametrize(
    ("seen", "lasts"),
    [
        ([(0.0, True)], False),
        ([(0.0, True), (1.5, True), (PATIENCE_SECONDS - 0.1, True)], False),
        ([(0.0, True), (1.5, True), (PATIENCE_SECONDS, True)], True),
        ([(0.0, True), (1.5, True), (PATIENCE_SECONDS, True), (3.2, False)], False),
        ([(0.0, True), (0.5, False), (FORGOTTEN_SECONDS, True), (PATIENCE_SECONDS, True)], True),
        ([(0.0, True), (FORGOTTEN_SECONDS + 0.1, True), (PATIENCE_SECONDS, True)], False),
    ],
)
def test_a_moment_without_it_ends_nothing_and_a_moment_with_it_begins_nothing(
    seen: list[tuple[float, bool]], lasts: bool
) -> None:
    lack = Lack()
    for at, lacks in seen:
        lack.look(lacks, at)
    assert lack.lasts == lasts
