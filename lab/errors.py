"""What can go wrong in the lab. Every error says what happened, to whom, and what to do about it.

VerifyError
└── LabError
    ├── ImageError      the guest image could not be built
    │   └── FetchError  a release of Debian could not be had
    ├── SessionError    the private libvirt did not start or answer
    └── GuestError      a guest did not boot, or did not do what its spec says

What watching real guests can raise stands in `host_controller.verify.errors`.
"""

from host_controller.verify.errors import VerifyError


class LabError(VerifyError):
    """Anything that the lab itself could not do: never a finding about the product."""


class ImageError(LabError):
    """The guest image could not be built."""


class FetchError(ImageError):
    """A release of Debian could not be had: its archive is not reached, or lacks what is asked for."""


class SessionError(LabError):
    """The private libvirt did not start or answer."""


class GuestError(LabError):
    """A guest did not boot, or did not do what its spec says."""
