"""A domain in a file is prepared and put back like a definition of libvirt's."""

import errno
import os
import re
import time
from pathlib import Path
from threading import Event

import pytest
from click.testing import CliRunner, Result

from host_controller import cli
from host_controller.cli.domain_file import LARGEST_BYTES, DomainFile
from host_controller.config.rule import MatchSection, RuleSection
from host_controller.domain_xml.dom import same
from host_controller.domain_xml.read import read_domain
from host_controller.errors import DynmemError, InputError
from host_controller.fleet import startup
from host_controller.fleet.pacemaker.cib import read_cib
from host_controller.fleet.startup import startup_mib, unprepared
from host_controller.units import GIB
from tests.unit.fleet.cluster import cib_text
from tests.unit.hypervisor.domains import Q35, with_backing


def invoke(*words: str) -> Result:
    result = CliRunner().invoke(cli.group, [*words, "--connect", "test:///default"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    one = tmp_path / "web.xml"
    one.write_text(Q35)
    one.chmod(0o640)
    return one


def test_it_is_prepared_once_and_put_back_exactly(file: Path) -> None:
    limits = ("--startup", "1G", "--minimum", "512M", "--maximum", "4G", "--growth", "balloon")
    said = invoke("enable", "--file", str(file), *limits)
    assert said.exit_code == 0
    assert "web is prepared; it takes part from its next start" in said.output
    config = read_domain(file.read_text()).config
    assert config is not None
    assert config.limits.maximum_bytes == 4 * GIB
    assert file.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in file.parent.iterdir()] == ["web.xml"]
    prepared = file.read_text()
    assert "nothing to change" in invoke("enable", "--file", str(file)).output
    assert file.read_text() == prepared
    assert "web is as it was" in invoke("disable", "--file", str(file)).output
    assert same(file.read_text(), Q35)


def test_snapshots_that_keep_the_definition_of_before_are_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt 9.0: one that is reverted is what it was, to the byte, and nobody manages it."""
    kept = {False: 2, True: 1}
    monkeypatch.setattr(DomainFile, "snapshots", lambda _self, *, prepared: kept[prepared])
    said = invoke("enable", "--file", str(file), "--growth", "balloon").output
    assert "2 of its snapshots have it without dynamic memory: reverted to, it is so again" in said
    said = invoke("disable", "--file", str(file)).output
    assert "1 of its snapshots has it prepared for dynamic memory" in said


def test_a_maximum_that_this_host_does_not_have_is_said(file: Path) -> None:
    """libvirt's test driver has a host of 3 GiB."""

    def told(growth: str, maximum: str) -> str:
        return invoke(
            "enable", "--file", str(file), "--dry-run", "--growth", growth, "--maximum", maximum
        ).output

    assert "this host" not in told("hotadd", "3G")
    found = "its maximum of 16 GiB is more than the 3 GiB that this host has"
    assert f"{found}\n" in told("hotadd", "16G")
    assert f"{found}: it boots with all of it, which is never admitted here" in told("balloon", "16G")


def test_an_editors_mark_stays_before_the_declaration_and_is_shown_as_no_change(file: Path) -> None:
    head = "\ufeff<?xml version='1.0' encoding='UTF-8'?>\n"
    file.write_text(head + Q35, encoding="utf-8")
    said = invoke("enable", "--file", str(file), "--growth", "balloon")
    assert "<?xml" not in "".join(line for line in said.output.splitlines() if line[:1] in "+-")
    assert file.read_text(encoding="utf-8").startswith(head)
    invoke("disable", "--file", str(file))
    assert file.read_text(encoding="utf-8") == head + Q35


def test_a_dry_run_shows_and_changes_nothing(file: Path) -> None:
    said = invoke("enable", "--file", str(file), "--dry-run", "--growth", "balloon")
    assert said.output.startswith("---")
    assert file.read_text() == Q35


@pytest.mark.parametrize("words", [(), ("web", "--file", "web.xml")])
@pytest.mark.parametrize("command", ["enable", "disable"])
def test_one_thing_is_named(command: str, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="name one VM, or one --file"):
        invoke(command, *words)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<network/>",
        b"\xff\xfe",
        b"<domain>",
        b'<!DOCTYPE domain [<!ENTITY a "aaaa">]><domain/>',
        b"<domain>" + b" " * LARGEST_BYTES + b"</domain>",
    ],
    ids=["empty", "network", "no text", "cut", "entities", "large"],
)
def test_what_is_no_domain_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "web.xml"
    file.write_bytes(content)
    with pytest.raises(DynmemError, match="web"):
        invoke("enable", "--file", str(file))
    assert file.read_bytes() == content


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "", "missing"):
        with pytest.raises(InputError):
            DomainFile(tmp_path / name)


