"""`dynmem adopt` and `release` as one types them, on libvirt's driver for tests, which has no QEMU."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from host_controller.adoption.carry_out import Clock
from host_controller.adoption.facts import Refused
from host_controller.adoption.giving_back import Room, plan_release
from host_controller.api.client import SOCKET_VARIABLE, ControllerUnreachable, RequestRefused, socket_of
from host_controller.api.schema.adoption import AdoptionsView
from host_controller.cli import adoptions, group
from host_controller.cli import release as command
from host_controller.domain_xml.dom import same
from host_controller.errors import InputError
from host_controller.hypervisor.definitions import Definitions
from host_controller.units import MIB
from tests.support.libvirt_domain import LibvirtDomain
from tests.support.others import VIRT_INSTALL
from tests.unit.adoption.test_adoption import CONTROLLER, adopt

STRANGE = RequestRefused("unknown-vm", "no managed VM 'web' is running", None)
HERE = ("--connect", "test:///default")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, [*arguments, *HERE])


def test_what_cannot_be_adopted_is_refused_with_the_way_out_and_code_2() -> None:
    done = run("adopt", "test", "--json")
    assert done.exit_code == 2
    assert len(msgspec.json.decode(done.output, type=AdoptionsView).vms) == 1
    (view,) = json.loads(done.output)["vms"]
    assert (view["name"], view["outcome"], view["steps"]) == ("test", "refused", [])
    assert "only QEMU's" in view["reason"]
    assert view["way_out"]


def test_of_all_vms_those_that_cannot_be_adopted_are_no_failure() -> None:
    done = run("adopt", "--all", "--dry-run")
    assert done.exit_code == 0
    assert "test: refused: it is a domain of type 'test'" in done.output


@pytest.mark.parametrize("command", [["adopt", "--all", "--dry-run"], ["rules"]])
def test_a_vm_that_ends_in_the_middle_keeps_nobody_else_from_their_turn(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, gone = Definitions.listed, "00000000-0000-4000-8000-000000000000"

    def with_one_that_ends(self: Definitions, **which: bool) -> list[tuple[str, str]]:
        return [("ended", gone), *listed(self, **which)]

    monkeypatch.setattr(Definitions, "listed", with_one_that_ends)
    done = run(*command)
    assert done.exit_code == 0
    assert f"there is no domain '{gone}'" in done.output
    assert "\ntest" in done.output


def test_what_is_interrupted_while_it_is_given_back_is_managed_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.has(700 * MIB)
    managed = one.live or ""

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(one, "sleep", interrupted)
    monkeypatch.setattr(command, "clock", lambda limit: Clock(lambda: 0.0, one.sleep, limit))
    with pytest.raises(KeyboardInterrupt):
        command._give_back(plan_release(one.facts(), CONTROLLER), one, 60.0, lambda vm, text: None)
    assert same(one.live or "", managed)


def test_a_pattern_that_fits_nobody_is_said() -> None:
    assert "no VM runs whose name fits web-*" in run("adopt", "--match", "web-*").output


def test_a_vm_that_there_is_not_is_refused_and_the_others_go_on() -> None:
    done = run("adopt", "nobody", "test", "--json")
    first, second = json.loads(done.output)["vms"]
    assert "there is no domain" in first["reason"]
    assert second["outcome"] == "refused"


@pytest.mark.parametrize(
    "arguments", [[], ["--all", "--match", "x"], ["test", "--all"], ["test", "--match", "x"]]
)
def test_which_vms_are_meant_is_said_in_one_way(arguments: list[str]) -> None:
    done = run("adopt", *arguments)
    assert isinstance(done.exception, InputError)


@pytest.mark.parametrize("value", ["101%", "0%", "1M", "lots"])
def test_a_size_that_cannot_be_is_named(value: str) -> None:
    done = run("adopt", "test", "--minimum", value)
    assert done.exit_code == 2
    assert value in done.output


class Answers:
    """A controller's socket: what is said to each question in turn; the last answer stays."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)

    def __call__(self, _path: str) -> "Answers":
        return self

    def get(self, *_steps: str) -> None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


@pytest.mark.parametrize(
    ("answers", "manages", "said"),
    [
        ([None], True, ""),
        ([STRANGE, STRANGE, None], True, ""),
        ([STRANGE], False, "does not know web: it is of another libvirt"),
        ([ControllerUnreachable("nobody")], None, "systemctl start dynmem"),
    ],
)
def test_a_controller_counts_that_knows_the_vm_and_is_given_time_to_notice(
    answers: list[Exception | None],
    manages: bool | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(adoptions, "Client", Answers(*answers))
    monkeypatch.setattr(adoptions, "KNOWN_SECONDS", 0.01)
    limit_seconds = 60.0 if manages else 0.0
    assert adoptions.controller_of("uuid", "/socket", limit_seconds) is manages
    adoptions.told_of_controller(adoptions.Result("web"), manages)
    shown = capsys.readouterr().out
    assert said in shown
    assert bool(shown) == bool(said)


def test_the_controller_that_is_asked_is_the_one_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the option, else by the environment, as Cockpit's page does it, else by the configuration."""
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    assert socket_of(None, Path("/configured")) == "/configured"
    monkeypatch.setenv(SOCKET_VARIABLE, "/exported")
    assert socket_of(None, Path("/configured")) == "/exported"
    assert socket_of("/named", Path("/configured")) == "/named"
    asked: list[str] = []
    monkeypatch.setattr(command, "controller_of", lambda uuid, socket: asked.append(socket))
    monkeypatch.setattr(command, "Definitions", lambda uri: Definitions(HERE[1]))
    run("release", "test")
    run("release", "test", "--socket", "/named")
    assert asked == ["/exported", "/named"]


def test_what_was_not_adopted_is_not_released() -> None:
    done = run("release", "test", "--json")
    assert done.exit_code == 2
    (view,) = json.loads(done.output)["vms"]
    assert (view["outcome"], view["reason"]) == ("refused", "it is not adopted")


def test_what_this_machine_has_available_is_no_room_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[Room] = []

    def judged(_facts: object, room: Room) -> None:
        rooms.append(room)
        raise Refused("it was only asked")

    monkeypatch.setattr(command, "controller_of", lambda *asked: None)
    monkeypatch.setattr(command, "plan_release", judged)
    monkeypatch.setattr(command, "Definitions", lambda uri: Definitions(HERE[1]))
    for uri in ("qemu:///system", "qemu+ssh://n2/system"):
        CliRunner().invoke(group, ["release", "test", "--connect", uri])
    assert [room.spare_bytes is None for room in rooms] == [False, True]
