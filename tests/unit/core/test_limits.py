"""What limits a VM may be given, and what is wrong with others."""

from dataclasses import replace

import pytest

from host_controller.core.model import LARGEST_MAXIMUM_BYTES, SMALLEST_MINIMUM_BYTES, Limits
from host_controller.units import MIB

LEAST = Limits(SMALLEST_MINIMUM_BYTES, SMALLEST_MINIMUM_BYTES, SMALLEST_MINIMUM_BYTES, 5, 1)
MOST = Limits(LARGEST_MAXIMUM_BYTES, SMALLEST_MINIMUM_BYTES, LARGEST_MAXIMUM_BYTES, 2000, 10000)


@pytest.mark.parametrize("limits", [LEAST, MOST])
def test_the_least_and_the_most_that_can_be_asked_for_is_in_order(limits: Limits) -> None:
    assert limits.problems() == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"minimum_bytes": SMALLEST_MINIMUM_BYTES - 1}, "minimum"),
        (
            {"startup_bytes": SMALLEST_MINIMUM_BYTES - 1, "minimum_bytes": SMALLEST_MINIMUM_BYTES - 1},
            "startup",
        ),
        ({"startup_bytes": 512 * MIB - 1, "minimum_bytes": 512 * MIB}, "startup"),
        ({"startup_bytes": 512 * MIB, "maximum_bytes": 512 * MIB - 1}, "maximum"),
        ({"maximum_bytes": LARGEST_MAXIMUM_BYTES + 1}, "maximum"),
        ({"buffer_percent": 4}, "buffer is 4 %; 5 to 2000 is allowed"),
        ({"buffer_percent": 2001}, "buffer is 2001 %; 5 to 2000 is allowed"),
        ({"weight": 0}, "weight is 0; 1 to 10000 is allowed"),
        ({"weight": 10001}, "weight is 10001; 1 to 10000 is allowed"),
    ],
)
def test_what_is_beyond_is_said(changes: dict[str, int], problem: str) -> None:
    assert any(found.startswith(problem) for found in replace(MOST, **changes).problems())
