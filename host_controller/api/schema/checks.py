"""What was found on a host, and in its configuration."""

from typing import Literal

from host_controller.api.schema.answers import View


class FindingView(View, frozen=True, kw_only=True, gc=False):
    """One result of `dynmem doctor`."""

    check: str
    """Its name, as in OPERATIONS.md."""
    vm: str | None
    """None where it is about the host."""
    level: Literal["ok", "note", "problem"]
    """A note is worth knowing and no fault."""
    found: str
    remedy: str


class DoctorView(View, frozen=True, kw_only=True, gc=False):
    """What `dynmem doctor --json` says."""

    findings: list[FindingView]


class MistakeView(View, frozen=True, kw_only=True, gc=False):
    """A mistake in the configuration."""

    key: str
    found: str
    allowed: str


class CheckView(View, frozen=True, kw_only=True, gc=False):
    """What `dynmem check-config --json` says."""

    file: str
    problems: list[MistakeView]
    """Empty when it can be used."""
