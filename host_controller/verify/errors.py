"""What can go wrong while real guests are watched.

Every error says what happened, to whom, and what to do about it.

VerifyError
├── WorkloadError       the workload server in a guest refused a command or did not answer in time
├── QmpError            QEMU refused a QMP command, or its socket is gone
└── ObserverError       the observer's process died, or a condition it waited for did not come true
    └── InconclusiveError    the machine was too busy to see whether the rules held
"""


class VerifyError(Exception):
    """Anything that watching could not do: never a finding about the product."""


class WorkloadError(VerifyError):
    """The workload server in a guest refused a command or did not answer in time."""


class QmpError(VerifyError):
    """QEMU refused a QMP command, or its socket is gone."""


class ObserverError(VerifyError):
    """The observer's process died, or a condition it waited for did not come true in time."""


class InconclusiveError(ObserverError):
    """The machine was too busy to see whether the rules held: no finding, and no proof either."""
