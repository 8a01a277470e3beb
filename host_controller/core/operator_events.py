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
    """Keep memory for a VM that is about to start, by its name: it does not run, so it has no place yet.

    This is what the books keep of it, too (`ledger.reservations`).
    """

    name: str
    size_bytes: int
    """Of ordinary memory."""
    expires: float
    huge_page_bytes: int | None = None
    """The size of its huge pages, as VmConfig has it; None without."""
    huge_bytes: int = 0
    """What it needs of that pool."""
    made_bytes: int = 0
    """The part of size_bytes that the kernel makes huge pages of when it starts."""
    pool_bytes: int = 0
    """All that the pool had when this was promised, with what was to be made for others before."""
    token: str = ""
    """Of another host's promise, which its asker alone renews and takes back; a start has none."""
    started_at: float | None = None
    """When the hypervisor's hook said that it runs: it has not been seen since then."""


@dataclass(frozen=True, slots=True)
class Release:
    """The VM will not start."""

    name: str


OperatorEvent = HoldVm | SettingsChanged | MakeRoom | Reserve | Release
