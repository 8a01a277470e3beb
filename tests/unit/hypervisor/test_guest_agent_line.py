"""What libvirt says of a guest agent, told apart: nobody there, late, or no."""

import libvirt
import libvirt_qemu
import pytest

from host_controller.guest_agent.errors import (
    GuestAgentAbsent,
    GuestAgentError,
    GuestAgentRefused,
    GuestAgentSilent,
)
from host_controller.hypervisor.failure import call_failed
from host_controller.hypervisor.guest_agent_line import ask, translated
from tests.unit.hypervisor.domains import LIVE


def libvirt_error(code: int, said: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError("")
    error.err = (code, 0, said, 2, None, None, None, 0, 0)
    return error


class Domain:
    """One whose libvirt says why not, and who has the guest agent's port open."""

    def __init__(self, state: str) -> None:
        self._state = state

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 # libvirt's name
        target = f"<target type='virtio' name='org.qemu.guest_agent.0' state='{self._state}'/>"
        return LIVE.replace("</devices>", f"<channel type='unix'>{target}</channel></devices>")


@pytest.mark.parametrize(
    ("state", "kind"), [("disconnected", GuestAgentAbsent), ("connected", GuestAgentSilent)]
)
def test_whether_one_is_there_its_port_says_in_any_language(
    state: str, kind: type[GuestAgentError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirtd speaks that of its host, and has one code for both."""

    def refuse(*_: object) -> None:
        raise libvirt_error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "QEMU-Gastagent ist nicht verbunden")

    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", refuse)
    with pytest.raises(kind):
        ask(Domain(state), "{}")


@pytest.mark.parametrize(
    ("code", "said", "kind", "way_out"),
    [
        (libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running", GuestAgentAbsent, "start it"),
        (libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "not configured", GuestAgentAbsent, "qemu-guest-agent"),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "not available for now", GuestAgentSilent, "restart"),
        (libvirt.VIR_ERR_AGENT_UNSYNCED, "out of sync", GuestAgentSilent, "restart"),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "unable to execute", GuestAgentRefused, ""),
    ],
)
def test_nobody_there_no_answer_and_no_are_told_apart_with_a_way_out(
    code: int, said: str, kind: type[GuestAgentError], way_out: str
) -> None:
    found = translated(libvirt_error(code, said))
    assert type(found) is kind
    assert said in found.message
    assert way_out in (found.hint or "")


@pytest.mark.parametrize(
    ("code", "said", "shown"),
    [
        (libvirt.VIR_ERR_ACCESS_DENIED, "access denied: x", "access denied: x"),
        (libvirt.VIR_ERR_ACCESS_DENIED, "Zugriff verweigert", "access denied: Zugriff verweigert"),
        (libvirt.VIR_ERR_OPERATION_DENIED, "Vorgang verboten", "read only: Vorgang verboten"),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "interner Fehler", "interner Fehler"),
    ],
)
def test_what_programs_go_by_is_in_english(code: int, said: str, shown: str) -> None:
    assert call_failed(libvirt_error(code, said)).message == shown
