"""Minutes and hours: what they come to, what they take, and that neither a kill nor a clock costs any."""

import csv
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from host_controller.api.answer import read
from host_controller.api.schema.history import HistoryView
from host_controller.api.stored_history import one_in, read_stored, span_view, step_for
from host_controller.cli.export import FORMATS
from host_controller.core.model import Limits, VmConfig
from host_controller.core.vm.record import Phase
from host_controller.records.entries import Entry
from host_controller.records.history import History
from host_controller.records.history_file import HistoryFile
from host_controller.records.history_reading import Reading
from host_controller.records.history_schema import FIRST
from host_controller.records.samples import Sample
from host_controller.records.stored_limits import StoredLimits
from host_controller.records.tier_file import DAY, ROW_BYTES, Keep
from host_controller.records.tiers import Minutes, Span, hour_of, weighted_percentile
from host_controller.units import GIB, MIB

NOW = float(int(time.time()) // 3600 * 3600)
MINUTES_OF_A_TIER = 35 * 1440
HOURS_OF_A_TIER = 730 * 24
VMS = 100


def sample(at: float, assigned: int = GIB, demand: int | None = 300 * MIB, percent: float = 50.0) -> Sample:
    return Sample(
        at, assigned, demand, demand, demand, None, None, None, 2 * GIB, assigned, percent, Phase.LIVE, 1.0
    )


def minutes_from(samples: list[Sample], holds: float = 30.0) -> list[Span]:
    found: list[Span] = []
    minutes = Minutes(holds)
    for one in samples:
        found += minutes.add(one.at, one)
    return found + minutes.close()


def span(at: float, demand: int = 300 * MIB, seconds: float = 60.0) -> Span:
    return Span(at, seconds, seconds, 0.0, GIB, GIB, 2 * GIB, GIB, demand, demand, demand)


def contents(path: Path, sql: str) -> list[Any]:
    with sqlite3.connect(path) as db:
        return db.execute(sql).fetchall()


def test_a_minute_holds_the_mean_over_time_and_the_largest() -> None:
    (first, second) = minutes_from(
        [sample(0, demand=100 * MIB), sample(20, demand=400 * MIB), sample(50), sample(61)]
    )[:2]
    assert first.at == 0
    assert first.seconds == first.known_seconds == 60
    assert first.demand_bytes == pytest.approx((20 * 100 + 30 * 400 + 10 * 300) / 60 * MIB, abs=1)
    assert first.demand_largest_bytes == 400 * MIB
    assert second.demand_largest_bytes == 300 * MIB


def test_a_gap_is_in_no_sum() -> None:
    first, second = minutes_from([sample(0), sample(300), sample(310)])
    assert (first.at, first.seconds) == (0, 30)
    assert (second.at, second.seconds) == (300, 10)


def test_what_was_seen_without_a_report_is_told_apart() -> None:
    (only,) = minutes_from([sample(0, demand=None), sample(20, demand=200 * MIB), sample(40)])
    assert (only.seconds, only.known_seconds) == (40, 20)
    assert only.demand_bytes == 200 * MIB


def test_a_guest_with_nothing_to_spare_is_counted_as_tight() -> None:
    (only,) = minutes_from([sample(0, percent=96), sample(15), sample(30)])
    assert only.tight_seconds == 15


def test_an_hour_holds_percentiles_of_its_minutes() -> None:
    found = hour_of([span(60.0 * number, number * MIB) for number in range(1, 60)])
    assert found is not None
    assert found.demand_percentiles == (3 * MIB, 15 * MIB, 30 * MIB, 45 * MIB, 57 * MIB)
    assert found.demand_largest_bytes == 59 * MIB
    assert weighted_percentile([(1, 95.0), (2, 5.0)], 95) == 1
    assert hour_of([]) is None


def test_minutes_and_limits_reach_the_file_and_the_api(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    config = VmConfig("u", "web", Limits(GIB, 512 * MIB, 4 * GIB))
    kept = History(
        path, keep_seconds=7 * 86400, largest_bytes=GIB, wall=lambda at: NOW + at, config=lambda uuid: config
    )
    for at in range(0, 200, 10):
        kept.sample("u", "web", sample(at))
    kept.close()
    told = read_stored(path, "web", NOW, "minute")
    assert told is not None
    view = msgspec.json.decode(told, type=HistoryView)
    assert [(one.at - NOW, one.seconds) for one in view.spans] == [(0, 60), (60, 60), (120, 60), (180, 10)]
    reading = Reading(path)
    limits = reading.vms()[0].limits
    assert limits is not None
    assert limits.limits() == config.limits
    reading.close()


def test_a_minute_that_is_seen_in_two_parts_is_the_sum_of_both(tmp_path: Path) -> None:
    """A controller that was restarted, or a clock that was set back."""
    file = HistoryFile(tmp_path / "history.sqlite")
    for demand, seconds in ((300 * MIB, 20.0), (600 * MIB, 40.0)):
        file.write([("minute", ("u", "web", span(NOW, demand, seconds), None))])
    file.close()
    (only,) = Reading(tmp_path / "history.sqlite").minutes("u", 0)
    assert (only.seconds, only.demand_bytes, only.demand_largest_bytes) == (60, 500 * MIB, 600 * MIB)


def test_a_file_of_0_1_is_taken_over_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(f"{FIRST} PRAGMA user_version = 1;")
        db.execute("INSERT INTO vms VALUES (1, 'u', 'web')")
        rows = [(1, int((NOW + 20 * n) * 1000), *[1 << 20] * 8, 50, 0) for n in range(360)]
        db.executemany(f"INSERT INTO samples VALUES ({','.join('?' * 12)})", rows)
    db.close()
    assert Reading(path).minutes("u", 0) == []
    assert len(Reading(path).samples("u", 0)) == 360
    file = HistoryFile(path)
    file.catch_up()
    file.close()
    reading = Reading(path)
    assert len(reading.samples("u", 0)) == 360
    assert [one.seconds for one in reading.minutes("u", 0)][:119] == [60.0] * 119
    assert [one.demand_largest_bytes for one in reading.hours("u", 0)] == [GIB, GIB]
    reading.close()


def test_what_was_true_before_the_first_minute_that_is_caught_up_lasts_into_it(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    written = HistoryFile(path)
    rows = [
        ("sample", (NOW + at, "u", "web", sample(NOW + at, demand))) for at, demand in ((55, GIB), (65, MIB))
    ]
    written.write([*rows, ("minute", ("u", "web", span(NOW), None))])
    written.close()
    file = HistoryFile(path)
    file.catch_up()
    file.close()
    found = [(one.at - NOW, one.seconds, one.assigned_bytes) for one in Reading(path).minutes("u", 0)]
    assert found == [(0, 60, GIB), (60, 5, GIB)]


WRITER = """
import sys, time
from pathlib import Path
from host_controller.records.entries import Entry
from host_controller.records.history import History
from host_controller.records.tier_file import Keep
from host_controller.units import GIB
from tests.unit.records.test_tiers import sample
kept = History(Path(sys.argv[1]), keep_seconds=7 * 86400, largest_bytes=GIB, wall=lambda at: at)
begin = float(sys.argv[2])
for step in range(600):  # twenty samples a second of a clock that runs a hundred times as fast
    kept.sample("u", "web", sample(begin + 5 * step, (1 + step % 7) * GIB))
    print(step, flush=True)
    time.sleep(0.05)
"""


def test_a_writer_that_is_killed_costs_the_rows_of_its_last_seconds_and_no_minute(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    command = [sys.executable, "-c", WRITER, str(path), str(NOW)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    ) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) == 120:  # six seconds of ours, ten minutes of its clock's
                os.kill(writer.pid, signal.SIGKILL)
                break
        said = time.monotonic()
        writer.wait()
    assert time.monotonic() - said < 60
    before = contents(path, "SELECT vm, at FROM samples")
    assert len(before) > 20
    last = max(at for _, at in before) / 1000
    assert NOW + 5 * 120 - last <= 10 / 0.05 * 5, "the rows of its last ten seconds at most"
    after = History(path, keep_seconds=7 * DAY, largest_bytes=GIB, wall=lambda at: NOW + at)
    after.entry(Entry(1, 1.0, NOW, "notice", "operator", None, None, "another controller", {}))
    end = time.monotonic() + 60
    while not after.written and time.monotonic() < end:
        time.sleep(0.01)
    after.close()
    assert contents(path, "SELECT vm, at FROM samples") == before
    minutes = Reading(path).minutes("u", 0)
    assert minutes[-1].at == (last - 1) // 60 * 60, "a row of a full minute says what was true before it"
    assert all(b.at - a.at == 60 for a, b in itertools.pairwise(minutes))


@pytest.mark.parametrize("jump", [400 * DAY, -400 * DAY], ids=["forward", "back"])
def test_a_clock_that_jumps_costs_nothing_that_is_stored(tmp_path: Path, jump: float) -> None:
    path = tmp_path / "history.sqlite"
    file = HistoryFile(path)
    file.write([("sample", (NOW + at, "u", "web", sample(at))) for at in range(0, 3600, 20)])
    file.write([("minute", ("u", "web", span(NOW + at), None)) for at in range(0, 3600, 60)])
    file.clean(NOW + 3600, 600, Keep(), GIB)
    file.write([("sample", (NOW + jump, "u", "web", sample(0)))])
    for _ in range(6):  # an hour at the wrong time
        file.clean(NOW + 3600 + jump, 600, Keep(), GIB)
    file.write([("sample", (NOW + at, "u", "web", sample(at, 2 * GIB))) for at in range(0, 100, 20)])
    file.clean(NOW + 7200, 600, Keep(), GIB)
    file.close()
    reading = Reading(path)
    stored = reading.samples("u", NOW - DAY)
    assert len([one for one in stored if one.assigned_bytes == GIB and one.at < NOW + DAY]) == 180
    assert len([one for one in stored if one.assigned_bytes == 2 * GIB]) == 5
    assert len([one for one in reading.minutes("u", NOW - DAY) if one.at < NOW + DAY]) == 60
    assert len(reading.hours("u", NOW - DAY)) >= 1
    reading.close()


def test_one_row_from_the_future_does_not_cost_the_others_when_there_is_too_much(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    file = HistoryFile(path)
    file.write([("sample", (NOW + at, "u", "web", sample(at))) for at in range(0, 200_000, 20)])
    file.write([("sample", (NOW + 3000 * DAY, "u", "web", sample(0)))])
    before = file.size_bytes()
    file.clean(NOW + 200_000, 0, Keep(), before // 2)
    file.close()
    assert 3000 < contents(path, "SELECT count(*) FROM samples")[0][0] < 5500


def test_what_is_forgotten_is_forgotten_tier_by_tier(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    file = HistoryFile(path)
    days = [NOW - day * DAY for day in range(60)]
    file.write([("sample", (at, "u", "web", sample(at))) for at in days])
    file.write([("minute", ("u", "web", span(at), None)) for at in days])
    file.clean(NOW, 0, Keep(), GIB)
    file.close()
    reading = Reading(path)
    found = len(reading.samples("u", 0)), len(reading.minutes("u", 0)), len(reading.hours("u", 0))
    assert found == (8, 36, 60)
    reading.close()


def test_rows_wait_for_a_disk_that_is_full_and_what_was_lost_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host_controller.records.history.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("host_controller.records.history.COMMIT_SECONDS", 0.05)
    monkeypatch.setattr("host_controller.records.history.LARGEST_QUEUE", 50)
    full = [True]
    write = HistoryFile.write

    def writing(file: HistoryFile, rows: Any) -> None:
        if full[0]:
            raise sqlite3.OperationalError("database or disk is full")
        write(file, rows)

    monkeypatch.setattr(HistoryFile, "write", writing)
    kept = History(
        tmp_path / "history.sqlite", keep_seconds=7 * 86400, largest_bytes=GIB, wall=lambda at: NOW + at
    )
    end = time.monotonic() + 60
    for at in range(80):
        kept.sample("u", "web", sample(at * 20, (1 + at % 2) * GIB))
        while kept._queue.qsize() and time.monotonic() < end:
            time.sleep(0.001)
    while not kept.dropped and time.monotonic() < end:
        time.sleep(0.01)
    assert kept.problem is not None
    full[0] = False
    while kept.problem is not None and time.monotonic() < end:
        time.sleep(0.01)
    kept.close()
    reading = Reading(tmp_path / "history.sqlite")
    assert len(reading.samples("u", 0)) > 30
    (said,) = [one.text for one in reading.entries(None, 0)]
    assert said.startswith(f"{kept.dropped} rows of the history could not be written: ")
    assert "disk is full" in said
    reading.close()


@pytest.mark.figures
def test_each_tier_holds_its_size_at_100_vms(tmp_path: Path) -> None:
    """Figures as they come, of VMs that never stand still, written as they are written."""
    sizes = {}
    for table, count in (("minutes", 1440), ("hours", 24 * 60)):
        path = tmp_path / f"{table}.sqlite"
        file = HistoryFile(path)
        empty = file.size_bytes()
        step = 60 if table == "minutes" else 3600
        for number in range(0, count, 20):
            rows = [
                ("minute", (f"u{vm}", f"vm{vm}", span(NOW + n * step, (n * 7919 + vm) % 8000 * MIB), None))
                for n in range(number, number + 20)
                for vm in range(10)
            ]
            file.write(rows)
        if table == "hours":
            file.clean(NOW, 0, Keep(minutes=0.001), GIB)
            file._tiers.forget("minutes", NOW + 1e9)
            file._hand_back()
        sizes[table] = (file.size_bytes() - empty) / (count * 10)
        file.close()
    for table, rows in (("minutes", MINUTES_OF_A_TIER), ("hours", HOURS_OF_A_TIER)):
        print(f"{table}: {sizes[table]:.0f} bytes a row, {sizes[table] * VMS * rows / 1e6:.0f} MB at 100 VMs")
    assert sizes["minutes"] <= ROW_BYTES["minutes"]
    assert sizes["hours"] <= ROW_BYTES["hours"]


def answer(step: str = "minute") -> Any:
    spans = [span_view(span(NOW + at)) for at in (0, 60)]
    limits = StoredLimits.of(VmConfig("u", "web", Limits(GIB, 512 * MIB, 4 * GIB)))
    view = HistoryView(
        uuid="u", name='we"b\n', step="minute", samples=[], spans=spans, entries=[], limits=limits
    )
    return read(msgspec.json.encode(view))


def test_an_export_is_csv_json_lines_or_openmetrics() -> None:
    head, first, _second = FORMATS["csv"](answer())
    assert dict(zip(head.split(","), next(csv.reader([first])), strict=True))["demand_bytes"] == str(
        300 * MIB
    )
    vm, *rows = map(json.loads, FORMATS["jsonl"](answer()))
    assert (vm["dynmem-history"], vm["limits"]["maximum_bytes"]) == (1, 4 * GIB)
    assert [one["span"]["at"] for one in rows] == [NOW, NOW + 60]
    lines = list(FORMATS["openmetrics"](answer()))
    assert lines[-1] == "# EOF"
    assert f'dynmem_history_demand_bytes{{uuid="u",vm="we\\"b?"}} {300 * MIB} {NOW:.3f}' in lines
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) == 9


@pytest.mark.figures
def test_of_many_hours_the_largest_are_told_where_few_points_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    file = HistoryFile(path)
    every = [span(NOW - 3600 * hour) for hour in range(240)]
    spans = [one._replace(assigned_largest_bytes=(1 + n % 24) * GIB) for n, one in enumerate(every)]
    file.write([("minute", ("u", "web", one, None)) for one in spans])
    file.clean(NOW, 0, Keep(), GIB)
    file.close()
    assert [one_in(10 * DAY, "hour", points) for points in (10, 0, 1000)] == [24, 1, 1]
    told = read_stored(path, "web", NOW - 10 * DAY, "hour", 24)
    assert told is not None
    found = msgspec.json.decode(told, type=HistoryView).spans
    assert 10 <= len(found) <= 11
    assert {one.assigned_largest_bytes for one in found[1:-1]} == {24 * GIB}
    assert [one.at for one in found] == sorted(one.at for one in found)


def test_the_hours_of_a_year_are_told_in_a_second(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    file = HistoryFile(path)
    file.write([("minute", ("u", "web", span(NOW - 3600 * hour), None)) for hour in range(366 * 24)])
    file.clean(NOW, 0, Keep(minutes=400 * DAY), GIB)
    file.close()
    began = time.process_time()
    told = read_stored(path, "web", NOW - 365 * DAY, step_for(365 * DAY))
    assert told is not None
    assert len(msgspec.json.decode(told, type=HistoryView).spans) > 8700
    print(
        f"a year by the hour: {time.process_time() - began:.2f} s of processor time, {len(told) / 1e6:.1f} MB"
    )
