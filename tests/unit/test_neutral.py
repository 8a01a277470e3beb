"""Texts from elsewhere command nothing: no terminal, no layout, no markup, no formula, in any view."""

import json
import re
import shlex
import sys
import unicodedata
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from host_controller import cli
from host_controller.api import answer
from host_controller.api.client import Client
from host_controller.cli import events, explain, history, manage, status
from host_controller.cli.run import _log_to_stderr
from host_controller.cli.screen import View, picture
from host_controller.errors import InputError
from host_controller.neutral import by_name, neutral, neutral_lines, shell_word
from tests.unit.cli.test_versions import answers  # noqa: F401 # a fixture

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31mred",
    "a\u202egnp.exe",
    "\u2066\u2069",
    "\u200b\ufeff",
    "[bold]x[/bold]",
    "[/]",
    "[link=file:///etc/passwd]x[/link]",
    "$x^$",
    "a\nb\rc",
    "\u2028\u2029",
    "\ud800",
    "\U000e0041",
    "\x7f\x08",
    "e" + "\u0301" * 50,
    "\ue000",
    "%s{}{0}",
    "\\",
    "</script><script>",
    "x" * 5000,
)


def harmless(text: str) -> bool:
    """No character that is not shown as itself; lines of ours apart."""
    return all(one.isprintable() for one in text.replace("\n", ""))


@given(st.text(st.characters(), max_size=300))
def test_what_comes_out_is_printable_and_as_it_was_where_it_was_harmless(text: str) -> None:
    shown = neutral(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    plain = "".join(
        one for one in text if one.isprintable() and not unicodedata.category(one).startswith("M")
    )
    assert all(one in shown for one in plain)
    assert neutral(shown) == shown


def test_every_code_point_of_unicode_is_printable_afterwards() -> None:
    for start in range(0, sys.maxunicode + 1, 1000):
        assert neutral(
            "".join(map(chr, range(start, min(start + 1000, sys.maxunicode + 1)))), 1000
        ).isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_no_view_lets_a_hostile_text_through(answers: dict[str, Any], text: str) -> None:  # noqa: F811
    told = json.loads(json.dumps(answers))

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoil(one) for key, one in value.items()}
        if isinstance(value, list):
            return [spoil(one) for one in value]
        return text if isinstance(value, str) else value

    spoilt = {name: answer.read(json.dumps(spoil(one)).encode()) for name, one in told.items()}
    lines = [
        *status.host_lines(spoilt["status"]["host"]),
        *status.vm_lines(spoilt["status"]["vms"]),
        *explain.lines(spoilt["explain"]),
        *history.lines(spoilt["history"]),
        *(events.entry_line(one) for one in spoilt["history"]["entries"]),
    ]
    assert [line for line in lines if not harmless(line)] == []
    console = Console(width=300, height=60, force_terminal=False)
    view = View("name")
    view.note(spoilt["status"])
    with console.capture() as captured:
        console.print(picture(spoilt["status"], view, 300, 60))
    assert harmless(captured.get())
    if text.startswith("["):
        assert text in captured.get(), "markup is shown as it is"


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_command_says_it_did_or_could_not_is_neutral(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(Client, "post", lambda *_: answer.Answer(done=f"paused {text}"))
    said = CliRunner().invoke(manage.pause, ["web"]).output
    assert said.startswith("paused ")
    assert harmless(said)

    def fail(*_: object, **__: object) -> None:
        raise InputError(text, vm=text, hint=text)

    monkeypatch.setattr(cli.group, "main", fail)
    monkeypatch.setattr(cli.click, "echo", lambda line, err: printed.append(line))
    printed: list[str] = []
    with pytest.raises(SystemExit):
        cli.main()
    assert harmless(printed[0])


@pytest.mark.parametrize("text", HOSTILE)
def test_no_line_of_the_log_is_more_than_text(capsys: pytest.CaptureFixture[str], text: str) -> None:
    before = structlog.get_config()
    try:
        _log_to_stderr()
        structlog.get_logger().info(text, vm=text, nested={"a": [text]}, error=ValueError(text).args[0])
    finally:
        structlog.configure(**before)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert harmless(said)


def test_lines_of_ours_stay_lines() -> None:
    assert neutral_lines("a\n b\x1b\n") == "a\n b?\n"


def test_names_sort_as_people_count() -> None:
    names = ["fake10", "fake2", "fake1", "Fake3", "a", "1", "10", "2", "fake02b", "x" * 10, "9" * 5000]
    assert sorted(names, key=by_name)[:8] == ["1", "2", "10", "9" * 5000, "a", "fake1", "fake2", "fake02b"]
    assert sorted(["vm-10-2", "vm-9-10", "vm-9-9"], key=by_name) == ["vm-9-9", "vm-9-10", "vm-10-2"]


@given(st.lists(st.text(max_size=8), max_size=8))
def test_any_names_can_be_sorted_and_the_order_is_one(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=by_name) == sorted(backwards, key=by_name)


def test_the_pages_neutralise_what_they_show() -> None:
    sources = list((Path(cli.__file__).parent.parent / "api/page").rglob("*.js"))
    assert len(sources) >= 5
    texts = [one.read_text() for one in sources]
    assert not any("innerHTML" in text or "insertAdjacentHTML" in text for text in texts)
    assert any("\\p{C}" in text for text in texts)


@pytest.mark.parametrize("name", ["web", "my vm", "a; rm -rf /", "$(id)", "it's", "-x", "ü"])
def test_a_command_that_we_propose_takes_any_name_for_one_word(name: str) -> None:
    words = shlex.split(f"dynmem release {shell_word(name)}")
    assert [one for one in words if one != "--"] == ["dynmem", "release", name]
    assert ("--" in words) == name.startswith("-")


PROPOSED: Final = re.compile(r"\b(dynmem|virsh) [a-z]+[^\"`{}]* \{(?!shell_word)[a-z_.]*(name|vm)\}")


def test_no_command_that_we_propose_has_a_name_as_it_is() -> None:
    root = Path(__file__).parents[2] / "host_controller"
    raw = [
        f"{path.name}: {found.group(0)}"
        for path in root.rglob("*.py")
        for found in PROPOSED.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not raw


BEHIND: Final = re.compile(r"\{(?:shell_word\([^{}]*\)|word)\} -.*")


def test_options_of_a_command_that_we_propose_stand_before_the_name() -> None:
    """Behind `-- -web` an option is a word like any other."""
    root = Path(__file__).parents[2] / "host_controller"
    texts = {path.name: path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    assert [f"{name}: {one}" for name, text in texts.items() for one in BEHIND.findall(text)] == []
