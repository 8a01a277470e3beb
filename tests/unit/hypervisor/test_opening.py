"""A domain that libvirt does not let be looked up is not one that is not there."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import libvirt
import pytest
from click.testing import CliRunner

from host_controller import config
from host_controller.cli import doctor as command
from host_controller.config import parse
from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.edit import enable
from host_controller.errors import CallFailed, DomainNotFound, DynmemError, HypervisorUnreachable
from host_controller.hypervisor import survey
from host_controller.hypervisor.definitions import Definition
from host_controller.hypervisor.opening import found, opened
from host_controller.units import GIB
from tests.support.fake_host import OTHER_UUID, UUID
from tests.unit.hypervisor.domains import Q35


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

    lookupByName = lookupByUUIDString = listAllDomains = listAllNetworks = _refuse  # noqa: N815 # libvirt's
    getInfo = getCapabilities = _refuse  # noqa: N815 # libvirt's

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
    monkeypatch.setattr(survey, "opened", lambda uri, **how: connection)
    result = CliRunner().invoke(command.doctor, ["--socket", str(tmp_path / "none")])
    assert isinstance(result.exception, SystemExit), result.exception
    return result.output


def test_the_doctor_goes_on_where_libvirt_lists_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = examined(Libvirt(libvirt.VIR_ERR_RPC, "cannot read"), monkeypatch, tmp_path)
    assert "BAD   libvirt: it lists no VMs: cannot read" in said
    assert "BAD   controller" in said


def test_a_configuration_that_no_controller_can_start_with_is_told_where_none_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be why."""
    file = tmp_path / "dynmem.toml"
    for module in (config, command):
        monkeypatch.setattr(module, "DEFAULT_PATH", file)
    for text, told in (("[htp]", True), ("", False)):
        file.write_text(text)
        said = examined(Libvirt(libvirt.VIR_ERR_RPC, "cannot read"), monkeypatch, tmp_path)
        assert (f"BAD   configuration: no controller can start with it: {file}" in said) is told


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


class Counted(Listed):
    """One that counts how often it is read."""

    def __init__(self) -> None:
        super().__init__(0)
        self.read = 0

    def isActive(self) -> bool:  # noqa: N802 # libvirt's name
        return False

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 # libvirt's name
        self.read += 1
        return Q35


def test_the_doctor_reads_each_domain_once_also_where_there_are_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connection: Any = Libvirt(0)
    one = Counted()
    connection.listAllDomains = lambda: [one]
    configuration = parse(b"[[rule]]\nmatch = {name = 'w*'}\n[[rule]]\nmatch = {name = 'x'}\n")
    monkeypatch.setattr(command, "load", lambda: configuration)
    said = examined(connection, monkeypatch, tmp_path)
    assert "rules: rule[2] (name = 'x') is for no VM" in said
    assert "rule[1]" not in said
    assert one.read == 1


class Named:
    """A libvirt in which somebody has given a domain the UUID of another for a name."""

    domains: ClassVar = {"web": UUID, UUID: OTHER_UUID}

    def _one(self, found: bool, answer: str) -> str:
        if not found:
            raise refusal(libvirt.VIR_ERR_NO_DOMAIN, "no such domain")
        return answer

    def lookupByName(self, name: str) -> str:  # noqa: N802 # libvirt's name
        return self._one(name in self.domains, self.domains.get(name, ""))

    def lookupByUUIDString(self, uuid: str) -> str:  # noqa: N802 # libvirt's name
        return self._one(uuid in self.domains.values(), uuid)


def test_no_domain_hides_another_by_having_its_uuid_for_a_name() -> None:
    assert found(Named(), "qemu:///system", UUID) == UUID
    assert found(Named(), "qemu:///system", "web") == UUID
    assert found(Named(), "qemu:///system", OTHER_UUID) == OTHER_UUID
    with pytest.raises(DomainNotFound):
        found(Named(), "qemu:///system", "x" * 36)


def test_snapshots_are_counted_by_the_definition_that_they_keep() -> None:
    limits = Limits(GIB, GIB, 2 * GIB)
    kept = [Q35, enable(Q35, limits, Growth.BALLOON).xml, Q35]
    snapshots = [
        SimpleNamespace(getXMLDesc=lambda xml=xml: f"<domainsnapshot>{xml}</domainsnapshot>") for xml in kept
    ]
    domain = Definition(None, SimpleNamespace(listAllSnapshots=lambda: snapshots))
    assert (domain.snapshots(prepared=False), domain.snapshots(prepared=True)) == (2, 1)

    def refuse() -> None:
        raise refusal(libvirt.VIR_ERR_NO_SUPPORT, "no snapshots here")

    assert Definition(None, SimpleNamespace(listAllSnapshots=refuse)).snapshots(prepared=False) == 0


def test_a_libvirt_that_does_not_answer_holds_no_command_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(libvirt, "open", lambda uri: over.wait(60))
    try:
        with pytest.raises(HypervisorUnreachable, match=r"no answer for 0\.1 s"):
            opened("qemu:///system", limit_seconds=0.1)
    finally:
        over.set()


def test_what_libvirt_says_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_uri: str) -> None:
        raise refusal(libvirt.VIR_ERR_AUTH_FAILED, "authentication failed")

    monkeypatch.setattr(libvirt, "open", refuse)
    for uri in ("qemu:///system", "qemu+ssh://n2/system"):
        with pytest.raises(HypervisorUnreachable, match="authentication failed"):
            opened(uri)
