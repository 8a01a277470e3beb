"""Text for terminals, pipes and files: tables, colours where they are wanted, and how long ago."""

import json
import os
import shutil
import sys
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final
from unicodedata import combining, east_asian_width

from host_controller.neutral import UNKNOWN, neutral, neutral_lines
from host_controller.units import format_size

COLOURS: Final = {"red": "31", "yellow": "33", "green": "32", "bold": "1", "dim": "2"}
GAP: Final = "  "


def json_text(answer: Any) -> str:
    """A whole answer for programs, which people can read, too. Lines of a stream are no whole answers."""
    return json.dumps(answer, indent=2)


def wants_colour() -> bool:
    """Only a terminal whose user has not asked for plain text (https://no-color.org)."""
    return sys.stdout.isatty() and may_colour()


def may_colour() -> bool:
    """Whether the user has anything against colours, on whichever terminal."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None, on: bool) -> str:
    """The text in a colour, or as it is; nothing else in it commands the terminal."""
    text = neutral_lines(text)
    return f"\033[{COLOURS[colour]}m{text}\033[0m" if on and colour else text


def size(value: Any) -> str:
    """A size, a dash where there is none, or a question mark where the controller does not say."""
    return format_size(value) if isinstance(value, int) else _none(value)


def number(value: Any, digits: int = 0) -> str:
    """As `size`, of a number."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) else _none(value)


def _none(value: object) -> str:
    return "-" if value is None else UNKNOWN


def duration(seconds: Any) -> str:
    """The two largest units that are not zero: `3 d 4 h`, `12 min 5 s`, `0.4 s`."""
    if not isinstance(seconds, int | float):
        return _none(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts = []
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, unit)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def cells(text: str) -> int:
    """How many of a terminal's columns it takes: two for a letter of East Asia, none for a combining mark."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, room: int) -> str:
    """Its beginning, and an ellipsis, where it takes more columns than there are."""
    if cells(text) <= room:
        return text
    taken = list(accumulate(map(_cells, text)))
    return text[: bisect_right(taken, room - 1)] + "…"


def _cells(one: str) -> int:
    return 0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1


def ljust(text: str, width: int) -> str:
    """With spaces behind it to that many columns; longer ones as they are."""
    return text + " " * (width - cells(text))


def rjust(text: str, width: int) -> str:
    """The same with spaces before it."""
    return " " * (width - cells(text)) + text


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Sequence[int],
    colours: Sequence[str | None] = (),
) -> list[str]:
    """Lines of a table. The columns in `left` are aligned left, the others right. They are cut to the
    terminal's width, and a column to half of that. `colours` has one for each row.
    """
    rows = [[neutral(cell) for cell in row] for row in rows]
    colour = wants_colour()
    # A file or a pipe has no width: nothing is cut there.
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    if room:  # one long name would leave nothing of all other columns, for everybody
        rows = [[*(cut(cell, room // 2) for cell in row[:-1]), *row[-1:]] for row in rows]
    widths = [max(cells(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [
            ljust(cell, width) if i in left else rjust(cell, width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        text = GAP.join(padded).rstrip()
        return cut(text, room) if room else text

    painted = [paint(line(head), "bold", colour)]
    for i, row in enumerate(rows):
        painted.append(paint(line(row), colours[i] if i < len(colours) else None, colour))
    return painted
