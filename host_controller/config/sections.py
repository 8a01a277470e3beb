"""The tables of the configuration file, each with its keys, their defaults and what is allowed.

What a key's type does not say is in its `description`; `man dynmem.toml` is made of these.
"""

from typing import Annotated, Literal

import msgspec

from host_controller.config.tables import (
    DURATION_KIND,
    DURATION_WORDS,
    LARGEST,
    SIZE_KIND,
    SIZE_WORDS,
    AbsolutePath,
    Duration,
    Listen,
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
    guest_agent: Annotated[
        bool,
        msgspec.Meta(
            description="true or false: read /proc of VMs without our agent through their QEMU guest agent, "
            "every ten seconds; libvirt marks such a VM as tainted (custom-ga-command)"
        ),
    ] = True


class HostSection(msgspec.Struct, frozen=True):
    """What of the host's memory VMs may have."""

    capacity: VmSize | None = None
    """All that VMs may cost, instead of the host's memory less the reserve and less other QEMUs."""
    reserve: Size | None = None
    """Kept for the host itself; by default what its other processes use, and a spare by its size."""
    keep_ready: Size | None = None
    overhead_floor: Size = 64 * MIB


class DefaultsSection(msgspec.Struct, frozen=True):
    """Limits that `dynmem enable` takes when it is not told otherwise."""

    startup: VmSize = GIB
    minimum: VmSize = 512 * MIB
    maximum: VmSize = 4 * GIB
    buffer: Annotated[int, msgspec.Meta(ge=5, le=2000, description="percent of demand, 5 to 2000")] = 20
    weight: Annotated[int, msgspec.Meta(ge=1, le=10000, description="1 to 10000")] = 100


class TimingSection(msgspec.Struct, frozen=True):
    """How long things last before something is done about them."""

    shrink_after: Duration = 25.0
    settle: Duration = 60.0
    unplug_after: Duration = 600.0
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
    socket: AbsolutePath | None = None
    """By default `control.sock` in the state directory."""
    view_socket: AbsolutePath | None = None
    """Where the group dynmem-view may look, and change nothing. By default `view.sock` beside it."""
    history: AbsolutePath = "/var/lib/dynmem/history.sqlite"
    meminfo: AbsolutePath = "/proc/meminfo"
    """What the host says of its memory. Another file is for rehearsing an emergency."""


class HistorySection(msgspec.Struct, frozen=True):
    """How much of the past is kept on disk."""

    enabled: Annotated[bool, msgspec.Meta(description="true or false")] = True
    keep: Retention = 7 * 86400.0
    keep_minutes: Retention = 35 * 86400.0
    keep_hours: Retention = 730 * 86400.0
    max_size: Annotated[
        int,
        msgspec.Meta(ge=MIB, le=LARGEST, description=f"{SIZE_WORDS}, at least 1MiB", extra=SIZE_KIND),
    ] = GIB


class SavingsSection(msgspec.Struct, frozen=True):
    """What `dynmem savings` reckons with."""

    price: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=1e6, description="a number, 0 or more: of a GiB for an hour, in any money; 0: none"
        ),
    ] = 0.0


class HttpSection(msgspec.Struct, frozen=True):
    """The read-only server for metrics and the page; nothing listens on TCP unless it is named here."""

    listen: Listen | None = None


class AdmissionSection(msgspec.Struct, frozen=True):
    """What happens when a managed VM is started (`dynmem hook install`)."""

    wait: Annotated[
        float,
        msgspec.Meta(ge=0, le=120, description="seconds, at most 120; others are shrunk meanwhile"),
    ] = 20.0
    without_controller: Annotated[
        Literal["allow", "deny"],
        msgspec.Meta(description='"allow" or "deny": what is done with a start while no controller answers'),
    ] = "allow"


class FleetSection(msgspec.Struct, frozen=True):
    """The listener for the other hosts of a cluster (mutual TLS); nothing listens unless it is named here."""

    listen: Listen | None = None
    credentials: AbsolutePath = str(DIRECTORY)
    """The directory with `host.pem`, `host.key` and `ca.pem` (`dynmem fleet certificates`)."""
