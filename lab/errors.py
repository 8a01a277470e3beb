"""What can go wrong in the lab. Every error says what happened, to whom, and what to do about it.

VerifyError
└── LabError
    ├── FetchError      what comes from elsewhere could not be had
    ├── ImageError      the guest image could not be built
    ├── SessionError    the private libvirt did not start or answer
    └── GuestError      a guest did not boot, or did not do what its spec says

What watching real guests can raise stands in `host_controller.verify.errors`.
"""

import re
from typing import Final

from host_controller.verify.errors import VerifyError

_UNREACHED: Final = re.compile(
    r"Failed to (?:fetch|resolve)|Unable to fetch|Could not (?:resolve|connect)|HTTP error 5\d\d"
    r"|Temporary failure (?:in name )?resol|Failed to establish a new connection"
    r"|[Cc]onnection (?:failed|timed out|refused|reset)|Read timed out"
)
"""What apt and pip say in English."""
_OURS: Final = re.compile(r"dpkg: error processing|No space left on device")
"""What else a tool may have failed of, whatever it says of its archive."""
_END: Final = 4000
"""Characters. What was tried again, and had, stands earlier."""


class LabError(VerifyError):
    """Anything that the lab itself could not do: never a finding about the product."""


class FetchError(LabError):
    """What comes from elsewhere could not be had: its archive is not reached, or lacks what is asked for."""


def error_of(said: str, otherwise: type[LabError]) -> type[LabError]:
    """FetchError where a tool failed because it did not reach what it fetches. said: by it, in English."""
    end = said[-_END:]
    return FetchError if _UNREACHED.search(end) and not _OURS.search(end) else otherwise


class ImageError(LabError):
    """The guest image could not be built."""


class SessionError(LabError):
    """The private libvirt did not start or answer."""


class GuestError(LabError):
    """A guest did not boot, or did not do what its spec says."""
