"""The contract between the engine and whatever runs VMs: commands go down, events come up.

`host_controller.hypervisor` carries it out on real hosts, `host_controller.simulator` on simulated ones,
and the engine cannot tell which. Every method returns at once. The outcome of each command with a `ticket`
arrives later as exactly one `CommandDone`, in order per VM; everything else that happens arrives as an event
of its own. Times in events are seconds of the controller's monotonic clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent import wire
from host_controller.core.commands import AttachDimm as AttachDimm
from host_controller.core.commands import Command as Command
from host_controller.core.commands import DetachDimm as DetachDimm
from host_controller.core.commands import ResizeVirtioMem as ResizeVirtioMem
from host_controller.core.commands import Resume as Resume
from host_controller.core.commands import SendToGuest as SendToGuest
from host_controller.core.commands import SetPace as SetPace
from host_controller.core.commands import SetTarget as SetTarget
from host_controller.core.commands import Suspend as Suspend
from host_controller.core.model import BalloonStats, Dimm, HostFacts, RunState, VmConfig


@dataclass(frozen=True, slots=True)
class VmAppeared:
    """A managed VM runs: it was started, arrived by migration, was restored, enabled, or found at connect.

    Sent again after a reconnection; the engine then takes the VM over anew.
    """

    vm: str
    config: VmConfig
    state: RunState
    dimms: tuple[Dimm, ...]
    actual_bytes: int
    booted: bool
    """True when its start was seen, so that nothing inside it can be older than this event."""
    virtio_mem_bytes: int = 0
    """Plugged by the virtio-mem device."""
    virtio_mem_requested_bytes: int = 0
    vcpu_seconds: float | None = None
    """Processor time of its vCPUs so far, if they stand still and it is known."""
    stopped_after_reset: bool = False
    """A controller stopped them until its memory would fit, here or where it came from: nobody else lets it
    run.
    """


@dataclass(frozen=True, slots=True)
class VmGone:
    """The VM stopped, migrated away or is no longer managed: it costs nothing any more."""

    vm: str
    reason: str


@dataclass(frozen=True, slots=True)
class VmConfigChanged:
    """The domain's XML was changed while it runs, by us or by somebody else."""

    vm: str
    config: VmConfig


@dataclass(frozen=True, slots=True)
class VmStateChanged:
    """vCPUs were stopped or continued, or the guest crashed."""

    vm: str
    state: RunState


@dataclass(frozen=True, slots=True)
class VmReset:
    """The guest was reset: its kernel starts again, with all DIMMs still plugged
    (facts: actual-survives-reset, dimms-survive-reset).
    """

    vm: str


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job that moves or copies the VM (migration, save, snapshot) began or ended."""

    vm: str
    job: str | None


@dataclass(frozen=True, slots=True)
class BalloonChanged:
    """QEMU's BALLOON_CHANGE: the driver wrote `actual`, so it lives."""

    vm: str
    actual_bytes: int


@dataclass(frozen=True, slots=True)
class BalloonSampled:
    """A poll of the balloon: `actual` is the guest's claim; the statistics are None when switched off."""

    vm: str
    actual_bytes: int
    stats: BalloonStats | None


@dataclass(frozen=True, slots=True)
class ResidentSampled:
    """What the host's kernel says that the VM holds: a fact, not a claim."""

    vm: str
    guest_bytes: int
    """Resident part of the mappings that are guest RAM."""
    overhead_bytes: int
    """Pss of QEMU's other mappings."""
    huge_bytes: int = 0
    """The part of guest_bytes in huge pages."""


@dataclass(frozen=True, slots=True)
class DimmsChanged:
    """The VM's plugged DIMMs, whole list.

    Also said, changed or not, once a command that was told as timed out has come to its end.
    """

    vm: str
    dimms: tuple[Dimm, ...]


@dataclass(frozen=True, slots=True)
class DimmRefused:
    """The guest would not give a DIMM back."""

    vm: str
    alias: str


@dataclass(frozen=True, slots=True)
class VirtioMemChanged:
    """The virtio-mem device has another size, or was asked for one by somebody."""

    vm: str
    current_bytes: int
    requested_bytes: int | None = None
    """None: the event said nothing of it."""


@dataclass(frozen=True, slots=True)
class CommandDone:
    """The outcome of a command; `error` is None when it was carried out."""

    vm: str
    ticket: int
    error: str | None
    timed_out: bool = False
    """Nobody knows whether it was carried out; the VM may still be working on it."""
    seconds: float = 0.0
    vcpu_seconds: float | None = None
    """Of `Suspend`: the processor time of its vCPUs until they were stopped."""


@dataclass(frozen=True, slots=True)
class GuestSpoke:
    """A well-formed message of a guest's agent. Its content is a claim."""

    vm: str
    untrusted_message: wire.GuestMessage


@dataclass(frozen=True, slots=True)
class GuestNoise:
    """Something on the port that is not a message, counted by kind and never shown to the policy."""

    vm: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class GuestReading:
    """A guest's own files, read through its QEMU guest agent: what statistics say, and more, and seldom.

    Sizes are bytes. It is a guest's word, with shape and range checked and nothing else.
    """

    total_bytes: int
    available_bytes: int
    free_bytes: int
    reclaimable_bytes: int
    swap_used_bytes: int
    """Less what is cached too; zram is among it."""
    swap_in_bytes: int
    """Counter since boot."""
    refault_bytes: int
    """Counter since boot."""
    stall_us: int | None
    """PSI `some` total since boot; None without PSI."""


@dataclass(frozen=True, slots=True)
class GuestRead:
    """The guest's files were read through its QEMU guest agent, since no agent of ours speaks."""

    vm: str
    untrusted_reading: GuestReading


@dataclass(frozen=True, slots=True)
class GuestGone:
    """The agent closed its end of the port."""

    vm: str


@dataclass(frozen=True, slots=True)
class ChannelChanged:
    """The host's end of the agent's port cannot be opened, again and again; or it is open after all."""

    vm: str
    error: str | None
    """The hypervisor's words; None once it is open."""


@dataclass(frozen=True, slots=True)
class HostSampled:
    """The host's own memory."""

    facts: HostFacts


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """The hypervisor cannot be reached, or can be again."""

    up: bool
    detail: str


@dataclass(frozen=True, slots=True)
class VmsAwaited:
    """Who runs by what the hypervisor has written down, told of or not, by name.

    Said when that changes, until the hypervisor has told of everybody who runs: then once with no name.
    """

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A second has passed."""


MachineEvent = VmGone | VmConfigChanged | VmStateChanged | VmReset | JobChanged
MemoryEvent = (
    BalloonChanged
    | BalloonSampled
    | ResidentSampled
    | DimmsChanged
    | DimmRefused
    | VirtioMemChanged
    | CommandDone
)
GuestEvent = GuestSpoke | GuestNoise | GuestRead | GuestGone | ChannelChanged
VmEvent = MachineEvent | MemoryEvent | GuestEvent
HypervisorEvent = VmAppeared | VmEvent | HostSampled | ConnectionChanged | VmsAwaited

Inbox = Callable[[HypervisorEvent], None]


class Hypervisor(Protocol):
    """What the controller's daemon needs of a hypervisor."""

    def submit(self, command: Command) -> None:
        """Start a command; never blocks and never raises for what happens to the VM."""

    async def start(self, inbox: Inbox) -> None:
        """Connect, say what runs, and go on saying what happens until `stop`; reconnects by itself."""

    async def stop(self) -> None:
        """Let go of every VM, as it is, and of every descriptor and thread."""
