"""How a command that asks libvirt and ends begins; the controller's own connections are in connections.py."""

from collections.abc import Callable
from typing import Any

import libvirt

from host_controller.errors import DomainNotFound, HypervisorUnreachable


def opened(uri: str, *, read_only: bool = False) -> Any:
    """A blocking connection, which the caller closes. libvirt prints no errors of its own from then on.

    Raises:
        HypervisorUnreachable: libvirt is not there, or does not let us in.
    """
    libvirt.registerErrorHandler(lambda context, error: None, None)
    try:
        return libvirt.openReadOnly(uri) if read_only else libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise HypervisorUnreachable(
            f"{uri} cannot be reached: {error.get_error_message() or error}",
            hint="is libvirtd running, and may you use it?",
        ) from None


def found(connection: Any, uri: str, name_or_uuid: str) -> Any:
    """The domain of that name or UUID at the other end of `connection`, which `opened(uri)` gave.

    Raises:
        DomainNotFound: there is none.
    """
    for lookup in (connection.lookupByName, connection.lookupByUUIDString):
        try:
            return lookup(name_or_uuid)
        except libvirt.libvirtError:
            continue
    raise DomainNotFound(
        f"there is no domain {name_or_uuid!r} at {uri}",
        hint="`virsh list --all` shows those there are",
    )


def versions(connection: Any) -> tuple[int, int]:
    """Of libvirt and QEMU, each as major * 1,000,000 + minor * 1,000 + release; 0 where unknown."""
    return _number(connection.getLibVersion), _number(connection.getVersion)


def _number(ask: Callable[[], int]) -> int:
    try:
        return int(ask())
    except libvirt.libvirtError:
        return 0
