"""What an arbiter has booked, kept for the next start on the same host."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from host_controller.fleet.core.booking import Booking
from host_controller.private import private_directory, replace_private

log = structlog.get_logger(__name__)


def read_bookings(file: Path) -> dict[str, Booking]:
    """What was booked; nothing where the file is missing or damaged."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Booking])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def keep_bookings(file: Path, bookings: Mapping[str, Booking]) -> None:
    """For the next start. What cannot be kept is learnt again."""
    try:
        private_directory(file.parent)
        replace_private(file, msgspec.json.encode(dict(bookings)))
    except OSError as error:
        log.warning("what is booked cannot be kept", file=str(file), problem=error.strerror)
