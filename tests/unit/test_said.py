"""A command whose output cannot be written says so in one sentence, and its exit status says it, too."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from host_controller.cli import COMMANDS
from tests.support.serving import served
from tests.support.virtual import Host, aside, run

HOST: Final = "from host_controller.cli import main"
GUEST: Final = "from agent.cli import main"
GUESTS: Final = ("doctor", "install", "remove", "run", "status")
LOST: Final = {"full": "No space left on device", "gone": "Broken pipe", "closed": "Bad file descriptor"}

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
    assert len(found) == len(lines) + len(LOST) - 1
    wanted = [
        [words, sink, 1, f"{program}: standard output cannot be written: {LOST[sink]}\n"]
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


def test_every_command_of_the_guest_does() -> None:
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
