"""The port never blocks and never grows, whoever is or is not at the other end."""

import errno
import os
import select
import socket

import pytest

from agent.codec import decode_from_host
from agent.port import MOST_ACKS, Port, find_port, open_port
from agent.wire import PORT_NAME, Ack, Ping, Report
from tests.support.waiting import until
from tests.unit.agent.host_end import HostEnd


def report(sequence: int) -> Report:
    return Report("0b1c2d3e", sequence, 1.0, 1 << 29, 1 << 28, 1 << 28)


@pytest.fixture
def host():
    host = HostEnd()
    yield host
    host.close()


@pytest.fixture
def port(host):
    port = Port(host.opener)
    assert port.look()
    yield port
    port.close()


def test_a_message_arrives(port, host):
    port.send(report(1))
    until(host.hear, lambda: host.raw)
    assert host.messages == [report(1)]


def test_the_stream_begins_with_a_newline_that_ends_a_line_cut_by_a_predecessor(port, host):
    port.send(report(1))
    until(host.hear, lambda: host.raw)
    assert host.raw.startswith(b"\n")


def test_a_host_that_speaks_is_heard(port, host):
    host.say(Ping(1), Ping(2))
    lines: list[object] = []
    until(lambda: lines.extend(port.read()) or len(lines) == 2, lambda: lines)
    assert [decode_from_host(line) for line in lines] == [Ping(1), Ping(2)]


def test_a_host_that_is_away_is_left_out_of_the_poll_set(port, host):
    host.leave()
    until(lambda: not port.read() and not port.connected, lambda: port.connected)
    assert port.poll_for() is None
    assert not port.look()
    port.send(report(1))  # dropped, without a word
    assert port.dropped == 1


def test_a_host_that_comes_back_is_seen_and_gets_nothing_stale(port, host):
    host.leave()
    until(lambda: not port.read() and not port.connected, lambda: port.connected)
    port.send(report(1))
    host.come()
    until(port.look, lambda: port.connected)
    port.send(report(2))
    until(host.hear, lambda: host.raw)
    assert host.messages == [report(2)]


def full_port() -> tuple[Port, socket.socket]:
    """A port whose other end does not read, filled up."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    port = Port(lambda: os.dup(ours.fileno()))
    port.look()
    ours.close()
    for sequence in range(1000):
        port.send(report(sequence))
    return port, theirs


def test_a_full_port_keeps_the_newest_report_only():
    port, theirs = full_port()
    assert port.dropped > 900
    data = theirs.recv(1 << 20)
    port.flush()
    data += theirs.recv(1 << 20)
    lines = data.split(b"\n")
    assert b'"n":999' in lines[-2]
    assert port.poll_for()[1] == select.POLLIN
    port.close()


def test_a_full_port_holds_a_bounded_number_of_answers_and_drops_the_oldest():
    port, theirs = full_port()
    for request_id in range(1000):
        port.send(Ack(request_id, True))
    held = len(port._rest) + sum(map(len, port._answers)) + len(port._report or b"")
    assert held < (MOST_ACKS + 2) * 4096
    data = b""
    while port.poll_for()[1] & select.POLLOUT:
        data += theirs.recv(1 << 20)
        port.flush()
    data += theirs.recv(1 << 20)
    assert f'"id":{1000 - MOST_ACKS},'.encode() in data
    assert f'"id":{1000 - MOST_ACKS - 1},'.encode() not in data
    port.close()


def test_a_full_port_asks_poll_for_room():
    port, theirs = full_port()
    assert port.poll_for()[1] == select.POLLIN | select.POLLOUT
    theirs.close()
    port.close()


def test_a_port_that_is_not_there_is_an_error_that_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_port(str(tmp_path))


def test_the_port_is_found_by_the_name_that_udev_gives_it(tmp_path):
    path = tmp_path / "dev/virtio-ports" / PORT_NAME
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert find_port(str(tmp_path)) == str(path)


def test_the_port_is_found_without_udev(tmp_path):
    for name, text in (("vport1p1", "org.other.0"), ("vport1p2", PORT_NAME)):
        directory = tmp_path / "sys/class/virtio-ports" / name
        directory.mkdir(parents=True)
        (directory / "name").write_text(text + "\n")
    assert find_port(str(tmp_path)) == str(tmp_path / "dev/vport1p2")


def test_a_port_that_is_taken_out_while_its_host_is_away_is_opened_anew(port, host, monkeypatch):
    """To poll() both look alike: only a read tells, and it says ENODEV of a port that is gone."""
    host.leave()
    until(lambda: not port.read() and not port.connected, lambda: port.connected)
    read, gone = os.read, port._fd

    def of_a_port_that_is_gone(fd: int, size: int) -> bytes:
        if fd == gone:
            raise OSError(errno.ENODEV, "No such device")
        return read(fd, size)

    monkeypatch.setattr(os, "read", of_a_port_that_is_gone)
    assert not port.look()
    assert port._fd is None
    monkeypatch.undo()
    host.come()
    until(port.look, lambda: port.connected)


def test_a_file_at_the_ports_place_is_not_filled(tmp_path):
    path = tmp_path / "dev/virtio-ports" / PORT_NAME
    path.parent.mkdir(parents=True)
    path.write_text("")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no port"):
        open_port(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_kernel_without_memory_for_a_line_costs_that_line_and_not_the_port(port, host, monkeypatch):
    """It is when memory is short that the host must not take the agent for gone."""
    port.send(report(1))
    write = os.write

    def short(fd: int, data: bytes) -> int:
        if fd == port._fd:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return write(fd, data)

    monkeypatch.setattr(os, "write", short)
    port.send(report(2))
    assert (port.connected, port.dropped) == (True, 1)
    assert port.poll_for()[1] == select.POLLIN
    monkeypatch.undo()
    port.send(report(3))
    until(host.hear, lambda: host.raw)
    until(lambda: report(3) in host.hear(), lambda: host.raw)
    assert host.messages == [report(1), report(3)]
