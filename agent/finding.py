"""What a check of a doctor finds: of `dynmem-agent doctor` in a guest, and of `dynmem doctor` on its host."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "note", "problem"]


class Finding(NamedTuple):
    """One result. A note is worth knowing and no fault; a problem makes doctor exit with 1."""

    check: str
    level: Level
    found: str
    remedy: str = ""
