"""What agents say of their guests that no decision depends on: for `doctor` and the views. Claims, all."""

from typing import NamedTuple

from agent import wire
from host_controller.core.engine import Event
from host_controller.core.interface import GuestSpoke, VmGone


class Note(NamedTuple):
    """One guest, by its agent's last words."""

    kernel: str = ""
    online_policy: str = ""
    """`auto_online_blocks`: offline, online, online_kernel, online_movable."""
    hotplug: str = ""
    """Who brings memory online: the kernel, the agent, or nobody."""
    swap_total_bytes: int = 0
    swap_used_bytes: int = 0


class GuestNotes:
    """Notes about the VMs that run, by UUID."""

    def __init__(self) -> None:
        self._notes: dict[str, Note] = {}

    def hear(self, event: Event) -> None:
        """Take in whatever an agent says."""
        match event:
            case GuestSpoke(vm, wire.Hello() as untrusted):
                self._notes[vm] = self.of(vm)._replace(
                    kernel=untrusted.kernel_release,
                    online_policy=untrusted.online_policy,
                    hotplug=untrusted.hotplug,
                )
            case GuestSpoke(vm, wire.Report() as untrusted):
                known = self.of(vm)
                swap = (untrusted.swap_total_bytes, untrusted.swap_used_bytes)
                if swap != known[3:]:
                    self._notes[vm] = known._replace(swap_total_bytes=swap[0], swap_used_bytes=swap[1])
            case VmGone(vm):
                self._notes.pop(vm, None)

    def of(self, uuid: str) -> Note:
        """What is known of a guest."""
        return self._notes.get(uuid, Note())
