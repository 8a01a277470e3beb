"""Sizes that may be a share of a VM's own RAM: "512M", or "25%"."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from host_controller.core.model import LARGEST_MAXIMUM_BYTES, SMALLEST_MINIMUM_BYTES
from host_controller.units import MIB, format_size, parse_size, round_down, with_unit

AMOUNT_KIND: Final = {"kind": "amount"}
_SHARE: Final = re.compile(r"\s*(\d{1,4})\s*%\s*")
_WORDS: Final = 'a size such as "512M", 32MiB to 16TiB, or a share of its RAM, "1%" to "100%"'


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the most RAM that a VM can have: what it boots with, and what can be added while it runs."""

    percent: int
    """1 to 100."""

    def __str__(self) -> str:
        return f"{self.percent}%"


Amount = Annotated[int | Share, msgspec.Meta(description=_WORDS, extra=AMOUNT_KIND)]
"""Bytes, or a share."""


def parse_amount(raw: object) -> int | Share:
    """Bytes or a share, from what a file or a command line says.

    Raises:
        ValueError: with a sentence that says what is allowed.
    """
    found: int | Share = 0
    share = _SHARE.fullmatch(raw) if isinstance(raw, str) else None
    if share is not None:
        found = Share(int(share[1]))
        fits = 1 <= found.percent <= 100
    elif isinstance(raw, str):
        found = parse_size(raw)
        fits = SMALLEST_MINIMUM_BYTES <= found <= LARGEST_MAXIMUM_BYTES
    else:
        fits = type(raw) is int and SMALLEST_MINIMUM_BYTES <= raw <= LARGEST_MAXIMUM_BYTES
        found = raw if type(raw) is int else 0
    if not fits:
        meant = with_unit(str(raw)) if found else ""
        ask = f" (did you mean {meant}?)" if meant else ""
        raise ValueError(f"{raw!r} cannot be used; write {_WORDS}{ask}")
    return found


def bytes_of(amount: int | Share, ram_bytes: int) -> int:
    """The size of an amount for a VM that can have so much RAM; of a share whole MiB, 32 MiB at least."""
    if isinstance(amount, Share):
        return max(SMALLEST_MINIMUM_BYTES, round_down(ram_bytes * amount.percent // 100, MIB))
    return amount


def in_words(amount: int | Share) -> str:
    """As it is written in the configuration."""
    return str(amount) if isinstance(amount, Share) else format_size(amount)
