"""Man pages and completion come from the commands themselves."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click import Command, Context, Group, Option

from agent.commands import cli as agent
from host_controller.cli import COMMANDS, group
from host_controller.cli.manual import main, meanings, pages
from host_controller.config import SECTIONS, Config, parse
from host_controller.config.rule import MatchSection, RuleSection
from tests.support.serving import served
from tests.support.virtual import Host, aside, run, until

RUN = [sys.executable, "-c", "from host_controller.cli import main; main()"]


def test_every_command_and_every_option_is_in_its_page() -> None:
    found = dict(pages())
    for name in COMMANDS:
        command = group.get_command(Context(group), name)
        assert command is not None
        page = found[f"dynmem-{name}.1"]
        title = f"dynmem-{name}".replace("-", "\\-")
        assert f"\\fB{title}\\fR(1)" in found["dynmem.1"]
        for option in (one for one in command.params if one.param_type_name == "option"):
            assert option.opts[0].replace("-", "\\-") in page


def test_every_option_says_what_it_does() -> None:
    def silent(command: Command, words: str) -> list[str]:
        own = [one for one in command.params if isinstance(one, Option) and not (one.help or one.hidden)]
        found = [f"{words} {one.opts[0]}" for one in own]
        if isinstance(command, Group):
            for name in command.list_commands(Context(command)):
                below = command.get_command(Context(command), name)
                assert below is not None
                found += silent(below, f"{words} {name}")
        return found

    assert silent(group, "dynmem") + silent(agent, "dynmem-agent") == []


def test_what_is_done_to_guests_has_pages_beside_that_of_the_program_in_them() -> None:
    found = dict(pages())
    for part in ("push", "remove"):
        assert f"dynmem agent {part}" in found[f"dynmem-agent-{part}.1"]
        assert "\\-\\-yes" in found[f"dynmem-agent-{part}.1"]
    assert "The agent of Dynamic Memory inside a guest" in found["dynmem-agent.1"]


def test_every_key_of_the_configuration_is_in_its_page() -> None:
    page = dict(pages())["dynmem.toml.5"]
    for section in Config.__struct_fields__:
        assert f".SH [{section}]" in page or f".SH [[{section}]]" in page
        kind = RuleSection if section == "rule" else type(getattr(parse(b""), section))
        for key in kind.__struct_fields__:
            assert f".B {key}" in page


def test_every_key_of_the_configuration_says_what_it_is_for_and_its_default() -> None:
    for kind in (*(one.type for one in SECTIONS), RuleSection, MatchSection):
        said = meanings(kind)
        fields = msgspec.structs.fields(kind)
        assert [one.name for one in fields if len(said.get(one.name, "").split()) < 3] == [], kind
        unsaid = [one for one in fields if one.default is None and kind is not MatchSection]
        assert [one.name for one in unsaid if "default" not in said[one.name]] == [], kind


def test_defaults_are_shown_as_people_write_them() -> None:
    page = dict(pages())["dynmem.toml.5"]
    section = page.partition(".SH [history]")[2].partition(".SH [savings]")[0]
    assert "at least 1MiB. Default: 1GiB." in section
    assert "Default: 7d." in section
    assert "How long events, and changes that a plot would show, are kept." in section


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_pages_are_set_without_a_warning(tmp_path: Path) -> None:
    main(tmp_path)
    for page in tmp_path.iterdir():
        done = subprocess.run(
            ["groff", "-Kutf8", "-Tutf8", "-man", "-ww", "-z", page], capture_output=True, text=True
        )
        assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    done = subprocess.run([*RUN, "completion", shell], capture_output=True, text=True, check=True)
    assert "_DYNMEM_COMPLETE" in done.stdout


def test_commands_are_completed() -> None:
    environment = os.environ | {
        "_DYNMEM_COMPLETE": "bash_complete",
        "COMP_WORDS": "dynmem pa",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv[0] = 'dynmem'; from host_controller.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "plain,pause" in done.stdout.splitlines(), done.stderr


NAMES = ("my vm", "a;b$(touch here)", "*", "it's", "back\\slash", 'a "b"', "größe")
WRAPPED = """#!/bin/sh
exec "$PYTHON" -c "import sys; sys.argv[0] = 'dynmem'; from host_controller.cli import main; main()" "$@"
"""
ASKED = """eval "$(dynmem completion bash)"
COMP_WORDS=(dynmem pause "$1") COMP_CWORD=2
_dynmem_completion dynmem
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_what_bash_completes_is_one_word_and_no_command(tmp_path: Path) -> None:
    (tmp_path / "dynmem").write_text(WRAPPED)
    (tmp_path / "dynmem").chmod(0o755)
    (tmp_path / "file").touch()
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "DYNMEM_SOCKET": str(tmp_path / "control.sock"),
    }

    def completed(typed: str) -> list[str]:
        asked = ["bash", "-c", ASKED, "bash", typed]
        done = subprocess.run(asked, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    async def story() -> None:
        host = Host()
        for name in NAMES:
            host.vm(name)
        async with served(host, tmp_path) as (controller, _):
            await until(lambda: len(controller.engine.vms) == len(NAMES), "all of them are known")
            words = await aside(completed, "")
            assert sorted(shlex.split(" ".join(words))) == sorted(NAMES)
            assert len(words) == len(NAMES)
            assert await aside(completed, "my") == ["'my vm'"]
            assert await aside(completed, "'my") == ["my vm"], "the quote is open already"
            assert await aside(completed, '"a;') == [""], "within these it would be run"

    run(story())
