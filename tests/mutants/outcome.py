"""What became of each mutant, as the library has left it in the working directory."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

CORE: Final = "host_controller/core"
KILLED: Final = frozenset({"killed", "timeout", "segfault"})


@dataclass(frozen=True, slots=True)
class Mutant:
    """One small error, and whether a test saw it."""

    file: str
    """Below the core."""
    function: str
    status: str
    """The library's word."""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    """The lines that differ, without their indentation; empty for a mutant that was killed."""

    @property
    def killed(self) -> bool:
        """A test failed, or never ended."""
        return self.status in KILLED

    @property
    def diff(self) -> str:
        """For people."""
        return "\n".join([*(f"- {line}" for line in self.before), *(f"+ {line}" for line in self.after)])


def read_mutants() -> list[Mutant]:
    """All mutants of the core; the working directory is where the library has run."""
    found = []
    root = Path("mutants") / CORE
    for meta in sorted(root.rglob("*.meta")):
        file = str(meta.relative_to(root).with_suffix(""))
        codes = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        for name, code in codes.items():
            found.append(_mutant(name, file, status_by_exit_code[code]))
    return found


def _mutant(name: str, file: str, status: str) -> Mutant:
    function = name.rpartition(".")[2].partition("__mutmut_")[0]
    function = function.replace("ǁ", ".").removeprefix("x").lstrip("_.") if function else function
    if status in KILLED:
        return Mutant(file, function, status)
    lines = get_diff_for_mutant(name, path=Path(CORE) / file).splitlines()
    return Mutant(file, function, status, _marked(lines, "-"), _marked(lines, "+"))


def _marked(lines: list[str], mark: str) -> tuple[str, ...]:
    return tuple(
        line[1:].strip() for line in lines if line.startswith(mark) and not line.startswith(3 * mark)
    )
