"""The table in docs/compatibility.md: a column for each suite, of which a run rewrites its own alone.

A run of some cells writes these; what an earlier run said of the others stays.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from lab.code_disk import REPOSITORY

DOCUMENT: Final = REPOSITORY / "docs" / "compatibility.md"
NEVER: Final = "not tried"
_VERSIONS: Final = "versions"
_DATE: Final = "tried on"


class Tried(Protocol):
    """What is written into a cell."""

    @property
    def name(self) -> str: ...
    @property
    def passed(self) -> bool: ...
    @property
    def said(self) -> str: ...
    @property
    def seconds(self) -> float: ...


def write(
    suite: str,
    versions: str,
    seen: Sequence[Tried],
    part: str = "hosts",
    path: Path = DOCUMENT,
    *,
    whole: bool = True,
) -> None:
    """Put a suite's column into the table between `<!-- part -->` and `<!-- /part -->`.

    whole: these are all cells of the suite; else only theirs are written.
    """
    column = {_VERSIONS: versions, _DATE: datetime.now(UTC).date().isoformat()}
    for cell in seen:
        verdict = cell.said if cell.passed else "**not true**"
        column[cell.name] = f"{verdict} ({cell.seconds:.0f} s)"
    text = path.read_text(encoding="utf-8")
    start, end = f"<!-- {part} -->\n", f"<!-- /{part} -->"
    before, _, rest = text.partition(start)
    found, _, after = rest.partition(end)
    columns = _read(found)
    columns[suite] = column if whole else columns.get(suite, {}) | column
    path.write_text(f"{before}{start}{_render(columns)}{end}{after}", encoding="utf-8")


def _read(table: str) -> dict[str, dict[str, str]]:
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    if len(rows) < 2:
        return {}
    suites = rows[0][1:]
    return {
        suite: {row[0]: row[number] for row in rows[2:] if row[number] != NEVER}
        for number, suite in enumerate(suites, 1)
    }


def _render(columns: dict[str, dict[str, str]]) -> str:
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    lines = [["", *columns], *([name, *(one.get(name, NEVER) for one in columns.values())] for name in names)]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    rows.insert(1, "|" + "---|" * (len(columns) + 1))
    return "\n".join(rows) + "\n"
