"""What a check of `dynmem-agent doctor` finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "note", "problem"]


class Finding(NamedTuple):
    """One result. A note is worth knowing and no fault; a problem makes doctor exit with 1."""

    check: str
    level: Level
    found: str
    remedy: str = ""
