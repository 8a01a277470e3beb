"""The tables of the configuration file, each with its keys, their defaults and what is allowed.

What a key is for stands under it, and what it may be is the `description` of its type. `man dynmem.toml` is
made of both.
"""

from typing import Annotated, Literal

import msgspec

from host_controller.config.tables import (
    DURATION_KIND,
    DURATION_WORDS,
    FILE_SIZE_KIND,
    LARGEST,
    SIZE_WORDS,
    AbsolutePath,
    Duration,
    Listen,
    OnOff,
    Retention,
    Size,
    Text,
    VmSize,
)
from host_controller.credentials import DIRECTORY
from host_controller.units import GIB, MIB


class LibvirtSection(msgspec.Struct, frozen=True):
    """Where the VMs are."""

    uri: Text = "qemu:///system"
    """The libvirt whose VMs are managed."""
    guest_agent: OnOff = True
    """Whether VMs without our agent are read through their QEMU guest agent, every ten seconds. libvirt marks
    such a VM as tainted (custom-ga-command).
    """


class HostSection(msgspec.Struct, frozen=True):
    """How much of the host's memory VMs may have."""

    capacity: VmSize | None = None
    """All that VMs may cost together. By default the host's memory less the reserve and less other QEMUs."""
    reserve: Size | None = None
    """What is kept for the host itself. By default what its other processes use, and a spare by its size."""
    keep_ready: Size | None = None
    """What is kept free for bursts, as long as no VM needs it. By default between 1/64 and 1/16 of what VMs
    may cost, by how fast they have grown lately.
    """
    overhead_floor: Size = 64 * MIB
    """The least that a QEMU is taken to need beside its VM's memory, however little was measured."""


class DefaultsSection(msgspec.Struct, frozen=True):
    """Limits that `dynmem enable` takes when it is not told otherwise."""

    startup: VmSize = GIB
    """What a VM is given when it starts."""
    minimum: VmSize = 512 * MIB
    """It never gets less."""
    maximum: VmSize = 4 * GIB
    """It never gets more."""
    buffer: Annotated[int, msgspec.Meta(ge=5, le=2000, description="percent of demand, 5 to 2000")] = 20
    """What it should have free beyond its demand."""
    weight: Annotated[int, msgspec.Meta(ge=1, le=10000, description="1 to 10000")] = 100
    """Its share against the others when memory is short."""


class TimingSection(msgspec.Struct, frozen=True):
    """How long things last before something is done about them."""

    shrink_after: Duration = 25.0
    """How long a VM must have had more than it wants before that is taken, while nobody else needs it."""
    settle: Duration = 60.0
    """How long a VM that has booted keeps its startup, unless others need it."""
    unplug_after: Duration = 600.0
    """How long a VM must have had no use for a DIMM before it is unplugged."""
    reset_wait: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=120,
            description=f"{DURATION_WORDS}, at most two minutes; 0: never",
            extra=DURATION_KIND,
        ),
    ] = 20.0
    """How long a VM may stand still after a reset while room is made for all of its RAM."""


class PathsSection(msgspec.Struct, frozen=True):
    """Where the controller keeps things."""

    state_dir: AbsolutePath = "/run/dynmem"
    """What outlives the controller, but no restart of the host: reservations, pauses, the lock."""
    socket: AbsolutePath | None = None
    """Where root and the group dynmem may ask and change things. By default `control.sock` in state_dir."""
    view_socket: AbsolutePath | None = None
    """Where the group dynmem-view may look, and change nothing. By default `view.sock` in state_dir."""
    history: AbsolutePath = "/var/lib/dynmem/history.sqlite"
    """The file of the history."""
    meminfo: AbsolutePath = "/proc/meminfo"
    """What the host says of its memory. Another file is for rehearsing an emergency."""


class HistorySection(msgspec.Struct, frozen=True):
    """How much of the past is kept on disk."""

    enabled: OnOff = True
    """Whether anything is kept on disk. The last hour is in memory in any case."""
    keep: Retention = 7 * 86400.0
    """How long events, and changes that a plot would show, are kept."""
    keep_minutes: Retention = 35 * 86400.0
    """How long a row for each minute is kept."""
    keep_hours: Retention = 730 * 86400.0
    """How long a row for each hour is kept."""
    max_size: Annotated[
        int,
        msgspec.Meta(ge=MIB, le=LARGEST, description=f"{SIZE_WORDS}, at least 1MiB", extra=FILE_SIZE_KIND),
    ] = GIB
    """How large the file may become. Then its oldest rows go."""


class SavingsSection(msgspec.Struct, frozen=True):
    """What `dynmem savings` reckons with."""

    price: Annotated[
        float,
        msgspec.Meta(ge=0, le=1e6, description="a number, 0 or more; 0: no price"),
    ] = 0.0
    """What a GiB costs for an hour, in any money."""


class HttpSection(msgspec.Struct, frozen=True):
    """The read-only server for metrics and the page."""

    listen: Listen | None = None
    """Where it listens. By default nowhere."""


class AdmissionSection(msgspec.Struct, frozen=True):
    """What happens when a managed VM is started (`dynmem hook install`)."""

    wait: Annotated[
        float,
        msgspec.Meta(ge=0, le=120, description=f"{DURATION_WORDS}, at most two minutes", extra=DURATION_KIND),
    ] = 20.0
    """How long a start may wait until others have made room."""
    without_controller: Annotated[
        Literal["allow", "deny"],
        msgspec.Meta(description='"allow" or "deny"'),
    ] = "allow"
    """What is done with a start while no controller answers."""


class FleetSection(msgspec.Struct, frozen=True):
    """The listener for the other hosts of a cluster (mutual TLS)."""

    listen: Listen | None = None
    """Where it listens: at the same port on every host. By default nowhere."""
    credentials: AbsolutePath = str(DIRECTORY)
    """The directory with `host.pem`, `host.key` and `ca.pem` (`dynmem fleet certificates`)."""
