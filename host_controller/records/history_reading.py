"""Reading the history file beside its writer. What is damaged in it is left out, and counted. Blocking."""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

from host_controller.core.vm.record import Phase
from host_controller.records.entries import Kind
from host_controller.records.history_schema import (
    COLUMNS,
    PERCENTILES,
    SIZES,
    SPAN_COLUMNS,
    UNREADABLE,
    has_tiers,
    open_to_read,
    usable,
)
from host_controller.records.samples import Sample
from host_controller.records.stored_limits import StoredLimits, read_limits
from host_controller.records.tiers import HOUR, LATEST, MINUTE, Span, could_be
from host_controller.units import KIB

LARGEST_KIB: Final = 1 << 40
Table = Literal["samples", "minutes", "hours", "entries"]
_TIMES: Final[dict[Table, tuple[str, float]]] = {
    "samples": ("at", 0.001),
    "minutes": ("minute", MINUTE),
    "hours": ("hour", HOUR),
    "entries": ("at", 1),
}
"""The column with a row's time, and of how many seconds."""
_PHASES: Final = tuple(Phase)
_NUMBERS: Final = range(len(_PHASES))


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
    """An object as JSON; None: there is none."""


class StoredVm(NamedTuple):
    """A VM that something is known of."""

    uuid: str
    name: str
    limits: StoredLimits | None
    """As they were last; None where they were never written, or make no sense."""


