"""The committed list of mutants that no test kills, each with its reason, against what survived."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.outcome import Mutant

LIST: Final = Path(__file__).with_name("survivors.toml")
REASONS: Final = ("equivalent because ", "not worth it because ")


@dataclass(frozen=True, slots=True)
class Entry:
    """A kind of survivor: mutants of one line, or one of them."""

    file: str
    before: str
    """The line as it is; lines of one statement are joined by spaces."""
    after: str | None
    """The line as the mutant has it; None: any mutant of that line."""
    why: str

    def covers(self, mutant: Mutant) -> bool:
        """Whether that is the mutant, or one of them."""
        same = mutant.file == self.file and " ".join(mutant.before) == self.before
        return same and self.after in (None, " ".join(mutant.after))

    def __str__(self) -> str:
        return f"{self.file}: {self.before}" + (f" → {self.after}" if self.after else "")


def load(path: Path = LIST) -> list[Entry]:
    """The list; ValueError names an entry without a reason."""
    found = []
    for one in tomllib.loads(path.read_text(encoding="utf-8")).get("survivor", []):
        entry = Entry(one["file"], one["before"], one.get("after"), one["why"])
        if not entry.why.startswith(REASONS):
            raise ValueError(f"{entry}: the reason is to begin with one of {REASONS}")
        found.append(entry)
    return found


def judge(
    mutants: Iterable[Mutant], entries: list[Entry], *, whole: bool
) -> tuple[list[Mutant], list[Entry]]:
    """Survivors that no entry covers; and entries that cover none, of the files that were looked at."""
    mutants = list(mutants)
    survivors = [one for one in mutants if not one.killed]
    looked_at = {one.file for one in mutants}
    unexplained = [one for one in survivors if not any(entry.covers(one) for entry in entries)]
    needless = [
        entry
        for entry in entries
        if (whole or entry.file in looked_at) and not any(entry.covers(one) for one in survivors)
    ]
    return unexplained, needless
