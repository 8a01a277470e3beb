"""What every command has in common: words that cannot be are refused, and an answer has one form."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from host_controller.cli import advise, hook, main, simulate
from host_controller.cli.manual import pages
from host_controller.cli.text import json_text
from host_controller.errors import InputError

CLI: Final = Path(advise.__file__).parent


def ended(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> object:
    """The exit status of a command line."""
    monkeypatch.setattr("sys.argv", ["dynmem", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_ctrl_c_ends_a_command_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("host_controller.cli.events.Client.follow", interrupted)
    assert ended(monkeypatch, "events", "--follow") == 130
    assert "".join(capsys.readouterr()).strip() == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("history", "web", "--json", "--plot", "x.png"), "--json and --plot cannot be had at once"),
        (("history", "web", "--plot", "x.png", "--export", "csv"), "--plot and --export cannot be had at"),
        (("explain", "web", "--json", "--plot", "x.png"), "--json and --plot cannot be had at once"),
        (("history", "web", "--since", "-1h"), "--since: '-1h' is not a duration"),
        (("release", "web", "--wait", "nan"), "'nan' is no number of seconds"),
        (("release", "web", "--wait", "-5"), "-5.0 is not in the range"),
        (("top", "--interval", "nan"), "'nan' is no number of seconds"),
        (("top", "--interval", "2min"), "120.0 is not in the range"),
        (("forecast", "--shape", "0G"), "0G is no size: it must be more than nothing"),
        (("run", "--capacity", "0"), "0 is no size"),
        (("simulate", "--history", "x", "--plot", "x.png"), "--plot draws what FILE gives"),
        (("simulate", "--history", "x", "--law", "static"), "--law is for FILE"),
        (("simulate", "--replay", "x", "--law", "dynmem"), "--law is for FILE"),
        (("simulate", "--replay", "x", "--with", "web:weight=x"), "'x' is no whole number"),
        (("simulate", "--replay", "x", "--with", "web:maximum=4"), "did you mean 4G?"),
        (("adopt", "web", "--startup", "1G"), "--startup is of the next start"),
        (("adopt", "--all", "--startup", "1G", "--dry-run"), "--startup is of the next start"),
        (("status", "--nosuch"), "No such option"),
        (("verify", "--plot", "/nowhere/x.png"), "there is no directory '/nowhere'"),
        *(
            ((*words, "--plot", "x.jpg"), "'x.jpg' says no format that a picture can have")
            for words in (("history", "web"), ("explain", "web"), ("simulate", "x.toml"), ("verify",))
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert ended(monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert (out, said in " ".join(err.split())) == ("", True), err


@pytest.mark.parametrize("part", ["install", "remove"])
@pytest.mark.parametrize("place", ["a file", "a directory of that name"])
def test_a_hook_that_cannot_be_read_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str, place: str
) -> None:
    where = tmp_path / "hooks"
    if place == "a file":
        where.write_text("")
    else:
        (where / "dynmem").mkdir(parents=True)
    assert ended(monkeypatch, "hook", part, "--directory", where) == 2
    assert capsys.readouterr().err.startswith(f"dynmem: {where / 'dynmem'}: ")


def test_a_file_below_a_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Not a directory"):
        hook._refuse_if_others_can_write(tmp_path / "file" / "x")


def test_what_is_advised_in_json_has_nothing_behind_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Past:
        name, uuid, end = "web", "1", 0.0

    class One:
        past = Past()

        def as_json(self) -> dict[str, str]:
            return {"name": "web"}

    class Found:
        vms = (One(),)

        def as_json(self, chosen: Sequence[One]) -> dict[str, object]:
            return {"vms": [one.as_json() for one in chosen]}

    monkeypatch.setattr(advise, "read_pasts", lambda *_: [Past()])
    monkeypatch.setattr(advise, "running_capacity", lambda *_: None)
    monkeypatch.setattr("host_controller.advice.advise.advise", lambda *_, **__: Found())
    monkeypatch.setattr(advise, "_apply", lambda *_: print("web has a maximum of 4 GiB now"))
    ended(monkeypatch, "advise", "web", "--apply", "--json")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"vms": [{"name": "web"}]}
    assert err == "web has a maximum of 4 GiB now\n"


def test_json_is_written_in_one_way_but_for_streams_which_are_lines() -> None:
    own_way = [path.name for path in CLI.glob("*.py") if "json.dumps(" in path.read_text(encoding="utf-8")]
    assert sorted(own_way) == ["events.py", "export.py", "text.py"]
    assert json_text({"a": [1]}) == '{\n  "a": [\n    1\n  ]\n}'


def test_an_example_is_shown_as_it_stands_in_help_and_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, "simulate", "--help") == 0
    assert '\n  [host]\n  capacity = "16GiB"\n' in capsys.readouterr().out
    page = dict(pages())["dynmem-simulate.1"]
    assert '\n.nf\n[host]\ncapacity = "16GiB"\n' in page
    assert "\b" not in page


def test_the_example_of_the_help_can_be_simulated(tmp_path: Path) -> None:
    from host_controller.simulator.trial_file import read_trial

    help_text = simulate.simulate.help or ""
    shown = help_text.partition("\b\n")[2].partition("\n\n")[0]
    (tmp_path / "host.toml").write_text(shown)
    assert [vm.spec.name for vm in read_trial(tmp_path / "host.toml").vms] == ["web1", "web2", "web3"]


def test_the_log_of_run_has_no_colours_where_the_user_wants_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import structlog

    from host_controller.cli import run

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    try:
        run._log_to_stderr()  # what is in force is the whole of it
        structlog.get_logger().warning("noted")
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr().err
    assert "noted" in said
    assert "\033" not in said
