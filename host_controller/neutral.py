"""Texts from elsewhere, made fit for people: names of domains, words of guests, a peer's request.

What comes out commands no terminal, turns no line around, hides no character and adds no line. Every view
uses this one function: the CLI's texts, `top`, pictures and the log; pages have a copy (shared/text.js).
"""

import re
import shlex
from typing import Any, Final

UNKNOWN: Final = "?"
LONGEST_CHARS: Final = 2000
"""Of one text. Nothing that we say is nearly as long."""
_STACKED: Final = 4
"""Marks on one letter: more of them paint over the lines above and below (Thai and Vietnamese need two)."""
_PLAIN: Final = re.compile(r"[ -~]*")
_DIGITS: Final = re.compile(r"([0-9]+)")


def neutral(text: object, longest: int = LONGEST_CHARS) -> str:
    """The text with a question mark for each character that is not shown as itself.

    Those are Unicode's categories C (controls of C0 and C1, bidirectional and other formats, surrogates,
    private and unassigned ones) and Z but for the space, and more than a few combining marks in a row.
    """
    text = text if isinstance(text, str) else str(text)
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if _PLAIN.fullmatch(text):
        return text
    found: list[str] = []
    marks = 0
    for one in text:
        marks = marks + 1 if _combines(one) else 0
        found.append(one if one.isprintable() and marks <= _STACKED else UNKNOWN)
    return "".join(found)


def neutral_lines(text: object) -> str:
    """As `neutral`, keeping the ends of lines: for texts of ours that have several."""
    return "\n".join(neutral(line) for line in str(text).split("\n"))


def shell_word(name: str) -> str:
    """A name as a shell takes it, at the end of a command that we propose: it may be pasted by root.

    libvirt allows spaces, quotes and semicolons in a domain's name, and a dash at its beginning.
    """
    return f"-- {shlex.quote(name)}" if name.startswith("-") else shlex.quote(name)


def neutral_event(_logger: object, _method: str, event: Any) -> Any:
    """A structlog processor: no value of a log line is more than text."""
    return {
        key: value if isinstance(value, int | float | bool | BaseException | None) else neutral(value)
        for key, value in event.items()
    }


def by_name(name: str) -> tuple[list[Any], str]:
    """A key that sorts names as people count: fake2 before fake10."""
    # Split by digits, texts and numbers take turns, so equal places compare with their like. A number is
    # compared by its length first: its value could have thousands of digits.
    parts = _DIGITS.split(name.casefold())
    numbers = [one.lstrip("0") for one in parts[1::2]]
    parts[1::2] = [(len(one), one) for one in numbers]
    return parts, name


def _combines(one: str) -> bool:
    from unicodedata import category

    return category(one) in ("Mn", "Me", "Mc")
