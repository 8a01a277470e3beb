"""What can go wrong in the lab. Every error says what happened, to whom, and what to do about it.

LabError
├── ImageError          the guest image could not be built
├── SessionError        the private libvirt did not start or answer
├── GuestError          a guest did not boot, or did not do what its spec says
├── WorkloadError       the workload server in a guest refused a command or did not answer in time
├── QmpError            QEMU refused a QMP command, or its socket is gone
└── ObserverError       the observer's process died, or a condition it waited for did not come true
"""


class LabError(Exception):
    """Anything that the lab itself could not do: never a finding about the product."""


class ImageError(LabError):
    """The guest image could not be built."""


class SessionError(LabError):
    """The private libvirt did not start or answer."""


class GuestError(LabError):
    """A guest did not boot, or did not do what its spec says."""


class WorkloadError(LabError):
    """The workload server in a guest refused a command or did not answer in time."""


class QmpError(LabError):
    """QEMU refused a QMP command, or its socket is gone."""


class ObserverError(LabError):
    """The observer's process died, or a condition it waited for did not come true in time."""
