"""The tiers of the history file beyond its samples: minutes, hours, and what is forgotten when. Blocking.

Minutes are written once they are over. A writer that was killed has not written its last one: the next writer
makes it from the samples, which lie on disk after two seconds. So does the first writer of a file from before
there were tiers. Hours are made from minutes, again whenever one of their minutes has changed.

Size: a row takes at most the bytes in ROW_BYTES. At 100 VMs that is 323 MB for 35 days of minutes and 172 MB
for two years of hours; a week of samples and events takes at most 350 MB (history.py).
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from host_controller.records.history_reading import sample_of, span_of
from host_controller.records.history_schema import COLUMNS, PERCENTILES, SPAN_COLUMNS
from host_controller.records.thinning import REPEAT_SECONDS
from host_controller.records.tiers import HOUR, MINUTE, Minutes, Span, hour_of
from host_controller.units import KIB

DAY: Final = 86400.0
ROW_BYTES: Final = {"samples": 55, "minutes": 64, "hours": 98, "entries": 250}
"""Of each table, index and slack included, at most (tests/unit/records/test_tiers.py measures them)."""
CATCH_UP: Final = 24.0
"""How much faster than it runs a clock that was set forward is followed in forgetting: a day an hour."""
STORED_HOLDS: Final = REPEAT_SECONDS + 30.0
_UNIT: Final = {"samples": ("at", 0.001), "minutes": ("minute", MINUTE), "hours": ("hour", HOUR)}

_MEAN: Final = (
    "coalesce(({0} * {1} + excluded.{0} * excluded.{1}) / nullif({1} + excluded.{1}, 0), {0}, excluded.{0})"
)
_MOST: Final = "max(coalesce({0}, excluded.{0}), coalesce(excluded.{0}, {0}))"
_MERGED: Final = {
    "assigned": _MEAN.format("assigned", "ms"),
    "charge": _MEAN.format("charge", "ms"),
    "usable": _MEAN.format("usable", "known_ms"),
    "demand": _MEAN.format("demand", "known_ms"),
    **{name: _MOST.format(name) for name in ("assigned_most", "demand_most", "need_most")},
    **{name: f"{name} + excluded.{name}" for name in ("ms", "known_ms", "tight_ms")},
}
_PUT_MINUTE: Final = (
    f"INSERT INTO minutes VALUES ({', '.join('?' * (2 + len(SPAN_COLUMNS)))})"  # noqa: S608 # our own names
    f" ON CONFLICT (vm, minute) DO UPDATE SET {', '.join(f'{name} = {how}' for name, how in _MERGED.items())}"
)

_PUT_HOUR: Final = (
    f"INSERT OR REPLACE INTO hours VALUES ({', '.join('?' * (2 + len(SPAN_COLUMNS) + len(PERCENTILES)))})"  # noqa: S608
)


@dataclass(frozen=True, slots=True)
class Keep:
    """How long each tier is kept, seconds. Events are kept as long as samples."""

    samples: float = 7 * DAY
    minutes: float = 35 * DAY
    hours: float = 730 * DAY


KEEP: Final = Keep()


class TierFile:
    """Minutes and hours in an open file, and its forgetting. Methods raise sqlite3.Error."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._changed: set[tuple[int, int]] = set()
        """VM and hour of minutes whose hour is to be made."""

    def catch_up(self) -> None:
        """Make the minutes that whoever wrote the samples did not come to write, and their hours."""
        for (vm,) in self._db.execute("SELECT id FROM vms").fetchall():
            last = self._newest(vm, "minutes", "minute")
            begin = (-1 if last is None else last + 1) * MINUTE
            rows = self._db.execute(
                f"SELECT at, {', '.join(COLUMNS)}, pressure, phase FROM samples"  # noqa: S608 # our own names
                " WHERE vm = ? AND at >= ? ORDER BY at",
                (vm, (begin - STORED_HOLDS) * 1000),  # what was true before lasts into the first of them
            )
            minutes = Minutes(STORED_HOLDS)
            done: list[Span] = []
            for row in rows:
                sample = sample_of(row)
                if sample is not None:
                    done += minutes.add(sample.at, sample)
            done += minutes.close()
            with self._db:
                self.put((vm, one) for one in done if one.at >= begin)
            last_hour = self._newest(vm, "hours", "hour")
            open_hours = self._db.execute(
                "SELECT DISTINCT minute / 60 FROM minutes WHERE vm = ? AND minute >= ?",
                (vm, 0 if last_hour is None else last_hour * 60),
            )
            self._changed.update((vm, hour) for (hour,) in open_hours)
        self.make_hours()

    def put(self, spans: Iterable[tuple[int, Span]]) -> None:
        """Write minutes, each with the number of its VM, within the transaction that is open."""
        rows = list(spans)
        self._db.executemany(_PUT_MINUTE, [_row(vm, one, MINUTE) for vm, one in rows])
        self._changed.update((vm, int(one.at // HOUR)) for vm, one in rows)

    def make_hours(self) -> None:
        """Make the hours whose minutes have changed."""
        changed, self._changed = self._changed, set()
        with self._db:
            for vm, hour in changed:
                rows = self._db.execute(
                    f"SELECT minute, {', '.join(SPAN_COLUMNS)} FROM minutes"  # noqa: S608 # our own names
                    " WHERE vm = ? AND minute BETWEEN ? AND ?",
                    (vm, hour * 60, hour * 60 + 59),
                )
                spans = [span for row in rows if (span := span_of(row, MINUTE)) is not None]
                whole = hour_of(spans)
                if whole is not None:
                    self._db.execute(_PUT_HOUR, _row(vm, whole, HOUR) + _percentiles(whole))

    def forgetting_time(self, now: float, elapsed: float) -> float:
        """The time by which things are old, seconds since 1970: never later than `now`.

        It follows a clock that was set forward slowly, by a day for each hour of `elapsed`: a clock that was
        wrong for a while costs no history. A host that was off for a month catches up in a day or two.
        """
        row = self._db.execute("SELECT seen FROM clock").fetchone()
        before = row[0] if row else self._newest_of_all()
        seen = now if before is None else min(now, float(before) + max(0.0, elapsed) * CATCH_UP)
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO clock VALUES (1, ?)", (seen,))
        return seen

    def forget(self, table: str, before: float) -> None:
        """Drop a tier's rows from before a time, seconds since 1970."""
        if table == "entries":
            with self._db:
                self._db.execute("DELETE FROM entries WHERE at < ?", (before,))
            return
        column, unit = _UNIT[table]
        for (vm,) in self._db.execute("SELECT id FROM vms").fetchall():
            with self._db:  # one VM at a time: no transaction is long
                self._db.execute(
                    f"DELETE FROM {table} WHERE vm = ? AND {column} < ?",  # noqa: S608 # our own names
                    (vm, int(before / unit)),
                )

    def shrink(self) -> bool:
        """Forget a tenth of the tier that takes most, its oldest rows; False when nothing is left to forget.

        By rows and not by time: one row of a clock that was years ahead must not cost all the others.
        """
        counts = {
            table: self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 # our own
            for table in ROW_BYTES
        }
        table = max(counts, key=lambda one: counts[one] * ROW_BYTES[one])
        if not counts[table]:
            return False
        share = counts[table] // 10 + 1
        if table == "entries":
            sql = "SELECT max(number) FROM (SELECT number FROM entries ORDER BY number LIMIT ?)"
            (last,) = self._db.execute(sql, (share,)).fetchone()
            with self._db:
                self._db.execute("DELETE FROM entries WHERE number <= ?", (last,))
            return True
        column, unit = _UNIT[table]
        grain = max(1, round(HOUR / unit)) if table == "samples" else round(DAY / unit)
        by_time = self._db.execute(
            f"SELECT {column} / {grain} AS grain, count(*) FROM {table} GROUP BY grain ORDER BY grain"  # noqa: S608
        )
        for one, count in by_time:
            share -= count
            if share <= 0:
                self.forget(table, (one + 1) * grain * unit)
                break
        return True

    def _newest(self, vm: int, table: str, column: str) -> int | None:
        sql = f"SELECT max({column}) FROM {table} WHERE vm = ?"  # noqa: S608 # our own names
        found = self._db.execute(sql, (vm,)).fetchone()[0]
        return found if isinstance(found, int) else None

    def _newest_of_all(self) -> float | None:
        found = self._db.execute(
            "SELECT max(at) FROM"
            " (SELECT max(at) AS at FROM entries UNION ALL SELECT max(at) / 1000.0 FROM samples)"
        ).fetchone()[0]
        return float(found) if isinstance(found, int | float) else None


def _row(vm: int, span: Span, unit: float) -> tuple[int | None, ...]:
    times = span.seconds, span.known_seconds, span.tight_seconds
    return (
        vm,
        int(span.at // unit),
        max(1, round(times[0] * 1000)),
        *(round(one * 1000) for one in times[1:]),
        *(None if one is None else one // KIB for one in span.sizes()),
    )


def _percentiles(span: Span) -> tuple[int | None, ...]:
    if span.demand_percentiles is None:
        return (None,) * len(PERCENTILES)
    return tuple(one // KIB for one in span.demand_percentiles)
