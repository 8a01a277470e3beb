"""What can go wrong between hosts.

FleetError
├── EngineError       a tool of the engine failed, or said what is not understood; nothing was changed
├── RaceLost          somebody changed the engine's configuration meanwhile; nothing was changed
├── EngineBusy        the engine is at work, and what it does would suffer; nothing was changed
│   └── NoQuorum      this part of the cluster may decide nothing; nothing was changed
├── NotBegun          a move was not begun, and may be tried again
│   └── WayRefused    nor is it to be tried again to this destination now
│       └── WayClosed nor soon: it is the engine that refuses
└── HostSilent        a host's controller does not answer, or not with figures that can be
"""

from host_controller.errors import DynmemError


class FleetError(DynmemError):
    """Something between hosts failed; the kinds below say what."""


class EngineError(FleetError):
    """The engine cannot be asked, or its answer is not understood. Nothing was changed."""


class RaceLost(FleetError):  # noqa: N818 # read as what happened
    """The engine's configuration was changed meanwhile. Nothing was changed by us."""


class EngineBusy(FleetError):  # noqa: N818 # read as what happened
    """The engine is at work. Nothing was changed by us."""


class NoQuorum(EngineBusy):
    """This part of the cluster may decide nothing. Nothing was changed by us."""


class NotBegun(FleetError):  # noqa: N818 # read as what happened
    """A move was not begun: the engine was at work, or somebody changed its configuration."""


class WayRefused(NotBegun):
    """The destination does not promise the memory."""


class WayClosed(WayRefused):
    """The engine would do more than migrate the VM there, or would not leave it there."""


class HostSilent(FleetError):  # noqa: N818 # read as what happened
    """A host's controller does not answer, or its figures cannot be."""
