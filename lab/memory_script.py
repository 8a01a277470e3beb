"""A script of what befalls a guest, and a recording of what the guest said meanwhile: as files."""

import csv
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.wire import Report

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
SCRIPT = DATA / "guest_memory.toml"
RECORDING = DATA / "guest_memory.tsv"

_COLUMNS = (
    "total_bytes", "available_bytes", "free_bytes", "reclaimable_bytes", "online_bytes", "offline_bytes",
    "movable_bytes", "ballooned_bytes", "floor_bytes", "refault_pages", "psi_some_total_us",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done to the guest. `at` in seconds, `rate` in MiB/s (0: as fast as it goes)."""

    at: float
    do: str
    mib: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Script:
    """A guest of `startup` MiB of boot RAM, and what befalls it in `seconds`."""

    startup: int
    maximum: int
    seconds: float
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """A report of the guest's agent, and the time on the script's clock at which it was true."""

    at: float
    report: Report


def read_script(path: Path = SCRIPT) -> Script:
    """The script in a file."""
    told = tomllib.loads(path.read_text())
    steps = tuple(Step(**step) for step in told["steps"])
    return Script(told["startup"], told["maximum"], told["seconds"], steps)


def write_recording(told_by: str, heard: Iterable[Heard], path: Path = RECORDING) -> None:
    """A comment of whose recording it is, a header, a line per report. Sizes in KiB."""
    with path.open("w", newline="") as stream:
        stream.write(f"# {told_by}\n")
        lines = csv.writer(stream, delimiter="\t", lineterminator="\n")
        lines.writerow(["at", *(name.replace("_bytes", "_kib") for name in _COLUMNS)])
        for one in heard:
            values = [int(getattr(one.report, name)) for name in _COLUMNS]
            scaled = [v >> 10 if n.endswith("_bytes") else v for n, v in zip(_COLUMNS, values, strict=True)]
            lines.writerow([f"{one.at:.2f}", *scaled])


def read_recording(path: Path = RECORDING) -> Sequence[Heard]:
    """The reports of a recording."""
    with path.open(newline="") as stream:
        stream.readline()
        heard = []
        for number, row in enumerate(csv.DictReader(stream, delimiter="\t")):
            at = float(row["at"])
            sizes = {
                name: int(row[name.replace("_bytes", "_kib")]) << (10 if name.endswith("_bytes") else 0)
                for name in _COLUMNS
            }
            heard.append(Heard(at, Report("0" * 8, number, at, **sizes)))  # type: ignore[arg-type]
    return heard
