"""Man pages and completion come from the commands themselves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click import Context

from host_controller.cli import COMMANDS, group
from host_controller.cli.manual import main, pages
from host_controller.config import Config, parse
from host_controller.config.rule import RuleSection

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