class Reading:
    """The file, open for reading; use it in one thread and close it.

    A file that only 0.1 has written has no tiers: nothing is known by the minute and by the hour.
    """

    def __init__(self, path: Path) -> None:
        self.damaged = 0
        """Rows that were left out so far, for they make no sense; an unreadable page counts as one."""
        self._db = open_to_read(usable(path))
        try:
            self._tiers = has_tiers(self._db)
        except UNREADABLE:
            self._db.close()
            raise

    def find(self, wanted: str) -> tuple[str, str] | None:
        """UUID and name of a VM by either of them; the one that was seen last where several had the name."""
        times = "SELECT max(at) / 1000.0 AS at FROM samples WHERE vm = id UNION ALL"
        times += " SELECT max(at) FROM entries WHERE vm = id"
        if self._tiers:  # which reach further back
            times += " UNION ALL SELECT max(hour) * 3600.0 FROM hours WHERE vm = id"
        found = self._db.execute(
            "SELECT uuid, name FROM vms WHERE uuid = ? OR name = ?"  # noqa: S608 # our own names
            f" ORDER BY uuid = ? DESC, (SELECT max(at) FROM ({times})) DESC, id DESC",
            (wanted.lower(), wanted, wanted.lower()),
        )
        return next((row for row in self._sound(found) if all(isinstance(one, str) for one in row)), None)

    def vms(self) -> list[StoredVm]:
        """Every VM, in the order in which they were first seen."""
        sql = "SELECT uuid, name, NULL FROM vms ORDER BY id"
        if self._tiers:
            sql = "SELECT uuid, name, limits FROM vms LEFT JOIN limits ON limits.vm = vms.id ORDER BY id"
        found = self._db.execute(sql)
        known = []
        for uuid, name, text in self._sound(found):
            settings = read_limits(text) if isinstance(text, str) else None
            if isinstance(uuid, str) and isinstance(name, str):
                known.append(StoredVm(uuid, name, settings))
            else:
                self.damaged += 1
            if text is not None and settings is None:
                self.damaged += 1
        return known

    def count(self, table: Table, uuid: str, since: float) -> int:
        """How many rows of a VM there are from `since` (seconds since 1970) on, damaged ones included."""
        if table in ("minutes", "hours") and not self._tiers:
            return 0
        column, unit = _TIMES[table]
        rows = self._db.execute(
            f"SELECT count(*) FROM {table}"  # noqa: S608 # our own names
            f" WHERE vm = (SELECT id FROM vms WHERE uuid = ?) AND {column} >= ?",
            (uuid, since // unit),
        )
        return next((int(row[0]) for row in self._sound(rows)), 0)

    def samples(self, uuid: str, since: float) -> list[Sample]:
        """A VM's samples from `since` on, oldest first; times are seconds since 1970. Of what is not stored
        nothing is known.
        """
        rows = self._db.execute(
            f"SELECT at, {', '.join(COLUMNS)}, pressure, phase"  # noqa: S608 # our own names
            " FROM samples WHERE vm = (SELECT id FROM vms WHERE uuid = ?) AND at >= ? ORDER BY at",
            (uuid, since * 1000),
        )
        found = []
        for row in self._sound(rows):
            sample = sample_of(row)
            if sample is None:
                self.damaged += 1
            else:
                found.append(sample)
        found.sort(key=_by_time)
        return found

    def minutes(self, uuid: str, since: float, one_in: int = 1) -> list[Span]:
        """A VM by the minute, from the one on that `since` (seconds since 1970) lies in, oldest first.

        one_in: of so many minutes only the one in which it had most. SQLite chooses it.
        """
        return self._spans("minutes", "minute", MINUTE, (), uuid, since, one_in)

    def hours(self, uuid: str, since: float, one_in: int = 1) -> list[Span]:
        """The same by the hour."""
        return self._spans("hours", "hour", HOUR, PERCENTILES, uuid, since, one_in)

    def at_moment(self, at: float, holds: float) -> list[tuple[StoredVm, Sample, int | None]]:
        """Every VM that was seen within `holds` seconds before a time (seconds since 1970), with its figures
        then, and the irreducible part of its need by the last decision about it before; None: not known.
        """
        found = []
        for vm in self.vms():
            rows = self._db.execute(
                f"SELECT at, {', '.join(COLUMNS)}, pressure, phase FROM samples"  # noqa: S608 # our own names
                " WHERE vm = (SELECT id FROM vms WHERE uuid = ?) AND at BETWEEN ? AND ?"
                " ORDER BY at DESC LIMIT 1",
                (vm.uuid, (at - holds) * 1000, at * 1000),
            )
            for row in self._sound(rows):
                sample = sample_of(row)
                if sample is None:
                    self.damaged += 1
                else:
                    found.append((vm, sample, self._irreducible(vm.uuid, at)))
        return found

    def _irreducible(self, uuid: str, at: float) -> int | None:
        rows = self._db.execute(
            "SELECT json_extract(detail, '$.lower_bytes') FROM entries"
            " WHERE vm = (SELECT id FROM vms WHERE uuid = ?) AND at <= ? AND kind = 'decision'"
            " AND json_valid(detail) ORDER BY at DESC LIMIT 1",
            (uuid, at),
        )
        size = next((row[0] for row in self._sound(rows)), None)
        return size if isinstance(size, int) and 0 <= size < LARGEST_KIB * KIB else None

    def assigned(
        self, tier: Literal["minutes", "hours"], first: int, buckets: int, units: int
    ) -> dict[str, list[int | None]]:
        """What each VM had, by UUID: the mean in each bucket of so many minutes or hours, from the one with
        the number `first` on. None where nobody saw it. SQLite adds up, so nobody waits for Python.
        """
        if not self._tiers:
            return {}
        column = tier.removesuffix("s")
        rows = self._db.execute(
            "SELECT uuid, bucket, CAST(mean AS INTEGER) FROM ("  # noqa: S608 # our own names
            f"SELECT vm, ({column} - :first) / :units AS bucket,"
            f" total(assigned * 1.0 * ms) / total(ms) AS mean FROM {tier}"
            f" WHERE vm IN (SELECT id FROM vms) AND {column} >= :first AND {column} < :end"
            " AND assigned IS NOT NULL GROUP BY vm, bucket) JOIN vms ON vms.id = vm",
            {"first": first, "units": units, "end": first + buckets * units},
        )
        found: dict[str, list[int | None]] = {}
        for uuid, bucket, mean in self._sound(rows):
            if isinstance(uuid, str) and isinstance(mean, int) and 0 <= mean < LARGEST_KIB:
                found.setdefault(uuid, [None] * buckets)[bucket] = mean * KIB
            else:
                self.damaged += 1
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
                and _is_time(one.at, 1)
                and all(isinstance(each, str) for each in texts)
            ):
                found.append(one)
            else:
                self.damaged += 1
        return found

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def _spans(
        self,
        table: str,
        column: str,
        unit: float,
        more: tuple[str, ...],
        uuid: str,
        since: float,
        one_in: int,
    ) -> list[Span]:
        if not self._tiers:
            return []
        names = ", ".join((column, *SPAN_COLUMNS, *more))
        # A column beside max() is of the row that has the largest (sqlite.org/lang_select.html#bareagg).
        chosen = f"GROUP BY {column} / {int(one_in)} ORDER BY {column}"
        rows = self._db.execute(
            f"SELECT {names}, max(coalesce(assigned_most, 0)) FROM {table}"  # noqa: S608 # our own names
            f" WHERE vm = (SELECT id FROM vms WHERE uuid = ?) AND {column} >= ? {chosen}"
            if one_in > 1
            else f"SELECT {names}, 0 FROM {table}"  # noqa: S608
            f" WHERE vm = (SELECT id FROM vms WHERE uuid = ?) AND {column} >= ? ORDER BY {column}",
            (uuid, since // unit),
        )
        found = []
        for row in self._sound(rows):
            span = span_of(row[:-1], unit)
            if span is None:
                self.damaged += 1
            else:
                found.append(span)
        found.sort(key=_by_time)
        return found

    def _sound(self, rows: sqlite3.Cursor) -> Iterator[Any]:
        """Rows until one cannot be read: a damaged page ends the search, and what was found is told."""
        try:
            yield from rows
        except UNREADABLE:
            self.damaged += 1


def _by_time(one: Sample | Span) -> float:
    """SQLite goes by the order in which rows lie, and in a damaged page they lie in any."""
    return one.at


def sample_of(row: Sequence[Any]) -> Sample | None:
    """A row of `samples` with its time, seconds since 1970; None if it makes no sense."""
    at, *sizes, pressure, phase = row
    if not (_is_time(at, 1 / 1000) and _is_number(pressure) and all(map(_is_size, sizes))):
        return None
    if not (isinstance(phase, int) and phase in _NUMBERS):
        return None
    known = (None if size is None else size * KIB for size in sizes)
    return Sample._make((at / 1000, *known, None, float(pressure), _PHASES[phase], math.inf))


def span_of(row: tuple[Any, ...], unit: float) -> Span | None:
    """A row of `minutes` or `hours`, times in units of so many seconds; None if it makes no sense."""
    at, *times = row[:4]
    sizes, percentiles = row[4 : 4 + len(SIZES)], row[4 + len(SIZES) :]
    if not (_is_number(at) and all(map(_is_number, times)) and times[0] > 0):
        return None
    if not could_be(at * unit, *(one / 1000 for one in times)):
        return None
    if not all(map(_is_size, row[4:])):
        return None
    known = tuple(one * KIB for one in percentiles if one is not None)
    return Span._make(
        (
            at * unit,
            *(one / 1000 for one in times),
            *(None if one is None else one * KIB for one in sizes),
            known if percentiles and len(known) == len(percentiles) else None,
        )
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e15


def _is_time(value: Any, unit: float) -> bool:
    """Since 1970, in units of so many seconds."""
    return _is_number(value) and 0 <= value * unit <= LATEST


def _is_size(value: object) -> bool:
    return value is None or (isinstance(value, int) and 0 <= value < LARGEST_KIB)
