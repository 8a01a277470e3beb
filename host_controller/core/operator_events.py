"""Events that come from people and from VM starts; the hypervisor's are in interface.py."""

from dataclasses import dataclass

from host_controller.core.model import Settings


@dataclass(frozen=True, slots=True)
class HoldVm:
    """The operator pauses management of a VM, or resumes it."""

    vm: str
    on: bool


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """A new configuration is in force."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """A VM wants to start: shrink others until that much is free. `Reserve` or `Release` ends it."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Reserve:
    """Keep memory for a VM that is about to start, by its name: it does not run, so it has no place yet."""

    name: str
    size_bytes: int
    expires: float
    huge_page_bytes: int | None = None
    huge_bytes: int = 0
    made_bytes: int = 0
    pool_bytes: int = 0
    token: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """The VM will not start."""

    name: str


OperatorEvent = HoldVm | SettingsChanged | MakeRoom | Reserve | Release
