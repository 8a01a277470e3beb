"""The CLI of one release asks the controller of the other: every command works, and shows what it can."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from host_controller.api import answer
from host_controller.api.client import Client
from host_controller.cli.screen import View, picture
from host_controller.units import MIB
from tests.meetings.release import Release, Serving


@pytest.fixture(scope="module", params=["old CLI, new controller", "new CLI, old controller"])
def pair(
    request: pytest.FixtureRequest, old: Release, new: Release, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Release, Serving]]:
    cli, controller = (old, new) if request.param.startswith("old") else (new, old)
    with Serving(controller, tmp_path_factory.mktemp("served")) as serving:
        yield cli, serving


@pytest.mark.parametrize(
    ("command", "shows"),
    [
        ("status", "web"),
        ("explain web", "overhead"),
        ("events --lines 5", "decision"),
        ("events --vm web", "web"),
        ("history web", "web"),
        ("history web --since 30min --json", '"samples"'),
    ],
)
def test_a_command_shows_what_the_controller_of_another_release_says(
    pair: tuple[Release, Serving], command: str, shows: str
) -> None:
    cli, serving = pair
    done = cli.dynmem(*command.split(), "--socket", str(serving.socket))
    assert done.returncode == 0, done.stderr
    assert shows in done.stdout
    assert done.stderr == ""


def test_the_figures_are_those_that_the_controller_has(pair: tuple[Release, Serving]) -> None:
    cli, serving = pair
    own = {vm["name"]: vm for vm in Client(str(serving.socket)).get("status")["vms"]}
    done = cli.dynmem("status", "--json", "--socket", str(serving.socket))
    assert {vm["name"]: vm["assigned_bytes"] for vm in json.loads(done.stdout)["vms"]} == {
        name: vm["assigned_bytes"] for name, vm in own.items()
    }
    shown = cli.dynmem("status", "--socket", str(serving.socket)).stdout
    [row] = [line for line in shown.splitlines() if line.startswith("web ")]
    assert f"{own['web']['assigned_bytes'] // MIB} MiB" in row


def test_a_vm_is_paused_and_resumed_across_releases(pair: tuple[Release, Serving]) -> None:
    cli, serving = pair
    client = Client(str(serving.socket))
    for command, held in (("pause", True), ("resume", False)):
        done = cli.dynmem(command, "web", "--socket", str(serving.socket))
        assert done.returncode == 0, done.stderr
        serving.lasts(2.0)
        told = client.get("vms", "web")
        assert told["paused"] is held, told


def test_doctor_judges_the_controller_of_another_release(pair: tuple[Release, Serving]) -> None:
    cli, serving = pair
    done = cli.dynmem("doctor", "--json", "--socket", str(serving.socket))
    assert done.stderr == ""
    assert json.loads(done.stdout)["findings"]


def test_the_live_view_of_this_release_draws_the_answer_of_0_1_0(old: Release, tmp_path: Path) -> None:
    with Serving(old, tmp_path) as serving:
        done = old.dynmem("status", "--json", "--socket", str(serving.socket))
        told = answer.read(done.stdout.encode())
    view = View("name")
    view.note(told)
    screen = Console(width=200, record=True, file=io.StringIO())
    screen.print(picture(told, view, 200, 40))
    assert "web" in screen.export_text()


def test_what_0_1_0_cannot_be_asked_is_said_in_a_sentence(old: Release, new: Release, tmp_path: Path) -> None:
    """As a later command of ours will, it asks for a path that 0.1.0 does not have."""
    with Serving(old, tmp_path) as serving:
        script = "from host_controller.api.client import Client; import sys; Client(sys.argv[1]).get('news')"
        done = new.python(script, str(serving.socket))
    assert "shows whether the controller is older" in done.stderr
