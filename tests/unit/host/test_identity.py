"""A process is a VM's QEMU because libvirt says so, and for no other reason."""

import os
from pathlib import Path

import pytest

from host_controller.host import identity as module
from host_controller.host.identity import Identity
from host_controller.host.libvirt_run import is_local, run_directories
from host_controller.units import MIB
from tests.support.fake_host import OTHER_UUID, UUID, FakeHost


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCAN_SECONDS", -1.0)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def identity(host: FakeHost) -> Identity:
    return Identity("qemu:///system", host.root / "proc", host.run)


def stranger(host: FakeHost, pid: int, uuid: str = UUID) -> None:
    host.process(pid, MIB, "sleep", "-uuid", uuid, "1000", name="sleep", uid=1000)


def test_the_process_that_libvirt_names_is_the_vms_whatever_either_is_called(host: FakeHost) -> None:
    host.qemu(42, UUID.upper(), MIB, vm="we ird.é", name="a) (b) R 1 1")
    assert identity(host).find(UUID) == 42
    assert identity(host).find(OTHER_UUID) is None


def test_who_runs_is_named_as_libvirt_names_it(host: FakeHost) -> None:
    found = identity(host)
    assert found.running() == {}
    host.qemu(42, UUID, MIB, vm="we ird.é")
    host.qemu(43, OTHER_UUID, MIB, vm="db")
    stranger(host, 44)
    assert found.running() == {"we ird.é": UUID, "db": OTHER_UUID}
    host.end(43)
    assert found.running() == {"we ird.é": UUID}, "it has ended, and its pid file is still there"


def test_where_libvirts_directory_cannot_be_read_nobody_knows_who_runs(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(directory: Path) -> None:
        raise OSError("too many open files")

    host.qemu(42, UUID, MIB, vm="web")
    found = identity(host)
    with monkeypatch.context() as patched:
        patched.setattr(module.libvirt_run, "pid_files", fails)
        assert found.running() is None
    assert found.running() == {"web": UUID}
    monkeypatch.setattr(module.libvirt_run, "pid_files", fails)
    assert found.running() == {"web": UUID}, "what is known stands"


def test_a_stranger_with_the_vms_uuid_is_not_taken_for_it(host: FakeHost) -> None:
    stranger(host, 41)
    found = identity(host)
    assert found.find(UUID) is None
    host.qemu(42, UUID, MIB)
    stranger(host, 43)
    assert found.find(UUID) == 42


def test_a_living_process_is_never_replaced(host: FakeHost) -> None:
    host.qemu(42, UUID, MIB)
    found = identity(host)
    assert found.find(UUID) == 42
    host.qemu(43, UUID, MIB, vm="second")
    found.all([42, 43])
    assert found.find(UUID) == 42
    host.end(42)
    assert found.find(UUID) == 43


def test_a_recycled_pid_is_not_taken_for_the_vm(host: FakeHost) -> None:
    host.qemu(42, UUID, MIB)
    found = identity(host)
    assert found.find(UUID) == 42
    host.process(42, MIB, "sleep", "1000", started=2000, name="sleep")
    assert found.find(UUID) is None


def test_a_zombie_is_no_vm(host: FakeHost) -> None:
    host.qemu(42, UUID, MIB)
    found = identity(host)
    assert found.find(UUID) == 42
    host.write("proc/42/stat", f"42 (qemu) {' '.join(['Z', *['0'] * 18, '1000', '0'])}\n")
    assert found.find(UUID) is None


def test_a_process_of_another_user_than_libvirt_says_is_not_believed(host: FakeHost) -> None:
    host.qemu(42, UUID, MIB, uid=1000)
    assert identity(host).find(UUID, owner=64055) is None
    assert identity(host).find(UUID, owner=1000) == 42


def test_a_sessions_libvirt_runs_nothing_as_somebody_else(host: FakeHost) -> None:
    os.chown(host.run, 1000, 1000) if os.geteuid() == 0 else pytest.skip("needs another user's directory")
    host.qemu(42, UUID, MIB, uid=1000)
    os.chown(host.run / f"{UUID}.pid", 1000, 1000)
    host.qemu(43, OTHER_UUID, MIB, uid=1001)
    os.chown(host.run / f"{OTHER_UUID}.pid", 1000, 1000)
    assert identity(host).find(UUID) == 42
    assert identity(host).find(OTHER_UUID) is None


def test_a_pid_file_that_somebody_else_could_have_written_says_nothing(host: FakeHost) -> None:
    stranger(host, 42)
    file = host.run / "vm.pid"
    file.write_text("42")
    file.chmod(0o666)
    assert identity(host).find(UUID) is None
    file.chmod(0o644)
    host.run.chmod(0o777)
    assert identity(host).find(UUID) is None
    host.run.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(file, 1000, 1000)
        assert identity(host).find(UUID) is None


def test_a_link_or_a_pipe_among_the_pid_files_is_passed_over(host: FakeHost) -> None:
    stranger(host, 42)
    (host.root / "theirs").write_text("42")
    (host.run / "link.pid").symlink_to(host.root / "theirs")
    os.mkfifo(host.run / "pipe.pid")
    (host.run / "odd.pid").write_text("-1\0 42")
    (host.run / "empty.pid").write_text("")
    assert identity(host).find(UUID) is None
    assert "no pid files" in identity(host).why_not(UUID)


@pytest.mark.parametrize(
    ("uri", "directory"),
    [
        ("qemu:///system", "/run/libvirt"),
        ("qemu+unix:///system?socket=/srv/l/libvirt-sock", "/srv/l"),
        ("qemu+unix:///session?socket=/srv/l/libvirt-sock", "/srv/l"),
        ("qemu:///embed?root=/srv/vms", "/srv/vms/run"),
    ],
)
def test_where_a_local_libvirt_keeps_its_files_follows_from_its_address(uri: str, directory: str) -> None:
    assert run_directories(uri)[0] == Path(directory)


def test_a_session_keeps_them_in_its_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = run_directories("qemu:///session", {"XDG_RUNTIME_DIR": "/r", "HOME": "/home/u"})
    assert found == (Path("/r/libvirt"), Path("/home/u/.cache/libvirt"))


def test_a_remote_libvirt_has_none_here() -> None:
    assert run_directories("qemu+ssh://other/system") == ()
    assert run_directories("test:///default") == ()
    assert is_local("test:///default")
    assert not is_local("qemu+tls://other/system")
