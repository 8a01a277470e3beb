"""What `dynmem verify` found, kept per kernel, QEMU and libvirt: a new release of one is another host."""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from host_controller.units import format_version

Outcome = Literal["passed", "failed", "skipped"]

DIRECTORY: Final = Path("/var/lib/dynmem/verify")
LARGEST_BYTES: Final = 1 << 20
MOST_FILES: Final = 100
_UNFIT: Final = re.compile(r"[^A-Za-z0-9.+~-]+")


@dataclass(frozen=True, slots=True)
class Versions:
    """What a verdict is about. QEMU and libvirt as `1000000 * major + 1000 * minor + release`."""

    kernel: str
    qemu: int
    libvirt: int

    def differences(self, now: "Versions") -> list[str]:
        """What has changed from these to `now`, for people."""
        pairs = (
            ("kernel", self.kernel, now.kernel),
            ("QEMU", format_version(self.qemu), format_version(now.qemu)),
            ("libvirt", format_version(self.libvirt), format_version(now.libvirt)),
        )
        return [f"{name} {before} → {after}" for name, before, after in pairs if before != after]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one check. figure: what was measured, in `unit`; None where nothing was."""

    check: str
    outcome: Outcome
    said: str
    figure: float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class BurnIn:
    """One run. at: seconds since the epoch; seconds: how long it took."""

    versions: Versions
    accelerator: str
    at: float
    seconds: float
    results: tuple[Verdict, ...]

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """What did not pass, and was tried."""
        return tuple(one for one in self.results if one.outcome == "failed")

    @property
    def passed(self) -> frozenset[str]:
        """The checks for whose subject this host may be asked."""
        names = {one.check for one in self.results}
        return frozenset(names - {one.check for one in self.results if one.outcome != "passed"})

    def save(self, directory: Path = DIRECTORY) -> Path:
        """Replace what was kept for these versions. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        qemu, libvirt = format_version(self.versions.qemu), format_version(self.versions.libvirt)
        name = _UNFIT.sub("_", f"{self.versions.kernel}_{qemu}_{libvirt}")[:200] + ".json"
        fresh = directory / f".{name}.new"
        fresh.write_text(json.dumps(asdict(self), indent=2) + "\n")
        os.replace(fresh, directory / name)
        return directory / name


def newest_of(found: tuple[BurnIn, ...], now: Versions) -> BurnIn | None:
    """What is known of these very versions; None where they were never tried together."""
    return next((one for one in reversed(found) if one.versions == now), None)


def load(directory: Path = DIRECTORY) -> tuple[BurnIn, ...]:
    """All that are kept and can be read, the newest last; none where there is no such directory."""
    found = []
    try:
        paths = sorted(directory.glob("*.json"))[:MOST_FILES]
    except OSError:
        return ()
    for path in paths:
        try:
            if path.stat().st_size <= LARGEST_BYTES:
                found.append(_read(json.loads(path.read_text())))
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue  # somebody else's, or damaged: the next run writes it anew
    return tuple(sorted(found, key=lambda one: one.at))


def _read(value: Any) -> BurnIn:
    of = value["versions"]
    versions = Versions(str(of["kernel"]), int(of["qemu"]), int(of["libvirt"]))
    verdicts = tuple(_read_verdict(one) for one in value["results"])
    return BurnIn(versions, str(value["accelerator"]), float(value["at"]), float(value["seconds"]), verdicts)


def _read_verdict(value: Any) -> Verdict:
    if value["outcome"] not in get_args(Outcome):
        raise ValueError(f"no outcome: {value['outcome']!r}")
    figure = None if value["figure"] is None else float(value["figure"])
    return Verdict(str(value["check"]), value["outcome"], str(value["said"]), figure, str(value["unit"]))
