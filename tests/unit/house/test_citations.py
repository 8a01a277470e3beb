"""Rules and facts have addresses: whoever meets one in code finds it in docs/rules.md or docs/facts.md."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NAME = r"[a-z]+(?:-[a-z]+)+"
CITED = re.compile(rf"\b(fact|rule)s?: ({NAME}(?:, {NAME})*)")
NUMBERED = re.compile(r"\b(?:traps? \d|facts?: ?\d|rules? \d)")
HOMES = {"fact": "docs/facts.md", "rule": "docs/rules.md"}


def _texts() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.md"], cwd=ROOT, check=True, capture_output=True
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).exists()]
    # A citation may be broken over two lines of a comment.
    return {name: re.sub(r"\n\s*#? *", " ", (ROOT / name).read_text()) for name in names}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return _texts()


def addresses(document: str) -> list[str]:
    return re.findall(rf"^### ({NAME})$", (ROOT / document).read_text(), re.MULTILINE)


def citations(texts: dict[str, str]) -> list[tuple[str, str, str]]:
    return [
        (where, kind, name)
        for where, text in texts.items()
        if where != Path(__file__).relative_to(ROOT).as_posix()
        for kind, names in CITED.findall(text)
        for name in names.split(", ")
    ]


def test_every_rule_and_fact_that_is_cited_has_an_address(texts: dict[str, str]) -> None:
    known = {kind: addresses(home) for kind, home in HOMES.items()}
    found = citations(texts)
    assert len(found) > 50
    assert [cited for cited in found if cited[2] not in known[cited[1]]] == []


def test_no_address_is_given_twice() -> None:
    for home in HOMES.values():
        names = addresses(home)
        assert sorted(set(names)) == sorted(names)


def test_nothing_is_cited_by_a_number_that_nobody_can_look_up(texts: dict[str, str]) -> None:
    here = Path(__file__).relative_to(ROOT).as_posix()
    numbered = {name: NUMBERED.findall(text) for name, text in texts.items() if name != here}
    assert {name: found for name, found in numbered.items() if found} == {}
