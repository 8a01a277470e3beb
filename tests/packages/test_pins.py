"""Every version that is installed for development is named, and its files are known by their hashes."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "requirements.txt").read_text()
PIN = re.compile(r"^([a-z0-9-]+)==\S+((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n", re.MULTILINE)
PINNED = {name for name, _ in PIN.findall(TEXT)}


def test_there_is_nothing_but_pins_with_hashes() -> None:
    rest = PIN.sub("", TEXT)
    assert [line for line in rest.splitlines() if not line.startswith("#")] == []


def test_no_registry_is_named() -> None:
    assert "://" not in TEXT


def test_whatever_the_project_asks_for_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {
        *project["dependencies"],
        *(one for some in project["optional-dependencies"].values() for one in some),
    }
    assert asked <= PINNED


def test_the_build_of_the_tree_itself_needs_nothing_else() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.split(r"[<>=]", one)[0] for one in needed} <= PINNED
