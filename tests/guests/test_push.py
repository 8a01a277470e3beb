"""The agent pushed into real guests by their QEMU guest agent, and taken out again."""

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import wire
from agent.installation import DROP
from host_controller.delivery import push as delivery
from host_controller.delivery.agent_file import agent_file, digest
from host_controller.delivery.push import INSTALLED
from host_controller.guest_agent.conversation import GuestAgent
from host_controller.guest_agent.errors import GuestAgentAbsent
from host_controller.hypervisor.guest_agent_line import GuestAgentLine
from lab.controller import dynmem
from lab.domain import GuestSpec
from lab.guest import Guest
from tests.guests import guest_agents
from tests.guests.conftest import GuestFactory
from tests.guests.systemd_guest import Machine, booted, system_image

CONTENT = agent_file()


def bring(talk: GuestAgent) -> list[str]:
    return list(delivery.push(talk, CONTENT, lambda done: None))


@pytest.fixture(scope="module")
def pushed(make_shared_guest: GuestFactory) -> Guest:
    """Without systemd, and so far without a guest agent's port."""
    guest = make_shared_guest(GuestSpec("pushed", agent=None, raw_dynmem=True))
    guest.start()
    guest.wait_booted()
    return guest


def files_of_ours(guest: Guest) -> str:
    find = "find / -xdev -name '*dynmem-agent*' -type f -not -path '/lab/*' -not -path '/proc/*'"
    return guest.workload.exec(f"{find}; ls {DROP} 2> /dev/null; true")


def test_a_guest_without_systemd_is_given_the_agent_by_libvirt_and_it_is_taken_out(pushed: Guest) -> None:
    guest = pushed
    with GuestAgentLine(guest.session.uri, "pushed") as line:
        talk = GuestAgent(line, time.monotonic, time.sleep)
        with pytest.raises(GuestAgentAbsent):
            bring(talk)
        guest.domain().attachDevice(guest_agents.CHANNEL)
        guest_agents.listen(guest)
        begun = time.monotonic()
        said = bring(talk)
        print(f"\npushed in {time.monotonic() - begun:.1f} s:", *said, sep="\n  ")
        assert "The agent runs." in said[-1]
        assert digest(CONTENT) in guest.workload.exec(f"sha256sum {INSTALLED}")
        # In brackets, so that it does not find itself.
        pattern = f"-S [/]{INSTALLED[1:]} run"
        running = f"cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\\0' ' ' | grep -o -- '{pattern}'"
        assert guest.workload.exec(f"{running} | wc -l").strip() == "1"
        bring(talk)
        assert guest.workload.exec(f"sleep 0.5; {running} | wc -l").strip() == "1"
        begun = time.monotonic()
        print(*delivery.remove(talk), sep="\n  ")
        print(f"removed in {time.monotonic() - begun:.1f} s")
        assert files_of_ours(guest) == ""
        guest.workload.exec(f"until [ $({running} | wc -l) = 0 ]; do sleep 0.1; done")


class CutOffError(Exception):
    """Nobody goes on with a push from here."""


def cut_off(_written: int) -> None:
    raise CutOffError


@pytest.mark.faults  # half a minute of waiting for what hangs
def test_a_push_that_meets_a_hung_guest_agent_a_full_disk_or_its_own_end_is_finished_or_undone_by_another(
    pushed: Guest,
) -> None:
    guest, command = pushed, ("--yes", "--connect", pushed.session.uri)
    guest_agents.hang(guest)
    hung = dynmem("agent", "push", "pushed", *command)
    guest_agents.go_on(guest)
    assert hung.returncode == 1
    assert "does not answer" in hung.stderr
    assert "restart qemu-guest-agent in the guest" in hung.stderr

    place = INSTALLED.rpartition("/")[0]
    guest.workload.exec(f"mkdir -p {place}; mount -t tmpfs -o size=64k full {place}")
    full = dynmem("agent", "push", "pushed", *command)
    guest.workload.exec(f"umount {place}")
    assert full.returncode == 1
    assert "No space left on device" in full.stderr
    assert files_of_ours(guest) == ""

    with GuestAgentLine(guest.session.uri, "pushed") as line:
        talk = GuestAgent(line, time.monotonic, time.sleep)
        for way_on in ("push", "remove"):
            with pytest.raises(CutOffError):
                list(delivery.push(talk, CONTENT, cut_off))
            assert DROP in files_of_ours(guest)
            done = dynmem("agent", way_on, "pushed", *command, limit=120)
            assert done.returncode == 0, done.stdout + done.stderr
            assert (INSTALLED in files_of_ours(guest)) == (way_on == "push")
            assert list(delivery.remove(talk))
            assert files_of_ours(guest) == ""

        with pytest.raises(GuestAgentAbsent) as ended:
            list(delivery.push(talk, CONTENT, lambda _: guest.stop()))
    print("\n", hung.stderr, full.stderr, ended.value)


class Wire:
    """QEMU's end of the guest agent's port, without libvirt: the second way to the same interface."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._socket.settimeout(60)
        self._rest = b""

    def __call__(self, request: str) -> str:
        if request:
            self._socket.sendall(request.encode() + b"\n")
        while b"\n" not in self._rest:
            self._rest += self._socket.recv(1 << 16)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def wait_answering(self, limit: float) -> None:
        """Until the guest agent answers with the number that it is asked for."""
        until = time.monotonic() + limit
        self._socket.settimeout(2)
        number = 0
        while time.monotonic() < until:
            number += 1
            sync = {"execute": "guest-sync", "arguments": {"id": number}}
            try:
                answer = self(json.dumps(sync))
                # What was asked before it listened is answered first.
                while json.loads(answer).get("return") != number:
                    answer = self("")
            except (TimeoutError, ValueError):
                continue
            self._socket.settimeout(60)
            return
        raise AssertionError(f"no guest agent within {limit:g} s")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    for tool in ("mmdebstrap", "qemu-system-x86_64", "mke2fs"):
        if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            pytest.skip(f"needs {tool}")
    with booted(system_image(), tmp_path_factory.mktemp("systemd"), 1, "true", guest_agent=True) as machine:
        yield machine


@pytest.mark.faults
def test_under_systemd_the_agent_reports_seconds_after_the_push_and_nothing_of_it_is_left(
    machine: Machine,
) -> None:
    line = Wire(machine.guest_agent_socket)
    line.wait_answering(240)
    talk = GuestAgent(line, time.monotonic, time.sleep)
    begun = time.monotonic()
    print("", *bring(talk), sep="\n  ")
    hello = machine.hear(wire.Hello, 60)
    print(f"pushed and heard after {time.monotonic() - begun:.1f} s")
    assert isinstance(hello, wire.Hello)
    # Hardened as it is, it may still do its work.
    machine.tell(wire.Welcome("test"))
    machine.tell(wire.OnlineZone(7, "movable"))
    answer = machine.hear(wire.Ack, 60)
    assert isinstance(answer, wire.Ack)
    assert answer.ok, answer.detail
    shown = talk.run(["/bin/systemctl", "show", "--property=ActiveState,OOMScoreAdjust", "dynmem-agent"], 60)
    assert "ActiveState=active" in shown.output
    assert "OOMScoreAdjust=-950" in shown.output
    print(*delivery.remove(talk), sep="\n  ")
    find = (
        "find / -xdev -name '*dynmem-agent*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/var/log/*'"
    )
    assert talk.run(["/bin/sh", "-c", find], 60).output == ""
    gone = talk.run(["/bin/systemctl", "is-active", "dynmem-agent"], 60)
    assert gone.output.strip() == "inactive"
