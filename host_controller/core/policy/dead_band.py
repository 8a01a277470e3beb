"""Differences that are not worth a command."""

from typing import Final

from host_controller.units import MIB

SMALLEST_DEAD_BAND: Final = 4 * MIB
LEAST_SHRINK_BYTES: Final = 16 * MIB


def grow_dead_band(usable_bytes: int) -> int:
    """Growth smaller than this is not worth a command."""
    share = usable_bytes // 128
    return share if share > SMALLEST_DEAD_BAND else SMALLEST_DEAD_BAND  # `max` takes thrice as long


def shrink_dead_band(usable_bytes: int) -> int:
    """An excess smaller than this is left alone: hysteresis against the growth just granted."""
    share = usable_bytes // 24
    return share if share > LEAST_SHRINK_BYTES else LEAST_SHRINK_BYTES
