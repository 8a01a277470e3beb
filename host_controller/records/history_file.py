"""The SQLite file of the history, as its one writer sees it: rows go in, old ones go out. Blocking.

Sizes are kept in KiB, which makes a sample about 45 bytes. A file that is broken is put aside (`….broken`)
and a new one is begun. One that a newer dynmem wrote, or somebody else, is never touched: ours is beside it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from host_controller.core.model import VmConfig
from host_controller.core.vm.record import Phase
from host_controller.private import private_directory
from host_controller.records.history_schema import (
    UNREADABLE,
    is_broken,
    open_to_write,
    put_aside,
    usable,
)
from host_controller.records.samples import Sample
from host_controller.records.stored_limits import StoredLimits
from host_controller.records.tier_file import Keep, TierFile
from host_controller.records.tiers import Span
from host_controller.units import KIB

_PHASES: Final = tuple(Phase)
_PUT_SAMPLE: Final = "INSERT OR IGNORE INTO samples VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"

Row = tuple[str, tuple[Any, ...]]
"""`("sample", (at, uuid, name, Sample))`, `("minute", (uuid, name, Span, VmConfig | None))`, or
`("entry", (at, kind, topic, uuid, name, text, detail))`."""


class HistoryFile:
    """The file, open for writing. Its methods raise sqlite3.Error and OSError."""

    def __init__(self, path: Path) -> None:
        private_directory(path.parent)
        self._vms: dict[str, tuple[int, str]] = {}
        self._limits: dict[int, str] = {}
        self.path = path = usable(path)
        """Where it really is."""
        try:
            self._db = open_to_write(path)
        except UNREADABLE as error:
            if not is_broken(error):
                raise  # no room, no right: another file would not help
            put_aside(path)
            self._db = open_to_write(path)
        self._tiers = TierFile(self._db)

    def catch_up(self) -> None:
        """Make what a writer before this one was killed before it wrote; once, before anything is written."""
        self._tiers.catch_up()

    def write(self, rows: Iterable[Row]) -> None:
        """Write rows as one transaction."""
        rows = list(rows)
        if not rows:
            return
        try:
            with self._db:
                self._put_samples([self._sample(*row) for kind, row in rows if kind == "sample"])
                self._tiers.put([self._minute(*row) for kind, row in rows if kind == "minute"])
                self._db.executemany(
                    "INSERT INTO entries (at, kind, topic, vm, text, detail) VALUES (?,?,?,?,?,?)",
                    [self._entry(*row) for kind, row in rows if kind == "entry"],
                )
        except UNREADABLE:
            self._vms.clear()  # their rows were rolled back with the rest
            self._limits.clear()
            raise

    def clean(self, now: float, elapsed: float, keep: Keep, largest_bytes: int) -> None:
        """Bring the hours up to date, and forget what is older than its tier keeps, or too much.

        now: seconds since 1970. elapsed: seconds that have really passed since the last call.
        """
        self._tiers.make_hours()
        seen = self._tiers.forgetting_time(now, elapsed)
        times = (
            ("samples", keep.samples),
            ("entries", keep.samples),
            ("minutes", keep.minutes),
            ("hours", keep.hours),
        )
        for table, seconds in times:
            self._tiers.forget(table, seen - seconds)
        self._hand_back()
        while self.size_bytes() > largest_bytes and self._tiers.shrink():
            self._hand_back()

    def size_bytes(self) -> int:
        """Of the file, without pages that are free to be used again."""
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return int((pages - free) * self._db.execute("PRAGMA page_size").fetchone()[0])

    def close(self) -> None:
        """Fold the write-ahead log in, and close."""
        self._db.close()

    def _hand_back(self) -> None:
        self._db.execute("PRAGMA incremental_vacuum").fetchall()
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _put_samples(self, rows: list[tuple[Any, ...]]) -> None:
        done = self._db.executemany(_PUT_SAMPLE, rows).rowcount
        if rows and done < len(rows):
            # A clock that was set back comes by moments that are taken: what is stored stays.
            for vm, at, *rest in rows:
                known = self._db.execute("SELECT * FROM samples WHERE vm = ? AND at = ?", (vm, at)).fetchone()
                while known is not None and known != (vm, at, *rest):
                    at += 1
                    known = self._db.execute(
                        "SELECT * FROM samples WHERE vm = ? AND at = ?", (vm, at)
                    ).fetchone()
                self._db.execute(_PUT_SAMPLE, (vm, at, *rest))

    def _sample(self, at: float, uuid: str, name: str, sample: Sample) -> tuple[Any, ...]:
        sizes = (None if one is None else one // KIB for one in sample[1:9])  # STORED
        percent = min(100_000, round(sample.pressure_percent))
        return self._id(uuid, name), round(at * 1000), *sizes, percent, _PHASES.index(sample.phase)

    def _minute(self, uuid: str, name: str, span: Span, config: VmConfig | None) -> tuple[int, Span]:
        vm = self._id(uuid, name)
        if config is not None:
            limits = msgspec.json.encode(StoredLimits.of(config)).decode()
            if self._limits.get(vm) != limits:
                self._db.execute("INSERT OR REPLACE INTO limits VALUES (?, ?)", (vm, limits))
                self._limits[vm] = limits
        return vm, span

    def _entry(
        self,
        at: float,
        kind: str,
        topic: str,
        uuid: str | None,
        name: str | None,
        text: str,
        detail: bytes | None,
    ) -> tuple[Any, ...]:
        vm = None if uuid is None else self._id(uuid, name or uuid)
        return round(at, 3), kind, topic, vm, text, None if detail is None else detail.decode()

    def _id(self, uuid: str, name: str) -> int:
        known = self._vms.get(uuid)
        if known is None or known[1] != name:
            self._db.execute(
                "INSERT INTO vms (uuid, name) VALUES (?, ?)"
                " ON CONFLICT (uuid) DO UPDATE SET name = excluded.name",
                (uuid, name),
            )
            row = self._db.execute("SELECT id FROM vms WHERE uuid = ?", (uuid,)).fetchone()
            known = self._vms[uuid] = (int(row[0]), name)
        return known[0]
