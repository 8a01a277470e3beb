"""`dynmem agent push` and `remove`, and `dynmem verify` before it starts anything: what the operator sees."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from agent.installation import DROP
from host_controller import hook
from host_controller.cli import agent as cli
from host_controller.cli import verify
from host_controller.cli.agent import agent
from host_controller.delivery.agent_file import agent_file
from host_controller.delivery.push import INSTALLED, PushNotAllowed
from host_controller.errors import InputError
from host_controller.verify.burn_in import session
from tests.support.fake_guest_agent import FakeGuestAgent


class Line(NamedTuple):
    """The way to a guest's guest agent, and what holds its VM."""

    guest: FakeGuestAgent
    busy_with: str | None

    def __call__(self, request: str) -> str:
        return self.guest(request)

    def job(self) -> str | None:
        return self.busy_with


class Desk:
    """The command line in front of one guest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.guest = FakeGuestAgent()
        self.busy_with: str | None = None
        monkeypatch.setattr(cli, "GuestAgentLine", self._line)

    @contextmanager
    def _line(self, _uri: str, name: str) -> Iterator[Line]:
        assert name == "web"
        yield Line(self.guest, self.busy_with)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(agent, [*arguments, "--connect", "test:///default"])


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def test_the_taint_is_said_before_and_without_a_yes_nothing_is_done(desk: Desk) -> None:
    found = desk.run("push", "web")
    assert "tainted" in found.output
    assert isinstance(found.exception, InputError)
    assert found.exception.exit_code == 2
    assert desk.guest.asked == []


def test_with_a_yes_it_is_brought_and_taken_out_again(desk: Desk) -> None:
    found = desk.run("push", "web", "--yes")
    assert found.exit_code == 0, found.output
    assert "In the guest: The agent runs." in found.output
    assert INSTALLED in desk.guest.files
    assert desk.run("remove", "web", "--yes").exit_code == 0
    assert desk.guest.files == {}


@pytest.mark.parametrize("command", ["push", "remove"])
def test_while_a_job_holds_the_vm_its_guest_agent_is_left_alone(desk: Desk, command: str) -> None:
    desk.busy_with = "migration"
    found = desk.run(command, "web", "--yes")
    assert str(found.exception).startswith("web: a job holds it (migration); ")
    assert "once that is over" in str(found.exception)
    assert desk.guest.asked == []


def test_by_hand_are_two_commands_and_nobody_is_asked(desk: Desk) -> None:
    found = desk.run("push", "web", "--by-hand")
    commands = [line.strip() for line in found.output.splitlines() if line.startswith("  ")]
    assert len(commands) == 2
    assert commands[0].startswith("scp ")
    assert commands[1] == "python3 -I /root/dynmem-agent.pyz install"
    assert desk.guest.asked == []


def test_where_programs_are_not_allowed_the_two_commands_are_printed(desk: Desk) -> None:
    desk.guest.forbidden = frozenset({"guest-exec"})
    found = desk.run("push", "web", "--yes")
    assert isinstance(found.exception, PushNotAllowed)
    assert str(found.exception).startswith("web: its guest agent does not allow guest-exec")
    assert "dynmem-agent.pyz install" in found.output


class Controller:
    """A controller that answers, and what it says to a start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> None:
        self.told: list[str] = []
        self.asked = b""
        client = SimpleNamespace(path="/nowhere", get=lambda _what: {})
        monkeypatch.setattr(verify, "Client", lambda _path: client)
        monkeypatch.setattr(verify, "read_meminfo", lambda _text: {"MemAvailable": 1 << 40})
        monkeypatch.setattr(hook, "tell", lambda _path, name, what: self.told.append(f"{name} {what}"))

        def post(_path: str, _where: str, body: bytes, _timeout: float) -> dict[str, Any]:
            self.asked = body
            return answer

        monkeypatch.setattr(hook, "post", post)


def test_a_running_controller_reserves_what_a_burn_in_takes_and_has_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller = Controller(monkeypatch, {"admitted": True})
    with verify._room(None):
        assert f">{session.MOST_BYTES >> 10}<".encode() in controller.asked
        assert controller.told == []
    assert controller.told == ["dynmem-verify stopped"]


def test_where_the_controller_refuses_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    Controller(monkeypatch, {"admitted": False, "message": "no room"})
    with pytest.raises(InputError, match="no room; nothing was started"), verify._room(None):
        pytest.fail("it must not be started")


def test_a_host_that_cannot_spare_it_is_told_how_much_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "read_meminfo", lambda _text: {"MemAvailable": session.MOST_BYTES - 1})
    with pytest.raises(InputError, match="are needed and"), verify._room(None):
        pytest.fail("it must not be started")


def test_user_data_for_cloud_init_hold_the_whole_file_and_install_it(tmp_path: Path) -> None:
    found = CliRunner().invoke(agent, ["cloud-config"])
    assert found.exit_code == 0
    assert found.output.startswith("#cloud-config\n")
    packed = next(line for line in found.output.splitlines() if "content: " in line).partition("content: ")[2]
    assert packed[0] + packed[-1] == "''"
    assert "'" not in packed[1:-1]
    unpack, install = found.output.partition("runcmd:\n")[2].splitlines()
    assert install == f"  - [python3, -I, {DROP}, install]"
    there = tmp_path / Path(DROP).name
    script = unpack.partition('"')[2].partition('"')[0].replace(DROP, str(there))
    Path(f"{there}.bz2.b85").write_text(packed[1:-1])
    assert subprocess.run([sys.executable, "-I", "-c", script]).returncode == 0
    assert there.read_bytes() == agent_file()
    assert list(tmp_path.iterdir()) == [there]
    assert len(found.output) < 64 << 10
    assert CliRunner().invoke(agent, ["cloud-config"]).output == found.output
