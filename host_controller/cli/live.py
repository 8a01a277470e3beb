"""The terminal of `dynmem top` and `dynmem fleet top`: keys, resizing, and a screen given back as it was."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live as Screen
from rich.text import Text

from host_controller.errors import DynmemError

SCROLL: Final = {"\x1b[A": -1, "\x1b[B": 1, "k": -1, "j": 1, "\x1b[5~": -20, "\x1b[6~": 20}
SETTLE_SECONDS: Final = 0.1
"""How soon a changed window is seen."""
NOTHING_SHOWN: Final = ConsoleDimensions(0, 0)


class Picture(Protocol):
    """What is shown, and what the user has chosen."""

    sort: str
    reverse: bool
    offset: int
    """The first row shown."""
    sort_keys: Mapping[str, str]
    """Keys, and what each sorts by."""

    def note(self, answer: dict[str, Any]) -> None:
        """Remember what is needed of an answer."""

    def draw(self, answer: dict[str, Any], width: int, height: int) -> Group:
        """The whole screen; never more lines than it has."""


Ask = Callable[[], dict[str, Any] | None]
"""What there is to show; None: not yet. Raises DynmemError: nobody can be asked."""


class Live:
    """One run of `top`."""

    def __init__(self, ask: Ask, view: Picture, interval: float) -> None:
        self._ask_for = ask
        self._interval = interval
        self._view = view
        self._answer: dict[str, Any] | None = None
        self._problem = ""
        self._console = Console()
        self._touched = False

    def run(self) -> None:
        """Until q, Ctrl-C or the end of the input."""
        with (
            _keys() as descriptor,
            Screen(console=self._console, screen=True, auto_refresh=False) as screen,
        ):
            due, shown = 0.0, NOTHING_SHOWN
            while True:
                if time.monotonic() >= due:
                    self._ask()
                    due = time.monotonic() + self._interval
                    shown = NOTHING_SHOWN
                window = self._console.size  # 80 × 25 where a terminal tells none, as a serial line does
                if shown != window:
                    shown = window
                    screen.update(self._picture(*shown), refresh=True)
                if not self._obey(descriptor, min(SETTLE_SECONDS, max(0.0, due - time.monotonic()))):
                    return
                if self._touched:
                    shown = NOTHING_SHOWN

    def _ask(self) -> None:
        try:
            answer = self._ask_for()
        except DynmemError as error:
            self._problem = str(error)  # the last figures stay, and it is asked again
        else:
            self._problem = ""
            if answer is not None:
                self._answer = answer
                self._view.note(answer)

    def _picture(self, width: int, height: int) -> Any:
        if self._answer is None or self._problem:
            return Text(self._problem or "asking …", style="red")
        return self._view.draw(self._answer, width, height)

    def _obey(self, descriptor: int, seconds: float) -> bool:
        """Wait for a key and do what it says; False to end."""
        self._touched = False
        ready, _, _ = select.select([descriptor], [], [], seconds)
        if not ready:
            return True
        pressed = os.read(descriptor, 64).decode(errors="replace")
        if not pressed:
            return False  # the terminal has gone
        view = self._view
        for key in _split(pressed):
            if key in ("q", "Q", "\x03", "\x04"):
                return False
            if key in view.sort_keys:
                view.sort, view.offset = view.sort_keys[key], 0
            elif key == "r":
                view.reverse = not view.reverse
            elif key in SCROLL:
                view.offset = max(0, view.offset + SCROLL[key])
            self._touched = True
        return True


def _split(pressed: str) -> Iterator[str]:
    """Single keys; an arrow is one."""
    while pressed:
        known = next((one for one in SCROLL if len(one) > 1 and pressed.startswith(one)), pressed[0])
        yield known
        pressed = pressed[len(known) :]


@contextmanager
def _keys() -> Iterator[int]:
    """The terminal's keys one by one, and its mode given back whatever happens."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    except KeyboardInterrupt:
        pass  # Ctrl-C ends it as q does
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
