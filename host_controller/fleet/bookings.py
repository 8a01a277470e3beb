"""What an arbiter has booked, kept for the next start on the same host."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from host_controller.fleet.core.booking import Booking
from host_controller.fleet.core.publication import LARGEST_MIB
from host_controller.private import private_directory, replace_private


def read_bookings(file: Path) -> dict[str, Booking]:
    """What was booked; nothing where the file is missing or damaged, and not of whom it is absurd."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=dict[str, Booking])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: one for name, one in found.items() if all(map(_can_be, _sizes(one)))}


def _sizes(one: Booking) -> Iterator[int]:
    yield from (one.size_mib, one.low_peak_mib)
    yield from (size for _, size in one.hours)


def _can_be(size_mib: int) -> bool:
    return 0 <= size_mib <= LARGEST_MIB


def keep_bookings(bookings: Mapping[str, Booking], file: Path) -> None:
    """For the next start.

    Raises:
        OSError
    """
    private_directory(file.parent)
    replace_private(file, msgspec.json.encode(dict(bookings)))
