"""`dynmem top`: its picture, and its life in a real pseudo terminal."""

import asyncio
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from host_controller.cli.screen import (
    COLUMNS,
    DECISION,
    DECISION_WIDTHS,
    GAP,
    View,
    layout,
    picture,
    sparkline,
)
from host_controller.units import GIB
from tests.support.serving import served
from tests.support.virtual import Host, aside, run

TOP = """
import sys
from host_controller.cli import main
sys.argv = ["dynmem", "top", "--interval", "0.2"]
main()
"""


class Terminal:
    """A process in a pseudo terminal, and what it has written."""

    def __init__(self, path: Path, columns: int, lines: int, kind: str = "xterm") -> None:
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(slave)
        environment = os.environ | {"DYNMEM_SOCKET": str(path / "control.sock"), "TERM": kind}
        for fixed in ("COLUMNS", "LINES"):  # they would hide the terminal's own size
            environment.pop(fixed, None)
        self.slave = slave
        self.process = subprocess.Popen(
            [sys.executable, "-c", TOP],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )
        self.seen = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def until(self, what: Callable[[str], Any], limit: float = 60.0) -> str:
        """What was written since the last call, once it is enough."""
        end = time.monotonic() + limit
        while not what(self.seen):
            assert time.monotonic() < end, f"top has written {self.seen[-2000:]!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 1 << 16).decode(errors="replace")
        text, self.seen = self.seen, ""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        os.close(self.master)
        os.close(self.slave)


def in_a_terminal(
    tmp_path: Path, use: Callable[[Terminal], None], columns: int = 150, lines: int = 24
) -> None:
    async def story() -> None:
        host = Host(64 * GIB)
        for number in range(30):
            host.vm(f"vm{number:02}")
        async with served(host, tmp_path):
            await asyncio.sleep(30)
            terminal = Terminal(tmp_path, columns, lines)
            try:
                await aside(use, terminal)
            finally:
                terminal.close()

    run(story())


def test_it_shows_sorts_scrolls_resizes_and_quits_leaving_the_terminal_as_it_was(tmp_path: Path) -> None:
    def use(terminal: Terminal) -> None:
        text = terminal.until(lambda seen: "30 VMs" in seen)
        assert "capacity 64 GiB" in text
        assert "by name" in text
        assert "vm00" in text
        assert "vm29" not in text, "24 lines do not hold 30 VMs"
        terminal.press("r")
        assert "vm29" in terminal.until(lambda seen: "name, reversed" in seen)
        terminal.press("p")
        terminal.until(lambda seen: "by pressure" in seen)
        terminal.press("\x1b[6~")
        terminal.until(lambda seen: ", 13 to" in seen or re.search(r", 1[0-9] to 30", seen))
        terminal.resize(60, 50)
        text = terminal.until(lambda seen: "30 VMs  ·" in seen)
        assert "LAST DECISION" not in text
        terminal.press("q")
        assert terminal.process.wait(60) == 0
        assert termios.tcgetattr(terminal.slave) == terminal.before

    in_a_terminal(tmp_path, use)


def test_a_terminal_that_tells_no_size_is_drawn_on_as_a_usual_one(tmp_path: Path) -> None:
    """A serial line, as of a host's management controller: it stayed empty."""

    def use(terminal: Terminal) -> None:
        assert "vm00" in terminal.until(lambda seen: "30 VMs" in seen)
        terminal.press("q")
        assert terminal.process.wait(60) == 0

    in_a_terminal(tmp_path, use, columns=0, lines=0)


def test_ctrl_c_ends_it_too(tmp_path: Path) -> None:
    def use(terminal: Terminal) -> None:
        terminal.until(lambda seen: "30 VMs" in seen)
        terminal.press("\x03")
        assert terminal.process.wait(60) == 0

    in_a_terminal(tmp_path, use)


def test_without_a_controller_it_says_so_and_goes_on_asking(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, 100, 24)
    try:
        terminal.until(lambda seen: "no controller is running" in seen)
        terminal.press("q")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()


def test_in_a_pipe_it_refuses(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOP], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


def test_a_terminal_on_which_nothing_can_be_drawn_is_refused_and_not_left_empty(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, 100, 24, "dumb")
    try:
        assert "dynmem status" in terminal.until(lambda seen: "is called dumb" in seen)
        assert terminal.process.wait(60) == 2
    finally:
        terminal.close()


def test_a_sparkline_is_drawn_against_its_own_largest_and_draws_neighbours_together() -> None:
    assert sparkline([0, 50, 99, 100], 4) == "▁▅██"
    assert sparkline([1, 2, 100, 3, 4, 5, 6, 50], 4) == "▁█▁▅"
    assert sparkline([0, 0], 4) == "▁▁"
    assert sparkline([], 4) == ""


def test_columns_are_whole_or_not_there_and_the_decision_gets_what_is_left() -> None:
    names = [f"a-long-name-of-a-vm-{number}" for number in range(30)]
    for width in range(20, 260):
        chosen = layout(names, width)
        assert sum(room for _, room in chosen) + GAP * (len(chosen) - 1) <= width
        for index, room in chosen[1:]:
            assert room >= (COLUMNS[index].width or DECISION_WIDTHS[0])
        if width >= 80:
            titles = {COLUMNS[index].title for index, _ in chosen}
            assert titles >= {"VM", "MEMORY", "ASSIGNED", "DEMAND", "PRESS"}
        if width >= 130:
            assert chosen[-1][0] == DECISION


@pytest.mark.parametrize(("width", "height"), [(40, 10), (80, 24), (200, 60)])
def test_the_picture_fits_whatever_the_window(tmp_path: Path, width: int, height: int) -> None:
    async def story() -> Any:
        host = Host(64 * GIB)
        for number in range(50):
            host.vm(f"vm{number:02}")
        host.vm("[red]not markup[/red]")
        async with served(host, tmp_path) as (_, client):
            await asyncio.sleep(30)
            return await aside(client.get, "status")

    answer = run(story())
    view = View()
    view.note(answer)
    console = Console(width=width, height=height, force_terminal=False, record=True)
    with console.capture() as captured:
        console.print(picture(answer, view, width, height))
    lines = captured.get().splitlines()
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width
    assert any("[red]" in line for line in lines)
    figures = [line for line in lines if line.startswith("vm")]
    assert figures
    assert not any("…" in line[:40] for line in figures), "a figure that is cut says nothing"
