"""The command `dynmem` on a machine that lacks one of its libraries."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
WITHOUT: Final = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == LIBRARY:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

LIBRARY = sys.argv.pop(1)
sys.meta_path.insert(0, Missing())
from host_controller.start import main
sys.exit(main())
"""


def started_without(library: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", WITHOUT, library, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("click", "status"),
        ("aiohttp", "run"),
        ("libvirt", "doctor"),
        ("msgspec", "run"),
        ("structlog", "run"),
    ],
)
def test_without_a_library_a_command_says_which_package_to_install(library: str, command: str) -> None:
    done = started_without(library, command)
    assert done.returncode == 1
    expected = f"dynmem {command} needs the package python3-{library}, which is not installed: install it"
    assert done.stderr.startswith(expected)
    assert "Traceback" not in done.stderr


def test_the_installed_programs_begin_there() -> None:
    for file in ("debian/bin/dynmem", "pyproject.toml"):
        assert "host_controller.start" in (ROOT / file).read_text()
