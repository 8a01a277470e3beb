"""What the process tells systemd cannot end it, whatever is wrong with the way to it."""

import resource
import socket
from pathlib import Path
from typing import IO

import pytest
import structlog

from host_controller.systemd import Systemd


def all_of_it(systemd: Systemd) -> None:
    systemd.ready("at work")
    systemd.alive()
    systemd.reloading()
    systemd.ready("refused \ud800")
    systemd.stopping()


@pytest.mark.parametrize(
    "address",
    ["", "@", "/nowhere/at/all", "@nobody", "/" + "long" * 100, "relative", "/dev/null", "/", "\x01"],
)
def test_a_notify_socket_that_is_none_ends_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with structlog.testing.capture_logs() as said:
        all_of_it(Systemd())
    assert len(said) <= 1, "it is noted once, and not each second"


def test_a_socket_that_nobody_reads_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        systemd = Systemd()
        for _ in range(2000):
            systemd.ready("full")


def take_all(taken: list[IO[str]], tmp_path: Path) -> None:
    while True:
        taken.append((tmp_path / "file").open("w"))


def test_without_a_descriptor_left_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    systemd = Systemd()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[IO[str]] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with pytest.raises(OSError, match="Too many open files"):
            take_all(taken, tmp_path)
        all_of_it(systemd)
    finally:
        for one in taken:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
