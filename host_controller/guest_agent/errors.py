"""What can go wrong with a QEMU guest agent.

DynmemError
└── GuestAgentError
    ├── GuestAgentAbsent     nobody listens: none in the guest, no port for it, the VM is off
    ├── GuestAgentSilent     no answer in time; nobody knows whether it was done
    ├── GuestAgentRefused    it will not, or could not
    └── GuestAgentNonsense   its answer cannot be used
"""

from host_controller.errors import DynmemError


class GuestAgentError(DynmemError):
    """The QEMU guest agent of one VM."""


class GuestAgentAbsent(GuestAgentError):  # noqa: N818 # read as what happened
    """Nobody listens: there is no guest agent, no port for it, or the VM is off."""


class GuestAgentSilent(GuestAgentError):  # noqa: N818 # read as what happened
    """No answer came in time: nobody knows whether it was done."""


class GuestAgentRefused(GuestAgentError):  # noqa: N818 # read as what happened
    """It said no; its words are a guest's."""


class GuestAgentNonsense(GuestAgentError):  # noqa: N818 # read as what happened
    """An answer that cannot be used."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"its guest agent talks nonsense: {what}",
            hint="restart qemu-guest-agent in the guest, or do without",
        )
