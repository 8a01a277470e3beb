"""The tables of the history file, what the figures in them mean, and how the file is opened. Blocking.

There are three tiers. `samples` are the detail. `minutes` are means, the largest figures, and for how long
they were known. `hours` are percentiles of the minutes.

Tables and columns of a version do not change, but tables may come: 0.1 has none but the first three. So a
file of 0.1 is taken over as it is, with the minutes made from its samples (tier_file.py), and 0.1 goes on
with a file of ours. Whatever it writes becomes minutes when we are back.

A file that a newer dynmem wrote, or somebody else, is never touched: ours lies beside it.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from host_controller.private import open_private
from host_controller.records.samples import STORED
from host_controller.records.tiers import PERCENTS

VERSION: Final = 1
WAIT_SECONDS: Final = 5.0
COLUMNS: Final = tuple(name.removesuffix("_bytes") for name in STORED)
SIZES: Final = (
    "assigned", "assigned_most", "charge", "usable", "demand", "demand_most", "need_most",
)  # fmt: skip
"""Of a span, in the order of its fields."""
PERCENTILES: Final = tuple(f"p{one}" for one in PERCENTS)
SPAN_COLUMNS: Final = ("ms", "known_ms", "tight_ms", *SIZES)

UNREADABLE: Final = (sqlite3.Error, UnicodeDecodeError)
"""What reading a file can end in: SQLite quotes a damaged schema in what it says, in whatever bytes, and
Python cannot read that."""

FIRST: Final = f"""
CREATE TABLE vms (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, name TEXT NOT NULL);
CREATE TABLE samples (
    vm INTEGER NOT NULL, at INTEGER NOT NULL,
    {" INTEGER, ".join(COLUMNS)} INTEGER, pressure INTEGER NOT NULL, phase INTEGER NOT NULL,
    PRIMARY KEY (vm, at)
) WITHOUT ROWID;
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, topic TEXT NOT NULL,
    vm INTEGER, text TEXT NOT NULL, detail TEXT
);
CREATE INDEX entries_by_vm ON entries (vm, at);
"""
TIERS: Final = f"""
CREATE TABLE IF NOT EXISTS limits (vm INTEGER PRIMARY KEY, limits TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS minutes (
    vm INTEGER NOT NULL, minute INTEGER NOT NULL, {" INTEGER, ".join(SPAN_COLUMNS)} INTEGER,
    PRIMARY KEY (vm, minute)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hours (
    vm INTEGER NOT NULL, hour INTEGER NOT NULL, {" INTEGER, ".join(SPAN_COLUMNS + PERCENTILES)} INTEGER,
    PRIMARY KEY (vm, hour)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), seen REAL NOT NULL);
"""


def open_to_write(path: Path) -> sqlite3.Connection:
    """The file, made or given its tiers where need be.

    Raises:
        sqlite3.Error, OSError, UnicodeDecodeError: it cannot be used; `is_broken` tells whether the file
            itself is at fault.
    """
    # SQLite gives its log the mode that the file has.
    os.close(open_private(path, os.O_RDWR))
    db = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level="IMMEDIATE")
    try:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0 and not _tables(db):
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.executescript(_script(FIRST + TIERS))
        elif found != VERSION:
            raise sqlite3.DatabaseError(f"a file of version {found}, not {VERSION}")
        elif not has_tiers(db):
            db.executescript(_script(TIERS))
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 4194304").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def open_to_read(path: Path) -> sqlite3.Connection:
    """The file, beside whoever writes it."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS)
    db.text_factory = lambda text: text.decode(errors="replace")
    return db


def usable(path: Path) -> Path:
    """The file, or the one beside it where what lies there is a database that is not ours."""
    if not path.exists():
        return path
    try:
        with closing(open_to_read(path)) as db:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            strange = found not in (0, VERSION) or (found == 0 and _tables(db))
    except UNREADABLE:
        return path  # no database: whoever writes finds out what is wrong with it
    return path.with_name(f"{path.stem}-v{VERSION}{path.suffix}") if strange else path


def is_broken(error: Exception) -> bool:
    """Whether the file itself is at fault, and not the disk, a lock or a right."""
    if isinstance(error, UnicodeDecodeError):
        return True
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


def put_aside(path: Path) -> None:
    """Rename a file that cannot be used, its log with it; one put aside earlier is replaced."""
    aside = path.with_name(f"{path.name}.broken")
    path.replace(aside)
    aside.touch()  # when that was
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{aside}{suffix}")


def has_tiers(db: sqlite3.Connection) -> bool:
    """Whether somebody after 0.1 has written it. The last table stands for all: they come together."""
    return bool(db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'clock'").fetchone()[0])


def _script(statements: str) -> str:
    """Whole or not at all: whoever is killed in the midst of it leaves the file as it was."""
    return f"BEGIN IMMEDIATE; {statements} PRAGMA user_version = {VERSION}; COMMIT;"


def _tables(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
