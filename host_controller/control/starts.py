"""Whether libvirt asks before it starts VMs: a hook that is installed may not be run, and nobody would know.

libvirt looks for hooks as its daemon starts, and passes over one that it may not execute (SELinux).
"""

from collections.abc import Collection

from host_controller.core.engine import Event
from host_controller.core.interface import VmAppeared


class Starts:
    """Goes by managed VMs whose start was seen."""

    def __init__(self) -> None:
        self.unasked: str | None = None
        """The name of the last one that started, where nobody had asked for it; None where somebody had, and
        before the first.
        """

    def hear(self, event: Event, reserved: Collection[str]) -> None:
        """reserved: names of VMs that were promised what they start with, before the engine hears of it."""
        if isinstance(event, VmAppeared) and event.booted:
            self.unasked = None if event.config.name in reserved else event.config.name
