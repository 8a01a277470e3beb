"""A process whose command line cannot be had keeps nobody from looking at the host."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_controller.host import command_lines
from host_controller.host.census import Census
from host_controller.host.command_lines import CommandLines
from host_controller.host.identity import Identity
from tests.support.fake_host import GIB, OTHER_UUID, UUID, FakeHost
from tests.support.waiting import until

Hang = Callable[[int], None]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.setattr(command_lines, "STUCK_SECONDS", 0.2)
    return FakeHost(tmp_path)


@pytest.fixture
def hang(host: FakeHost) -> Iterator[Hang]:
    """Whoever opens that process's command line from now on waits, as for its mmap_lock."""
    pipes = []

    def begin(pid: int) -> None:
        pipe = host.root / f"proc/{pid}/cmdline"
        pipe.unlink()
        os.mkfifo(pipe)
        pipes.append(pipe)

    yield begin
    for pipe in pipes:
        release(pipe)


def release(pipe: Path) -> None:
    """Let go of those that wait, where there are any."""
    os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))


def test_a_process_that_hangs_hides_no_other(host: FakeHost, hang: Hang) -> None:
    for pid in (50, 51, 52):
        host.process(pid, GIB, "odd-emulator", "-uuid", UUID, name="odd-emulator")
    hang(51)
    census = Census(host.root / "proc")
    assert sorted(one.pid for one in census.look(0.0)) == [50, 52]
    # Nobody waits for it a second time.
    assert len(census.look(1.0)) == 2


def test_what_is_not_named_by_libvirt_and_hangs_counts_by_its_name(host: FakeHost, hang: Hang) -> None:
    host.process(50, 3 * GIB)
    hang(50)
    host.use(3 * GIB)
    assert host.watch().read(0.0, {}).foreign_bytes == 3 * GIB


def test_a_qemu_that_hangs_keeps_no_other_from_being_known(host: FakeHost, hang: Hang) -> None:
    host.qemu(40, UUID, GIB)
    host.qemu(41, OTHER_UUID, GIB)
    hang(40)
    identity = Identity("qemu:///system", host.root / "proc", host.run)
    assert identity.find(OTHER_UUID) == 41
    assert identity.find(UUID) is None


def test_a_qemu_that_hangs_runs_all_the_same(host: FakeHost, hang: Hang) -> None:
    host.qemu(40, UUID, GIB, vm="hangs")
    host.qemu(41, OTHER_UUID, GIB, vm="db")
    hang(40)
    identity = Identity("qemu:///system", host.root / "proc", host.run)
    assert identity.running() == {"hangs": None, "db": OTHER_UUID}


def test_what_hangs_no_more_is_read_again(host: FakeHost, hang: Hang) -> None:
    host.process(50, GIB, "odd", "-uuid", UUID)
    hang(50)
    lines = CommandLines(host.root / "proc")
    assert lines.read([50]) == {}
    pipe = host.root / "proc/50/cmdline"
    release(pipe)
    pipe.unlink()
    pipe.write_bytes(b"odd\0")
    until(lambda: lines.read([50]) == {50: [b"odd", b""]}, "its command line")
