"""A command whose output cannot be written says so in one sentence, and its exit status says it, too."""

import asyncio
import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from agent.cli import main as agent_main
from agent.said import _Output
from host_controller.cli import COMMANDS
from tests.support.serving import served
from tests.support.virtual import Host, aside, run

HOST: Final = "from host_controller.cli import main"
GUEST: Final = "from agent.cli import main"
GUESTS: Final = ("doctor", "install", "remove", "run", "status")
LOST: Final = {"full": "No space left on device", "closed": "Bad file descriptor"}
SINKS: Final = ("full", "gone", "closed")

EACH: Final = """
import json, os, sys, tempfile
from {module} import main
{preload}
lines, found = json.loads(sys.argv[1]), []
for words in lines:
    for sink in ("full", "gone", "closed") if words == ["--version"] else ("full",):
        with tempfile.TemporaryFile() as complaints:
            child = os.fork()
            if not child:
                os.dup2(complaints.fileno(), 2)
                if sink == "full":
                    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
                elif sink == "gone":
                    reader, writer = os.pipe()
                    os.close(reader)
                    os.dup2(writer, 1)
                else:
                    os.close(1)
                    sys.stdout = sys.__stdout__ = None
                sys.argv = ["command", *words]
                sys.exit(main())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            complaints.seek(0)
            found.append([words, sink, status, complaints.read().decode()])
print(json.dumps(found))
"""
"""Every line of words with a full disk, and one with each kind of output, each in a process of its own."""


def check_each(program: str, module: str, preload: str, lines: list[list[str]]) -> None:
    asked = [sys.executable, "-c", EACH.format(module=module, preload=preload), json.dumps(lines)]
    found = json.loads(subprocess.run(asked, capture_output=True, check=True, timeout=300).stdout)
    assert len(found) == len(lines) + len(SINKS) - 1
    wanted = [
        [words, sink, 141, ""]  # as of what SIGPIPE ends: whoever reads no more has read enough
        if sink == "gone"
        else [words, sink, 1, f"{program}: standard output cannot be written: {LOST[sink]}\n"]
        for words, sink, _, _ in found
    ]
    assert found == wanted


def test_every_command_of_the_host_whose_output_is_lost_says_so_and_fails() -> None:
    lines = [[name, "--help"] for name in sorted(COMMANDS)]
    preload = (
        "from host_controller.cli import COMMANDS, group; [group.get_command(None, one) for one in COMMANDS]"
    )
    check_each(
        "dynmem", "host_controller.cli", preload, [*lines, ["--help"], ["--version"], ["completion", "bash"]]
    )


def test_every_command_of_the_guest_whose_output_is_lost_says_so_and_fails() -> None:
    lines = [[name, "--help"] for name in GUESTS]
    preload = "import agent.commands"
    check_each(
        "dynmem-agent",
        "agent.cli",
        preload,
        [*lines, ["--help"], ["--version"], ["status"], ["status", "--json"]],
    )


@pytest.mark.parametrize("words", ["status", "status --json", "events", "explain web", "history web"])
def test_what_a_controller_answered_is_not_lost_unsaid(words: str, tmp_path: Path) -> None:
    def ask(sink: int) -> subprocess.CompletedProcess[str]:
        line = [
            sys.executable,
            "-c",
            f"{HOST}; main()",
            *words.split(),
            "--socket",
            str(tmp_path / "control.sock"),
        ]
        return subprocess.run(line, stdout=sink, stderr=subprocess.PIPE, text=True, check=False, timeout=60)

    async def story() -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path):
            await asyncio.sleep(10)
            heard = await aside(ask, subprocess.PIPE)
            full = os.open("/dev/full", os.O_WRONLY)
            try:
                return heard, await aside(ask, full)
            finally:
                os.close(full)

    heard, lost = run(story())
    assert (heard.returncode, heard.stderr) == (0, "")
    assert "web" in heard.stdout
    assert (lost.returncode, lost.stderr) == (
        1, "dynmem: standard output cannot be written: No space left on device\n",
    )  # fmt: skip


@pytest.mark.parametrize("module", [HOST, GUEST])
def test_a_complaint_that_nobody_can_read_changes_no_exit_status(module: str) -> None:
    with open("/dev/full", "wb") as full:
        line = [sys.executable, "-c", f"import sys; {module}; sys.exit(main())", "no-such-command"]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=full, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("doctor", "agent.doctor.examine"),
        ("status", "agent.probe.Probe.sample"),
        ("install", "agent.installation.main"),
    ],
)
def test_ctrl_c_ends_a_command_of_the_guest_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, place: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted)
    monkeypatch.setattr("sys.argv", ["dynmem-agent", words])
    assert agent_main() == 130
    assert "".join(capsys.readouterr()).strip() == ""


def test_what_is_written_by_bytes_and_in_one_piece_is_guarded_too() -> None:
    """A piece larger than the buffer fails at once and is not kept: a later flush would find all well."""
    code = (
        "import sys; from agent.said import exit_status; "
        "sys.exit(exit_status('it', lambda: sys.stdout.buffer.write(b'x' * 10**6) * 0))"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (
        1, "it: standard output cannot be written: No space left on device\n",
    )  # fmt: skip


def said(code: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    """A command that does what `code` says, with a pipe for its output."""
    command = "import sys, os; from agent.said import exit_status\n"
    command += f"def it():\n    {code}\n    return 0\nsys.exit(exit_status('it', it))"
    return subprocess.Popen(
        [sys.executable, *options, "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


def test_after_python_u_nothing_waits_for_the_commands_end() -> None:
    with said("sys.stdout.write('now'); sys.stdin.read()", "-u") as command:
        assert command.stdout is not None
        before_its_end = select.select([command.stdout], [], [], 20)[0]
        assert (before_its_end != [], *command.communicate(timeout=60)) == (True, b"now", b"")
    assert command.returncode == 0


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "latin-1:strict", "utf-8:strict"])
def test_what_the_terminal_has_no_letter_for_is_a_question_mark_and_no_fault(encoding: str) -> None:
    with said(r"print('a\ud8ff\udcff b')", PYTHONIOENCODING=encoding) as command:
        assert command.communicate(timeout=60) == (b"a?? b\n", b"")
    assert command.returncode == 0


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()

    class Poll:
        def register(self, *_: object) -> None: ...

        def poll(self) -> None:
            os.read(reader, 1 << 20)

    os.set_blocking(writer, False)
    try:
        with suppress(BlockingIOError):
            while os.write(writer, b"x" * 4096):
                pass
        monkeypatch.setattr(select, "poll", Poll)
        assert _Output(writer, "w", closefd=False).write(b"more") == 4
        assert os.read(reader, 100) == b"more"
    finally:
        os.close(reader)
        os.close(writer)
