"""What people are told to do can be done where they are: hosts and guests are of any distribution."""

import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3]
OF_ONE_DISTRIBUTION = re.compile(r"\b(apt|apt-get|dpkg|dnf|yum|rpm|zypper|apk|pacman) -?-?[a-z]")


@pytest.mark.parametrize("package", ["agent", "host_controller"])
def test_no_text_names_the_package_tool_of_one_distribution(package: str) -> None:
    found = {
        f"{file.name}: {one[0]}"
        for file in sorted((SOURCES / package).rglob("*.py"))
        for one in OF_ONE_DISTRIBUTION.finditer(file.read_text())
    }
    assert found == set()
