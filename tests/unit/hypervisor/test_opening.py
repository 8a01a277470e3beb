"""A domain that libvirt does not let be looked up is not one that is not there."""

from pathlib import Path
from typing import Any

import libvirt
import pytest
from click.testing import CliRunner

from host_controller.cli import doctor as command
from host_controller.config import parse
from host_controller.errors import CallFailed, DomainNotFound, DynmemError
from host_controller.hypervisor import survey
from host_controller.hypervisor.opening import found


def refusal(code: int, said: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError(said)
    error.err = (code, 0, said, 2, said, None, None, -1, -1)
    return error


class Libvirt:
    """A connection that answers every question with one error."""

    def __init__(self, code: int, said: str = "no") -> None:
        self.error = refusal(code, said)

    def _refuse(self, *_: object) -> Any:
        raise self.error

    lookupByName = lookupByUUIDString = listAllDomains = _refuse  # noqa: N815 # libvirt's names

    def close(self) -> None:
        pass

    def getVersion(self) -> int:  # noqa: N802 # libvirt's name
        return 9_000_000

    getLibVersion = getVersion  # noqa: N815 # libvirt's name


@pytest.mark.parametrize(
    ("code", "kind", "way_out"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, DomainNotFound, "virsh list"),
        (libvirt.VIR_ERR_INVALID_ARG, DomainNotFound, "virsh list"),  # no UUID either
        (libvirt.VIR_ERR_ACCESS_DENIED, CallFailed, "polkit"),
        (libvirt.VIR_ERR_AUTH_FAILED, CallFailed, "polkit"),
        (libvirt.VIR_ERR_RPC, CallFailed, "journalctl"),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, CallFailed, "journalctl"),
        (libvirt.VIR_ERR_SYSTEM_ERROR, CallFailed, "journalctl"),
    ],
)
def test_what_libvirt_refuses_is_told_with_its_own_way_out(
    code: int, kind: type[DynmemError], way_out: str
) -> None:
    with pytest.raises(kind) as raised:
        found(Libvirt(code, "because of this"), "qemu:///system", "web")
    assert way_out in (raised.value.hint or "")
    assert ("because of this" in str(raised.value)) == (kind is CallFailed)


class Listed:
    """A domain of a list of libvirt's: it has a name, and its XML cannot be had."""

    def __init__(self, code: int) -> None:
        self.error = refusal(code, "timed out during operation")

    def name(self) -> str:
        return "web"

    UUIDString = name  # libvirt's name

    def isActive(self) -> bool:  # noqa: N802 # libvirt's name
        raise self.error


def examined(connection: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setattr(survey, "opened", lambda uri, read_only: connection)
    result = CliRunner().invoke(command.doctor, ["--socket", str(tmp_path / "none")])
    assert isinstance(result.exception, SystemExit), result.exception
    return result.output


def test_the_doctor_goes_on_where_libvirt_lists_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = examined(Libvirt(libvirt.VIR_ERR_RPC, "cannot read"), monkeypatch, tmp_path)
    assert "BAD   libvirt: it lists no VMs: cannot read" in said
    assert "BAD   controller" in said


@pytest.mark.parametrize(
    ("code", "told"), [(libvirt.VIR_ERR_OPERATION_TIMEOUT, True), (libvirt.VIR_ERR_NO_DOMAIN, False)]
)
def test_a_vm_of_which_libvirt_says_nothing_is_told_unless_it_is_going_away(
    code: int, told: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connection: Any = Libvirt(code)
    connection.listAllDomains = lambda: [Listed(code)]
    said = examined(connection, monkeypatch, tmp_path)
    assert ("BAD   web: libvirt: it cannot be looked at: timed out" in said) is told


class Foreign(Listed):
    """A domain whose XML nobody can read: libvirt writes control characters of a name as they are."""

    def isActive(self) -> bool:  # noqa: N802 # libvirt's name
        return False

    def isPersistent(self) -> bool:  # noqa: N802 # libvirt's name
        return True

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 # libvirt's name
        return "<domain><name>\x01</name></domain>"


def test_xml_that_cannot_be_read_ends_no_look_at_the_others_where_there_are_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connection: Any = Libvirt(0)
    connection.listAllDomains = lambda: [Foreign(0)]
    configuration = parse(b"[[rule]]\nmatch = {name = 'x'}\nminimum = '25%'\n")
    monkeypatch.setattr(command, "load", lambda: configuration)
    said = examined(connection, monkeypatch, tmp_path)
    assert "BAD   web: libvirt: it cannot be looked at: this is not XML" in said
