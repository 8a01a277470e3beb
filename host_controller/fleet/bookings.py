"""What an arbiter has booked, kept for the next start on the same host."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from host_controller.fleet.core.booking import Booking
from host_controller.private import private_directory, replace_private


def read_bookings(file: Path) -> dict[str, Booking]:
    """What was booked; nothing where the file is missing or damaged."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Booking])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def keep_bookings(bookings: Mapping[str, Booking], file: Path) -> None:
    """For the next start.

    Raises:
        OSError
    """
    private_directory(file.parent)
    replace_private(file, msgspec.json.encode(dict(bookings)))
