"""How a command that asks libvirt and ends begins; the controller's own connections are in connections.py."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import libvirt

from host_controller.beside import within
from host_controller.errors import CallFailed, DomainNotFound, HypervisorUnreachable
from host_controller.host.libvirt_run import is_local
from host_controller.hypervisor.failure import call_failed

_NO_SUCH: Final = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG)
"""There is none of that name, or it is no UUID. Whatever else libvirt says says nothing about the domain."""

UUID_CHARS: Final = 36
ANSWER_SECONDS: Final = 30.0
"""A libvirtd that starts what starts with its host, each asking a hook, answers nobody for a while."""


def opened(uri: str, *, read_only: bool = False, limit_seconds: float = ANSWER_SECONDS) -> Any:
    """A blocking connection, which the caller closes. libvirt prints no errors of its own from then on.

    limit_seconds: of this machine's libvirt. On the way to another one somebody may be asked for a password.

    Raises:
        HypervisorUnreachable: libvirt is not there, does not let us in, or does not answer.
    """
    libvirt.registerErrorHandler(lambda context, error: None, None)
    open_it = partial(libvirt.openReadOnly if read_only else libvirt.open, uri)
    try:
        return within(limit_seconds, open_it, "libvirt-open") if is_local(uri) else open_it()
    except TimeoutError:
        raise HypervisorUnreachable(
            f"{uri} cannot be reached: no answer for {limit_seconds:g} s",
            hint="it may be starting VMs; where it does not end: DynmemDisconnected in OPERATIONS.md",
        ) from None
    except libvirt.libvirtError as error:
        raise HypervisorUnreachable(
            f"{uri} cannot be reached: {error.get_error_message() or error}",
            hint="is libvirtd (or virtqemud) running, and may you use it?",
        ) from None


def found(connection: Any, uri: str, name_or_uuid: str) -> Any:
    """The domain of that UUID or name at the other end of `connection`, which `opened(uri)` gave. As in virsh
    no domain hides another by having its UUID for a name.

    Raises:
        DomainNotFound: there is none.
        CallFailed: libvirt does not say.
    """
    lookups = (connection.lookupByName, connection.lookupByUUIDString)
    for lookup in reversed(lookups) if len(name_or_uuid) == UUID_CHARS else lookups:
        try:
            return lookup(name_or_uuid)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _NO_SUCH:
                raise _unasked(error, uri, name_or_uuid) from None
    raise DomainNotFound(
        f"there is no domain {name_or_uuid!r} at {uri}",
        hint="`virsh list --all` shows those there are",
    )


def _unasked(error: libvirt.libvirtError, uri: str, vm: str) -> CallFailed:
    said = call_failed(error).message
    if error.get_error_code() in (libvirt.VIR_ERR_ACCESS_DENIED, libvirt.VIR_ERR_AUTH_FAILED):
        hint = "let this user use the domain (polkit, access_drivers in libvirtd.conf), or run this as root"
    else:
        hint = "say it again; if that does not help: journalctl -u virtqemud -u libvirtd"
    return CallFailed(f"libvirt at {uri} does not let it be looked up: {said}", vm=vm, hint=hint)


def versions(connection: Any) -> tuple[int, int]:
    """Of libvirt and QEMU, each as major * 1,000,000 + minor * 1,000 + release; 0 where unknown."""
    return _number(connection.getLibVersion), _number(connection.getVersion)


def _number(ask: Callable[[], int]) -> int:
    try:
        return int(ask())
    except libvirt.libvirtError:
        return 0
