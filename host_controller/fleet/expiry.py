"""Certificates that expire soon, told while there is time to make new ones. No I/O."""

from collections.abc import Iterator, Mapping
from typing import Final

from host_controller.fleet.core.model import HostFigures

WARN_DAYS: Final = 30
DAY: Final = 86_400.0


def ending(figures: Mapping[str, HostFigures], wall: float) -> Iterator[str]:
    """A sentence for each host whose certificate expires within a month. `wall`: seconds since 1970."""
    for host, one in figures.items():
        if one.certificate_until is not None:
            text = ends(host, one.certificate_until, wall)
            if text is not None:
                yield text


def ends(host: str, until: float, wall: float) -> str | None:
    """The sentence; None while there is time."""
    left = until - wall
    if left >= WARN_DAYS * DAY:
        return None
    if left <= 0:
        return f"the certificate of {host} has expired: dynmem fleet certificates {host} makes a new one"
    days = int(left // DAY)
    when = f"in {days} days" if days > 1 else "within two days" if days else "within a day"
    return f"the certificate of {host} expires {when}: dynmem fleet certificates {host} makes a new one"
