"""What libvirt says when it will not or cannot, as an error of ours."""

import libvirt

from host_controller.errors import CallFailed


def call_failed(error: libvirt.libvirtError, vm: str | None = None) -> CallFailed:
    """In libvirt's own words. vm: the name of the one that it is about."""
    return CallFailed(error.get_error_message() or str(error), vm=vm)
