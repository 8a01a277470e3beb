"""What a document names is there."""

import re
import subprocess
from pathlib import Path

import click
import pytest

from agent.commands import cli as agent
from host_controller.cli import group

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "vagrant/README.md"])
COMMANDS = re.compile(r"(?:^|[|;&] ?|\.venv/bin/|nice -n 19 )(dynmem(?:-agent)?) ([^|#;&]*)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_test_that_a_document_names_exists(path: Path) -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", path.read_text()))
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named <= set(re.findall(r"def (test_[a-z0-9_]+)\(", tests))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_file_and_make_target_that_a_document_names_exists(path: Path) -> None:
    text = path.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)`", text)) <= targets
    links = [link.split("#") for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [file for file, *_ in links if not (path.parent / file).exists()] == []
    to_headings = [(path.parent / file if file else path, *anchor) for file, *anchor in links if anchor]
    assert [link for link in to_headings if link[1] not in headings(link[0])] == []
    tests = re.findall(r"\btests/[a-z0-9_/]+\.[a-z]+", text)
    assert [one for one in tests if not (ROOT / one).exists()] == []


@pytest.fixture(scope="module")
def commits() -> list[str]:
    """All that led here."""
    told = subprocess.run(["git", "rev-list", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if told.returncode or (ROOT / ".git/shallow").exists():
        pytest.skip("this copy has no history")
    return told.stdout.split()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_commit_on_which_something_was_measured_is_in_the_history(
    path: Path, commits: list[str]
) -> None:
    """Of those with a letter in it: what has digits alone may be a figure."""
    words = re.findall(r"(?<!EFLAGS )\b(?=\w*\d)(?=\w*[a-f])[0-9a-f]{7,8}\b", path.read_text())
    assert [one for one in words if not any(commit.startswith(one) for commit in commits)] == []


def headings(path: Path) -> set[str]:
    found = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in found}


def test_what_readme_has_a_user_make_installs_nothing_that_is_for_tests() -> None:
    """A browser, and Cockpit, which listens, have no business on somebody's host."""
    made = re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", (ROOT / "README.md").read_text())
    targets = set(made) - {"test", "test-domains"}
    assert {"demo", "packages", "command", "vagrant-lab"} <= targets
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", "--no-print-directory", *sorted(targets)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "install-packages lab/packages.txt" in done.stdout
    assert "test-packages.txt" not in done.stdout


def test_each_claim_about_security_names_the_file_of_its_test() -> None:
    """And the test stands there: a reader finds it."""
    claims = re.findall(r"`(test_[a-z0-9_]+)`(?: \(([a-z0-9_/.]+)\))?", (ROOT / "SECURITY.md").read_text())
    assert len(claims) > 50
    wrong = [
        (name, file)
        for name, file in claims
        if not file or f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert wrong == []


def test_no_claim_about_security_stands_without_a_test() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    tables = re.findall(r"\| claim \| shown by \|\n\|[-|]+\|\n((?:\|.*\n)+)", text)
    rows = [line for table in tables for line in table.splitlines()]
    assert len(rows) > 40
    assert [row for row in rows if "`test_" not in row.split("|")[2]] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_command_and_option_that_a_document_shows_exists(path: Path) -> None:
    text = path.read_text()
    shown = re.findall(r"`([^`]+)`", text) + [line for line in text.splitlines() if line.startswith("    ")]
    wrong = []
    for words in shown:
        for program, rest in COMMANDS.findall(" ".join(words.split())):
            command: click.Command | None = group if program == "dynmem" else agent
            named = [word.partition("=")[0].rstrip(".,)") for word in rest.split()]
            while isinstance(command, click.Group) and named and not named[0].startswith("-"):
                command = command.get_command(click.Context(command), named.pop(0))
            known = {"--help"}
            for option in command.params if command else []:
                known |= {*option.opts, *option.secondary_opts}
            if command is None or any(word.startswith("-") and word not in known for word in named):
                wrong.append(words)
    assert wrong == []