def test_a_link_that_lies_where_the_new_file_is_written_is_not_followed(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    (tmp_path / ".web.xml.new").symlink_to(other)
    DomainFile(file).define(Q35)
    assert file.read_text() == Q35
    assert other.read_text() == "theirs"


def test_fleet_init_names_the_files_that_are_not_prepared(file: Path) -> None:
    cib = read_cib(cib_text({"web": 1, "far": 1}, {}).replace(b"/vms/web.xml", str(file).encode()))
    assert (startup_mib(str(file)) or 0) > 2048
    (need,) = unprepared(cib)  # a file that is not here is checked where it is
    assert (need.what, need.wanted) == (f"web: {file}", f"dynmem enable --file {file}")
    assert unprepared(cib, (RuleSection(match=MatchSection(name="db-*")),)) == (need,)
    assert unprepared(cib, (RuleSection(match=MatchSection(name="w*")),)) == (), "a rule manages it"
    invoke("enable", "--file", str(file), "--growth", "balloon")
    assert unprepared(cib) == ()


def test_a_file_server_that_answers_nobody_holds_the_fleet_up_once_and_keeps_no_other_file_from_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens a file there waits until it is back, and no signal ends that."""
    server = tmp_path / "server"
    server.mkdir()
    there = [server / name for name in ("db.xml", "mail.xml")]
    for one in there:
        one.write_text(Q35)
    back, read = Event(), startup._content

    def content(path: str) -> bytes:
        if path.startswith(str(server)):
            back.wait(60.0)
        return read(path)

    monkeypatch.setattr(startup, "_content", content)
    monkeypatch.setattr(startup, "READ_SECONDS", 0.2)
    begun = time.monotonic()
    assert [startup_mib(str(one)) for one in (*there, *there)] == [None] * 4
    assert time.monotonic() - begun < 0.4
    assert startup_mib(str(file)) is not None
    back.set()
    while startup_mib(str(there[0])) is None:
        assert time.monotonic() - begun < 30.0
    assert startup_mib(str(there[1])) is not None


def test_fleet_init_names_a_vm_that_is_called_otherwise_and_one_that_two_resources_have(file: Path) -> None:
    invoke("enable", "--file", str(file), "--growth", "balloon")
    text = cib_text({"web": 1, "vm-web": 1, "far": 1}, {})
    for name in (b"web", b"vm-web"):
        text = text.replace(b'"/vms/%s.xml"' % name, f'"{file}"'.encode())
    needs = {(one.what, one.found, one.by_hand) for one in unprepared(read_cib(text))}
    assert needs == {
        (f"vm-web: {file}", "its domain is called web", True),
        (f"web: {file}", "the VM of vm-web", True),
    }


def test_files_that_leave_the_uuid_to_libvirt_are_not_taken_for_one_vm(file: Path, tmp_path: Path) -> None:
    invoke("enable", "--file", str(file), "--growth", "balloon")
    text = re.sub(r"<uuid>.*?</uuid>", "", file.read_text())
    file.write_text(text)
    other = tmp_path / "other.xml"
    other.write_text(text.replace("<name>web</name>", "<name>other</name>"))
    cib = cib_text({"web": 1, "other": 1}, {})
    for one in (file, other):
        cib = cib.replace(b"/vms/%s" % one.name.encode(), str(one).encode())
    assert unprepared(read_cib(cib)) == ()


def test_a_stopped_vm_of_the_fleet_needs_what_its_hosts_hook_wants_to_be_free(file: Path) -> None:
    """By virtio-mem it boots with less than startup, and huge pages are none of the ordinary memory."""
    limits = ("--startup", "2G", "--minimum", "512M", "--maximum", "4G")
    assert invoke("enable", "--file", str(file), *limits, "--growth", "virtio-mem").exit_code == 0
    assert read_domain(file.read_text()).boot_ram_bytes == GIB
    assert startup_mib(str(file)) == 2048 + 64
    file.write_text(with_backing(Q35, "<hugepages/>"))
    assert startup_mib(str(file)) == 64


def test_a_link_stays_one_and_what_it_leads_to_is_prepared(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.xml"
    link.symlink_to(file)
    assert invoke("enable", "--file", str(link), "--growth", "balloon").exit_code == 0
    assert link.is_symlink()
    assert read_domain(file.read_text()).config is not None


def test_what_cannot_be_written_leaves_nothing_behind(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        DomainFile(file).define("<domain/>")
    assert [one.name for one in file.parent.iterdir()] == ["web.xml"]
    assert file.read_text() == Q35
