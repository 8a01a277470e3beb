"""A connection for a command that asks libvirt and ends; the controller's own are in connections.py."""

from typing import Any

import libvirt

from host_controller.errors import HypervisorUnreachable


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
