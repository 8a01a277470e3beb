"""`dynmem history`, `events`, `pause`, `resume`, `reload`, `check-config`: by their output and exit codes."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from host_controller.api.schema.checks import CheckView
from host_controller.api.schema.history import EntryView, HistoryView
from host_controller.cli import COMMANDS, group
from host_controller.cli.events import events
from host_controller.cli.explain import explain
from host_controller.cli.history import HEAD, _row, history
from host_controller.cli.manage import check_config, pause, reload, resume
from host_controller.cli.status import status
from host_controller.errors import InputError
from host_controller.units import MIB
from tests.support.serving import invoke, served
from tests.support.virtual import Host, aside, run, until

RUN = "from host_controller.cli import main; main()"


def told(tmp_path: Path, command: Any, *arguments: str) -> str:
    """What a command says of a VM that was squeezed a while ago."""

    async def story() -> str:
        host = Host()
        vm = host.vm("web")
        async with served(host, tmp_path):
            await until(lambda: vm.actual_bytes < 512 * MIB, "web gets smaller")
            return (await aside(invoke, command, tmp_path, *arguments)).output

    return run(story())


def test_history_is_a_table_and_the_last_events(tmp_path: Path) -> None:
    lines = told(tmp_path, history, "web").splitlines()
    assert lines[0].startswith("web: ")
    assert lines[1].split()[:2] == ["TIME", "ASSIGNED"]
    assert "1 GiB" in lines[2]
    assert any("shrink" in line or "SetTarget done" in line for line in lines)
    assert len(lines) < 60


def test_a_vm_that_was_not_heard_yet_has_no_pressure() -> None:
    sizes = dict.fromkeys(("assigned_bytes", "goal_bytes", "charge_bytes"), MIB)
    for demand, shown in ((None, ["-", "-"]), (0, ["0 B", "0"])):
        sample = {"at": 0, "demand_bytes": demand, "pressure_percent": 0.0, "phase": "starting", **sizes}
        row = dict(zip(HEAD, _row(sample), strict=True))
        assert [row["DEMAND"], row["PRESS"]] == shown


def test_history_and_events_in_json_have_the_documented_shape(tmp_path: Path) -> None:
    answer = msgspec.convert(json.loads(told(tmp_path, history, "web", "--json")), HistoryView)
    assert answer.samples
    for line in told(tmp_path, events, "--vm", "web", "--json").splitlines():
        assert msgspec.convert(json.loads(line), EntryView).name == "web"


def test_history_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "web.png"
    assert "drawn" in told(tmp_path, history, "web", "--plot", str(file))
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_balance_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "balance.png"
    assert "drawn" in told(tmp_path, explain, "web", "--plot", str(file))
    assert file.read_bytes().startswith(b"\x89PNG")


def test_events_are_lines_without_colour_in_a_pipe(tmp_path: Path) -> None:
    text = told(tmp_path, events)
    assert "web was found running" in text
    assert "\033" not in text


def test_of_many_events_the_last_can_be_asked_for(tmp_path: Path) -> None:
    def lines(*arguments: str) -> list[str]:
        """Without the time, since every call is of another run of the same story."""
        return [line.partition("  ")[2] for line in told(tmp_path, events, *arguments).splitlines()]

    everything = lines()
    assert lines("-n", "3") == everything[-3:]
    assert lines("-n", "100000") == everything
    assert lines("-n", "0") == []
    of_web = [line for line in everything if " web " in line]
    assert lines("-n", "2", "--vm", "web") == of_web[-2:]


def test_pause_is_seen_everywhere_and_resume_ends_it(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path):
            await asyncio.sleep(30)
            assert (await aside(invoke, pause, tmp_path, "web")).output.splitlines()[-1] == "paused web"
            await asyncio.sleep(1)
            assert "not managed" in (await aside(invoke, status, tmp_path)).output
            assert (await aside(invoke, resume, tmp_path, "web")).output.splitlines()[-1] == "resumed web"
            assert (await aside(invoke, pause, tmp_path, "--all")).output.splitlines()[-1] == "paused all VMs"
            await asyncio.sleep(1)
            assert "paused: no VM is managed" in (await aside(invoke, status, tmp_path)).output

    run(story())


def test_pause_wants_a_vm_or_all_of_them(tmp_path: Path) -> None:
    for arguments in ([], ["web", "--all"]):
        with pytest.raises(InputError, match="--all"):
            invoke(pause, tmp_path, *arguments)


def test_reload_says_what_the_controller_says(tmp_path: Path) -> None:
    async def story() -> str:
        async with served(Host(), tmp_path):
            return (await aside(invoke, reload, tmp_path)).output

    assert run(story()).endswith("the configuration was read again\n")


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ('[host]\nreserve = "2GiB"\n[http]\nlisten = "127.0.0.1:9876"', 0, "can be used"),
        ('[host]\nreserve = "lots"\n[http]\nlisten = "9876"', 2, "2 problems"),
        ('[http]\nlisten = "127.0.0.1:70000"', 2, "an address and a port"),
        ('[admission]\nwithout_controller = "maybe"', 2, '"allow" or "deny"'),
        ("[[", 2, "TOML"),
        (None, 2, "a file that exists"),
    ],
)
def test_check_config_names_every_mistake_and_exits_with_2(
    tmp_path: Path, text: str | None, code: int, said: str
) -> None:
    file = tmp_path / "dynmem.toml"
    if text is not None:
        file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", RUN, "check-config", "--offline", str(file)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert str(file) in done.stdout + done.stderr


def test_check_config_in_json_names_each_mistake_by_its_key(tmp_path: Path) -> None:
    file = tmp_path / "dynmem.toml"
    for text, keys, code in (
        ("", [], 0),
        ('[host]\nreserve = "lots"\nspare = 1', ["host.reserve", "host.spare"], 2),
    ):
        file.write_text(text)
        done = CliRunner().invoke(check_config, [str(file), "--json", "--offline"])
        checked = msgspec.convert(json.loads(done.output), CheckView)
        assert (checked.file, [one.key for one in checked.problems]) == (str(file), keys)
        assert done.exit_code == code


def wordy(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """Commands that take a word as their first argument: a VM's name, a host's."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            one = command.get_command(context, name)
            assert one is not None
            yield from wordy(one, *path, name)
        return
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    if arguments and isinstance(arguments[0].type, click.types.StringParamType):
        yield path


WORDY = list(wordy(group))


def test_commands_of_every_kind_take_words() -> None:
    assert {("explain",), ("enable",), ("fleet", "drain"), ("agent", "push")} <= set(WORDY)


@pytest.mark.parametrize("path", WORDY, ids=" ".join)
def test_a_word_that_is_no_text_is_refused_before_anything_is_done(path: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(group, [*path, "a\udcffb"])
    assert (answer.exit_code, type(answer.exception)) == (2, SystemExit)
    assert "'a?b' is no text in UTF-8" in answer.output or "Missing option" in answer.output


@pytest.mark.parametrize("path", WORDY, ids=" ".join)
def test_an_empty_word_is_refused_before_anything_is_done(path: tuple[str, ...]) -> None:
    """As that of a variable which is not set: of `pause ""` the controller was taken for an older one."""
    answer = CliRunner().invoke(group, [*path, ""])
    assert (answer.exit_code, type(answer.exception)) == (2, SystemExit)
    assert "it is empty" in answer.output or "Missing option" in answer.output


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    from click import Context

    command = group.get_command(Context(group), name)
    assert command is not None
    assert command.help
    assert command.get_short_help_str()
