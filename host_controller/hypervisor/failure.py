"""What libvirt says when it will not or cannot, as an error of ours."""

from collections.abc import Callable
from typing import Final, TypeVar

import libvirt

from host_controller.errors import CallFailed

T = TypeVar("T")
_KINDS: Final = {
    libvirt.VIR_ERR_ACCESS_DENIED: "access denied",
    libvirt.VIR_ERR_OPERATION_DENIED: "read only",
}
"""As libvirt says it in English."""


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
    """In libvirt's own words, which may be of its host's language: what programs go by stands before them in
    English. vm: the name of the one that it is about.
    """
    said = error.get_error_message() or str(error)
    kind = _KINDS.get(error.get_error_code(), "")
    return CallFailed(said if kind in said.lower() else f"{kind}: {said}", vm=vm)
