"""Commands to whatever runs VMs: the lower half of the contract whose upper half is in `interface.py`."""

from dataclasses import dataclass

from agent import wire


@dataclass(frozen=True, slots=True)
class SetTarget:
    """Send the balloon's target, in QEMU's terms (offline DIMMs count as given)."""

    vm: str
    ticket: int
    target_bytes: int


@dataclass(frozen=True, slots=True)
class AttachDimm:
    """Plug a pc-dimm; the VM's DIMMs arrive as `DimmsChanged` before the command is done."""

    vm: str
    ticket: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DetachDimm:
    """Ask for a DIMM to leave; done means asked. `DimmsChanged` or `DimmRefused` follows, or nothing."""

    vm: str
    ticket: int
    alias: str


@dataclass(frozen=True, slots=True)
class ResizeVirtioMem:
    """Ask the virtio-mem device for another size; the guest follows as far and as fast as it can."""

    vm: str
    ticket: int
    requested_bytes: int


@dataclass(frozen=True, slots=True)
class Suspend:
    """Stop the VM's vCPUs."""

    vm: str
    ticket: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Let the VM's vCPUs run again."""

    vm: str
    ticket: int


@dataclass(frozen=True, slots=True)
class SendToGuest:
    """Write a message to the agent; it may be lost, so whoever needs an answer waits for it with a limit."""

    vm: str
    message: wire.HostMessage


@dataclass(frozen=True, slots=True)
class SetPace:
    """How often to read a VM's balloon and resident memory. Events still arrive at once."""

    vm: str
    period_seconds: float


Command = SetTarget | AttachDimm | DetachDimm | ResizeVirtioMem | Suspend | Resume | SendToGuest | SetPace
