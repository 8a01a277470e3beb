"""The way to a VM's QEMU guest agent, through libvirt.

Libvirt marks a VM that it passes such a command to as tainted (custom-ga-command) until its QEMU ends.
Nothing else comes of the mark; it is seen in libvirt's log, and by whoever supports the host.
"""

from typing import Any, Final, Self

import libvirt
import libvirt_qemu

from host_controller.domain_xml.read import read_domain
from host_controller.errors import DomainUnsuitable, DynmemError
from host_controller.guest_agent.errors import (
    GuestAgentAbsent,
    GuestAgentError,
    GuestAgentRefused,
    GuestAgentSilent,
)
from host_controller.hypervisor.jobs import running_job
from host_controller.hypervisor.opening import found, opened

ANSWER_SECONDS: Final = 10
"""For one request; the work in the guest goes on by itself."""
_ABSENT: Final = (
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,  # no port for it
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
)
_LATE: Final = (
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_AGENT_UNSYNCED,
    getattr(libvirt, "VIR_ERR_AGENT_COMMAND_TIMEOUT", -1),
    libvirt.VIR_ERR_OPERATION_TIMEOUT,
)


def ask(domain: Any, request: str, limit_seconds: int = ANSWER_SECONDS) -> str:
    """One request and its answer. Blocks for `limit_seconds` and for libvirt's own handshake (5 s).

    Raises:
        GuestAgentError: as of its kinds.
    """
    try:
        return str(libvirt_qemu.qemuAgentCommand(domain, request, limit_seconds, 0))
    except libvirt.libvirtError as error:
        raise translated(error, nobody_there=_nobody_there(domain, error)) from None


def translated(error: libvirt.libvirtError, *, nobody_there: bool = False) -> GuestAgentError:
    """What libvirt said, as an error of ours. It may have said it in its host's language.

    nobody_there: no guest agent has the port open.
    """
    code, said = error.get_error_code(), error.get_error_message() or str(error)
    if code == libvirt.VIR_ERR_OPERATION_INVALID:
        return GuestAgentAbsent(f"it does not run: {said}", hint="start it, then say it again")
    if code in _ABSENT or nobody_there:
        return GuestAgentAbsent(
            f"no QEMU guest agent answers: {said}",
            hint="install qemu-guest-agent in the guest, with its port",
        )
    if code in _LATE:
        return GuestAgentSilent(
            f"its guest agent does not answer: {said}", hint="restart qemu-guest-agent in the guest"
        )
    return GuestAgentRefused(f"its guest agent refused: {said}")


def _nobody_there(domain: Any, error: libvirt.libvirtError) -> bool:
    """Libvirt has one code for a guest agent that is not there and for one that hangs."""
    if error.get_error_code() != libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
        return False
    try:
        return not read_domain(str(domain.XMLDesc(0))).guest_agent
    except (libvirt.libvirtError, DomainUnsuitable):
        return False


class GuestAgentLine:
    """A connection to libvirt for one VM's guest agent. Use it in a `with`; call it with a request.

    Raises:
        HypervisorUnreachable: libvirt is not there.
        DomainNotFound: there is no such VM.
        CallFailed: libvirt does not say.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._name = name
        self._connection = opened(uri)
        try:
            self._domain = found(self._connection, uri, name)
        except DynmemError:
            self._connection.close()
            raise

    def job(self) -> str | None:
        """A migration, save or snapshot under way, as far as libvirt says."""
        try:
            return running_job(self._domain) if self._domain.isActive() else None
        except libvirt.libvirtError:
            return None  # a driver without jobs, or the VM has just ended

    def __call__(self, request: str) -> str:
        """Carry a request, bring its answer."""
        try:
            return ask(self._domain, request)
        except GuestAgentError as error:
            error.vm = self._name
            raise

    def __enter__(self) -> Self:
        """The connection is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._connection.close()
