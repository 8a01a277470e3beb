"""debian/tests: what a distribution runs on the installed packages."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "debian/tests"
NAMES = re.findall(r"^Tests: (.*)$", (TESTS / "control").read_text(), re.MULTILINE)


def test_every_test_that_is_named_is_there_and_no_other() -> None:
    assert set(NAMES) == {one.name for one in TESTS.iterdir()} - {"control"}


@pytest.mark.parametrize("name", NAMES)
def test_a_test_is_a_sound_script_that_may_be_run(name: str) -> None:
    subprocess.run(["sh", "-n", TESTS / name], check=True)
    assert os.access(TESTS / name, os.X_OK)
