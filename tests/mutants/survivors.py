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


def outlived(entries: Iterable[Entry], core: Path) -> list[str]:
    """What is for no line of the core any more, or for what another entry covers: in a word each.

    Nobody has to try mutants to see that.
    """
    found, texts = [], {}
    given: set[tuple[str, str, str | None]] = set()
    for entry in entries:
        path = core / entry.file
        if path not in texts:
            texts[path] = _joined(path.read_text(encoding="utf-8")) if path.is_file() else ""
        one = entry.file, _joined(entry.before), entry.after
        if one[1] not in texts[path]:
            found.append(f"no such line: {entry}")
        if one in given or (*one[:2], None) in given:
            found.append(f"twice: {entry}")
        given.add(one)
    return found


def _joined(text: str) -> str:
    return " ".join(text.split())


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
