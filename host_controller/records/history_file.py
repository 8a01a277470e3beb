"""The SQLite file of the history: its tables, how rows are written, read, and forgotten. Blocking.

Sizes are kept in KiB, which makes a sample about 45 bytes. A file that is broken is put aside (`….broken`)
and a new one is begun. One that a newer dynmem wrote, or somebody else, is never touched: ours is beside it.
What is damaged in a file is left out, and counted.
"""

import math
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from host_controller.core.vm.record import Phase
from host_controller.private import open_private, private_directory
from host_controller.records.entries import Kind
from host_controller.records.samples import STORED, Sample

VERSION: Final = 1
WAIT_SECONDS: Final = 5.0
BATCH: Final = 20_000
KIB: Final = 1024
LARGEST_KIB: Final = 1 << 40
_PHASES: Final = tuple(Phase)
_NUMBERS: Final = range(len(_PHASES))

_COLUMNS: Final = [name.removesuffix("_bytes") for name in STORED]
_SCHEMA: Final = f"""
CREATE TABLE vms (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, name TEXT NOT NULL);
CREATE TABLE samples (
    vm INTEGER NOT NULL, at INTEGER NOT NULL,
    {" INTEGER, ".join(_COLUMNS)} INTEGER, pressure INTEGER NOT NULL, phase INTEGER NOT NULL,
    PRIMARY KEY (vm, at)
) WITHOUT ROWID;
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, topic TEXT NOT NULL,
    vm INTEGER, text TEXT NOT NULL, detail TEXT
);
CREATE INDEX entries_by_vm ON entries (vm, at);
"""


class StoredEntry(NamedTuple):
    """An entry as it was written; `at` is seconds since 1970."""

    number: int
    at: float
    kind: str
    topic: str
    vm: str | None
    name: str | None
    text: str
    detail: str | None
    """JSON."""


