"""What libvirt says when it will not or cannot, as an error of ours."""

from collections.abc import Callable
from typing import TypeVar

import libvirt

from host_controller.errors import CallFailed

T = TypeVar("T")


def called(function: Callable[..., T], *arguments: object, vm: str | None = None) -> T:
    """What a function of libvirt's gives. vm: the name of the one that it is about.

    Raises:
        CallFailed: libvirt said no, in its own words.
    """
    try:
        return function(*arguments)
    except libvirt.libvirtError as error:
        raise call_failed(error, vm) from None


def call_failed(error: libvirt.libvirtError, vm: str | None = None) -> CallFailed:
    """In libvirt's own words. vm: the name of the one that it is about."""
    return CallFailed(error.get_error_message() or str(error), vm=vm)
