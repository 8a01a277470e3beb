"""What libvirt says of a guest agent, told apart: nobody there, late, or no."""

import libvirt
import pytest

from host_controller.guest_agent.errors import (
    GuestAgentAbsent,
    GuestAgentError,
    GuestAgentRefused,
    GuestAgentSilent,
)
from host_controller.hypervisor.guest_agent_line import translated


@pytest.mark.parametrize(
    ("code", "said", "kind", "way_out"),
    [
        (libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running", GuestAgentAbsent, "start it"),
        (libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "not configured", GuestAgentAbsent, "qemu-guest-agent"),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "it is not connected", GuestAgentAbsent, "qemu-guest-agent"),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "not available for now", GuestAgentSilent, "restart"),
        (libvirt.VIR_ERR_AGENT_UNSYNCED, "out of sync", GuestAgentSilent, "restart"),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "unable to execute", GuestAgentRefused, ""),
    ],
)
def test_nobody_there_no_answer_and_no_are_told_apart_with_a_way_out(
    code: int, said: str, kind: type[GuestAgentError], way_out: str
) -> None:
    error = libvirt.libvirtError("")
    error.err = (code, 0, said, 2, None, None, None, 0, 0)
    found = translated(error)
    assert type(found) is kind
    assert said in found.message
    assert way_out in (found.hint or "")