class HistoryFile:
    """The file, open for writing. Its methods raise sqlite3.Error and OSError."""

    def __init__(self, path: Path) -> None:
        private_directory(path.parent)
        self._vms: dict[str, tuple[int, str]] = {}
        self.path = path = usable(path)
        """Where it really is."""
        try:
            self._db = _open(path)
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise  # no room, no right: another file would not help
            put_aside(path)
            self._db = _open(path)

    def write(self, rows: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        """Write rows as one transaction: `("sample", (at, uuid, name, Sample))` or `("entry", …)`."""
        rows = list(rows)
        if not rows:
            return
        try:
            with self._db:
                self._db.executemany(
                    "INSERT OR REPLACE INTO samples VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                    [self._sample(*row) for kind, row in rows if kind == "sample"],
                )
                self._db.executemany(
                    "INSERT INTO entries (at, kind, topic, vm, text, detail) VALUES (?,?,?,?,?,?)",
                    [self._entry(*row) for kind, row in rows if kind == "entry"],
                )
        except sqlite3.Error:
            self._vms.clear()  # their rows were rolled back with the rest
            raise

    def clean(self, before: float, largest_bytes: int) -> None:
        """Forget what is older than `before`, and a tenth of the rest as long as the file is too large."""
        self._forget(before)
        while self.size_bytes() > largest_bytes:
            first, last = self._db.execute(
                "SELECT min(at), max(at) FROM (SELECT min(at) AS at FROM entries UNION ALL"
                " SELECT max(at) FROM entries UNION ALL SELECT min(at)/1000.0 FROM samples"
                " UNION ALL SELECT max(at)/1000.0 FROM samples)"
            ).fetchone()
            if first is None or last - first < 1:
                break
            self._forget(first + (last - first) / 10)

    def size_bytes(self) -> int:
        """Of the file, without pages that are free to be used again."""
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return int((pages - free) * self._db.execute("PRAGMA page_size").fetchone()[0])

    def close(self) -> None:
        """Fold the write-ahead log in, and close."""
        self._db.close()

    def _forget(self, before: float) -> None:
        for statement, limit in (
            ("DELETE FROM samples WHERE (vm, at) IN (SELECT vm, at FROM samples WHERE at < ? LIMIT ?)", 1000),
            ("DELETE FROM entries WHERE number IN (SELECT number FROM entries WHERE at < ? LIMIT ?)", 1),
        ):
            while True:
                with self._db:
                    gone = self._db.execute(statement, (before * limit, BATCH)).rowcount
                if gone < BATCH:
                    break
        self._db.execute("PRAGMA incremental_vacuum")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _sample(self, at: float, uuid: str, name: str, sample: Sample) -> tuple[Any, ...]:
        sizes = (None if one is None else one // KIB for one in sample[1:9])  # STORED
        percent = min(100_000, round(sample.pressure_percent))
        return self._id(uuid, name), round(at * 1000), *sizes, percent, _PHASES.index(sample.phase)

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


class Reading:
    """The file, open for reading beside the writer; use it in one thread and close it."""

    def __init__(self, path: Path) -> None:
        self.damaged = 0
        """Rows that were left out so far, for they make no sense; an unreadable page counts as one."""
        self._db = _read_only(usable(path))

    def find(self, wanted: str) -> tuple[str, str] | None:
        """UUID and name of a VM by either of them; the one that was seen last where several had the name."""
        found = self._db.execute(
            "SELECT uuid, name FROM vms WHERE uuid = ? OR name = ? ORDER BY uuid = ? DESC, id DESC",
            (wanted.lower(), wanted, wanted.lower()),
        )
        return next((row for row in self._sound(found) if all(isinstance(one, str) for one in row)), None)

    def samples(self, uuid: str, since: float) -> list[Sample]:
        """A VM's samples from `since` on, oldest first; times are seconds since 1970. Of what is not stored
        nothing is known.
        """
        rows = self._db.execute(
            f"SELECT at, {', '.join(_COLUMNS)}, pressure, phase"  # noqa: S608 # our own names
            " FROM samples WHERE vm = (SELECT id FROM vms WHERE uuid = ?) AND at >= ? ORDER BY at",
            (uuid, since * 1000),
        )
        found = []
        for at, *sizes, pressure, phase in self._sound(rows):
            if not (
                _is_number(at) and _is_number(pressure) and all(map(_is_size, sizes)) and phase in _NUMBERS
            ):
                self.damaged += 1
                continue
            known = (None if size is None else size * KIB for size in sizes)
            found.append(Sample._make((at / 1000, *known, None, pressure, _PHASES[phase], math.inf)))
        return found

    def entries(self, uuid: str | None, since: float) -> list[StoredEntry]:
        """What happened from `since` (seconds since 1970) on to one VM or at all, oldest first."""
        rows = self._db.execute(
            "SELECT number, at, kind, topic, vms.uuid, vms.name, text, detail FROM entries"
            " LEFT JOIN vms ON vms.id = entries.vm"
            " WHERE at >= :since AND (:uuid IS NULL OR vms.uuid = :uuid) ORDER BY number",
            {"since": since, "uuid": uuid},
        )
        found = []
        for row in self._sound(rows):
            one = StoredEntry._make(row)
            texts = (
                one.topic,
                one.text,
                *(each for each in (one.vm, one.name, one.detail) if each is not None),
            )
            if (
                one.kind in get_args(Kind)
                and _is_number(one.at)
                and all(isinstance(each, str) for each in texts)
            ):
                found.append(one)
            else:
                self.damaged += 1
        return found

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def _sound(self, rows: sqlite3.Cursor) -> Iterator[Any]:
        """Rows until one cannot be read: a damaged page ends the search, and what was found is told."""
        try:
            yield from rows
        except sqlite3.DatabaseError:
            self.damaged += 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e15


def _is_size(value: object) -> bool:
    return value is None or (isinstance(value, int) and 0 <= value < LARGEST_KIB)


def _read_only(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS)
    db.text_factory = lambda text: text.decode(errors="replace")
    return db


def usable(path: Path) -> Path:
    """The file, or the one beside it where what lies there is a database that is not ours."""
    if not path.exists():
        return path
    try:
        with closing(_read_only(path)) as db:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            strange = found not in (0, VERSION) or (found == 0 and _tables(db))
    except sqlite3.Error:
        return path  # no database: whoever writes finds out what is wrong with it
    return path.with_name(f"{path.stem}-v{VERSION}{path.suffix}") if strange else path


def _tables(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _open(path: Path) -> sqlite3.Connection:
    # SQLite gives its log the mode that the file has.
    os.close(open_private(path, os.O_RDWR))
    db = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level="IMMEDIATE")
    try:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0 and not _tables(db):
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.executescript(f"{_SCHEMA} PRAGMA user_version = {VERSION};")
        elif found != VERSION:
            raise sqlite3.DatabaseError(f"a file of version {found}, not {VERSION}")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 4194304").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def is_broken(error: Exception) -> bool:
    """Whether the file itself is at fault, and not the disk, a lock or a right."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


def put_aside(path: Path) -> None:
    """Rename a file that cannot be used, its log with it; one put aside earlier is replaced."""
    aside = path.with_name(f"{path.name}.broken")
    path.replace(aside)
    aside.touch()  # when that was
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{aside}{suffix}")
