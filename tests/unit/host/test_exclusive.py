"""Two controllers on one libvirt: the second refuses, whatever its directories and whoever runs it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host_controller.host import exclusive, libvirt_run
from host_controller.host.exclusive import Claim, Held, LibvirtTaken, holder, identity, lock

SYSTEM = "qemu:///system"
WAIT = """
import fcntl, os, sys
file = open(sys.argv[1], "w")
if len(sys.argv) > 2:
    os.setuid(int(sys.argv[2]))
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
NOBODY = 65534


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of our own: /run/dynmem, /run/user and a system libvirt."""
    monkeypatch.setattr(exclusive, "RUN", tmp_path / "dynmem")
    monkeypatch.setattr(exclusive, "USERS", tmp_path / "user")
    monkeypatch.setattr(exclusive, "own_directory", lambda: tmp_path / "dynmem")
    monkeypatch.setattr(libvirt_run, "SYSTEM", (tmp_path / "libvirt",))
    (tmp_path / "libvirt").mkdir()
    return tmp_path


def test_the_second_is_refused_and_told_who_the_first_is() -> None:
    first = Claim(SYSTEM)
    first.take("with the state directory /run/dynmem")
    with pytest.raises(LibvirtTaken, match=f"pid {os.getpid()} with the state directory /run/dynmem"):
        Claim(SYSTEM).take()
    first.release()
    second = Claim(SYSTEM)
    second.take()
    second.release()


def test_all_addresses_of_a_libvirt_are_one(run: Path) -> None:
    (run / "alias").symlink_to(run / "libvirt")
    socket = f"qemu+unix:///system?socket={run}/libvirt/libvirt-sock"
    alias = f"qemu+unix:///system?socket={run}/alias/libvirt-sock&mode=auto"
    names = {identity(uri) for uri in (SYSTEM, "qemu+unix:///system", socket, alias)}
    names |= {identity(f"qemu+ssh://{host}/system") for host in ("localhost", "LOCALHOST", "127.0.0.1")}
    names |= {identity("qemu+tcp://[::1]/system"), identity("qemu+ssh://root@localhost/system")}
    # Whatever else it is called, and whichever of its addresses is named.
    names |= {identity(f"qemu+tcp://{host}/system") for host in ("127.0.0.2", "localhost.", "127.1", "0")}
    assert len(names) == 1


def test_different_libvirts_are_not(run: Path) -> None:
    uris = (
        SYSTEM,
        f"qemu+unix:///session?socket={run}/a/libvirt-sock",
        f"qemu+unix:///session?socket={run}/b/libvirt-sock",
        "qemu+ssh://other/system",
        "qemu+ssh://third/system",
        "qemu+ssh://me@other/session",
        "qemu+ssh://you@other/session",
    )
    assert len({identity(uri) for uri in uris}) == len(uris)
    assert identity("qemu+ssh://me@other/system") == identity("qemu+tls://OTHER/system")


def test_the_test_drivers_libvirt_is_each_process_its_own() -> None:
    assert identity("test:///default") is None
    for _ in range(2):
        Claim("test:///default").take()


def test_nobody_else_can_open_the_lock_and_so_hold_it(run: Path) -> None:
    claim = Claim(SYSTEM)
    claim.take()
    (file,) = (run / "dynmem").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    claim.release()
    file.chmod(0o666)  # as by hand, or by another version
    claim.take()
    assert file.stat().st_mode & 0o777 == 0o600
    claim.release()


def test_a_link_in_the_place_of_the_lock_is_not_followed(run: Path) -> None:
    (run / "dynmem").mkdir()
    name = exclusive.lock_name(SYSTEM)
    assert name is not None
    (run / "dynmem" / name).symlink_to(run / "elsewhere")
    with pytest.raises(exclusive.DynmemError, match="a second controller would not be noticed"):
        Claim(SYSTEM).take()
    assert not (run / "elsewhere").exists()


def test_who_holds_a_lock_is_known_only_while_it_is_held(tmp_path: Path) -> None:
    file = tmp_path / "one.lock"
    assert holder(file) is None
    held = lock(file, "pid 1\nmore\n")
    assert holder(file) == "pid 1\nmore\n"
    with pytest.raises(Held, match=r"^pid 1$"):
        lock(file, "pid 2\n")
    held.close()
    assert holder(file) is None


@contextmanager
def holding(file: Path, user: int | None = None) -> Iterator[None]:
    """Another process holds that lock."""
    file.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-c", WAIT, str(file), *([] if user is None else [str(user)])]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        if user is not None:
            os.chown(file, user, -1)
        yield
        process.kill()


def lock_of(run: Path, user: int) -> Path:
    name = exclusive.lock_name(SYSTEM)
    assert name is not None
    return run / "user" / str(user) / "dynmem" / name


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
def test_a_controller_of_another_user_who_may_use_that_libvirt_is_found(run: Path) -> None:
    socket = run / "libvirt" / "libvirt-sock"
    socket.touch()
    os.chown(socket, 0, _group_of(NOBODY))
    with holding(lock_of(run, NOBODY), NOBODY), pytest.raises(LibvirtTaken, match="another controller"):
        Claim(SYSTEM).take()
    Claim(SYSTEM).take()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
def test_a_stranger_who_holds_a_file_of_that_name_keeps_nobody_from_starting(run: Path) -> None:
    (run / "libvirt" / "libvirt-sock").touch()
    with holding(lock_of(run, NOBODY), NOBODY):
        claim = Claim(SYSTEM)
        claim.take()
        claim.release()


def _group_of(user: int) -> int:
    import pwd

    return pwd.getpwuid(user).pw_gid
