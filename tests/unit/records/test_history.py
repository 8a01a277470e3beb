"""The history on disk: what is kept, what it costs, and that nothing about it can harm control."""

import asyncio
import json
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from host_controller.api.stored_history import read_moment, read_stored
from host_controller.api.views import host_view
from host_controller.core.state import Notice
from host_controller.core.vm.record import Phase
from host_controller.records.entries import Entry
from host_controller.records.history import BURST, PER_HOUR, History
from host_controller.records.history_file import HistoryFile
from host_controller.records.history_reading import Reading
from host_controller.records.journal import Journal
from host_controller.records.samples import Sample
from host_controller.records.tier_file import ROW_BYTES, Keep
from host_controller.simulator.workload import Workload, burst
from host_controller.units import GIB, MIB
from tests.support import waiting
from tests.support.serving import served
from tests.support.virtual import Host, aside, run, until

DAY = 86_400
EPOCH = float(int(time.time()) - 2 * DAY)
PER_VM_AND_DAY = 500_000
"""50 MB a day at 100 VMs."""


def history(path: Path, **more: Any) -> History:
    options: dict[str, Any] = {"keep_seconds": 7 * DAY, "largest_bytes": GIB, "wall": lambda at: EPOCH + at}
    return History(path, **(options | more))


def sample(at: float, assigned: int, demand: int = 300 * MIB) -> Sample:
    others = (demand, demand, demand, assigned, assigned, assigned, assigned, assigned)
    return Sample(at, assigned, *others, 50.0, Phase.LIVE, 1.0)


def entry(number: int, at: float, text: str = "the guest has a use for it", **detail: object) -> Entry:
    return Entry(number, at, EPOCH + at, "decision", "grow", "uuid-1", "web", text, detail)


def size_of(path: Path) -> int:
    """Of the file's pages, those that are still in the write-ahead log included."""
    with sqlite3.connect(path) as db:
        (size,) = db.execute(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        ).fetchone()
    return int(size)


def minutes_of(path: Path) -> int:
    """Bytes that the minutes take, at most."""
    with sqlite3.connect(path) as db:
        return int(db.execute("SELECT count(*) FROM minutes").fetchone()[0]) * ROW_BYTES["minutes"]


def without_tiers(path: Path) -> None:
    """What minutes and hours take has bounds of its own (test_tiers.py)."""
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("DELETE FROM minutes")
        db.execute("VACUUM")


def test_a_vms_past_is_told_from_the_file_after_the_controller_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"

    async def story() -> str:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            kept = History(path, keep_seconds=7 * 86400, largest_bytes=GIB, wall=controller.journal.wall_time)
            controller.journal.add_sink(kept)
            await until(lambda: vm.actual_bytes < 512 * MIB, "web gets smaller")
        return vm.uuid

    uuid = run(story())
    reading = Reading(path)
    try:
        assert reading.find("web") == (uuid, "web") == reading.find(uuid.upper())
        samples = reading.samples(uuid, 0)
        assert samples[0].actual_bytes == GIB
        assert samples[-1].actual_bytes is not None
        assert samples[-1].actual_bytes < GIB
        entries = reading.entries(uuid, 0)
        assert any(one.kind == "decision" and one.topic == "shrink" for one in entries)
        done = next(one for one in entries if one.topic == "SetTarget")
        assert done.text == "SetTarget done"
        assert done.detail is not None
        assert '"target_bytes"' in done.detail
    finally:
        reading.close()


def test_the_api_tells_from_the_file_what_is_longer_ago_than_an_hour(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    file = HistoryFile(path)
    now = time.time()
    file.write(
        [
            ("sample", (now - 3 * 3600, "uuid-old", "old", sample(0, GIB))),
            ("entry", (now - 3 * 3600, "notice", "gone", "uuid-old", "old", "old is gone", None)),
        ]
    )
    file.close()

    async def story() -> None:
        async with served(Host(), tmp_path, history=path) as (_, client):
            answer = await aside(lambda: client.get("vms", "old", "history", since="1d"))
            assert answer["name"] == "old"
            assert answer["samples"][0]["assigned_bytes"] == GIB
            assert answer["entries"][0]["text"] == "old is gone"
            with pytest.raises(Exception, match="no managed VM 'nobody'"):
                await aside(lambda: client.get("vms", "nobody", "history", since="1d"))

    run(story())


def test_of_vms_of_one_name_the_one_that_runs_is_told_of_or_else_the_last_that_did(tmp_path: Path) -> None:
    path, now = tmp_path / "history.sqlite", time.time()

    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        file = HistoryFile(path)
        day_ago = now - 86400
        file.write([("sample", (day_ago, vm.uuid, "db", sample(0, GIB)))])
        file.write([("sample", (day_ago, "uuid-gone", "web", sample(0, 3 * GIB)))])
        # It was renamed when that one was gone, and is not the one that was seen first.
        file.write([("sample", (now - 7200, vm.uuid, "web", sample(0, 2 * GIB)))])
        file.close()
        reading = Reading(path)
        try:
            assert reading.find("web") == (vm.uuid, "web")
        finally:
            reading.close()
        async with served(host, tmp_path, history=path) as (_, client):
            answer = await aside(lambda: client.get("vms", "web", "history", since="2d"))
            assert answer["uuid"] == vm.uuid
            assert [one["assigned_bytes"] for one in answer["samples"]] == [GIB, 2 * GIB]

    run(story())


def test_of_a_vm_that_runs_memory_tells_where_the_file_cannot(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path, history=tmp_path / "broken.sqlite") as (_, client):
            await asyncio.sleep(30)
            answer = await aside(lambda: client.get("vms", "web", "history", since="2d"))
            assert answer["samples"]

    run(story())


def test_a_decision_is_kept_with_what_the_guest_could_not_go_without(tmp_path: Path) -> None:
    kept = history(tmp_path / "history.sqlite")
    kept.sample("uuid-1", "web", sample(10.0, GIB))
    kept.entry(entry(1, 10.0, estimate={"lower_bytes": 200 * MIB, "demand_bytes": 300 * MIB}))
    kept.close()
    told = read_moment(kept.path, EPOCH + 20.0)
    assert told is not None
    assert json.loads(told)["vms"][0]["lower_bytes"] == 200 * MIB


@pytest.mark.figures
def test_a_guest_that_makes_itself_talked_of_writes_little_more_for_it(tmp_path: Path) -> None:
    """Its agent's version changes twenty times a second, and each time it is worth a notice."""
    path = tmp_path / "history.sqlite"
    kept = history(path)
    journal = Journal(lambda: 0.0, lambda: EPOCH)
    journal.add_sink(kept)
    for second in range(0, DAY, 2):
        told = [Notice(float(second), "agent", "uuid-1", "web", "x" * 2000) for _ in range(5)]
        journal.notices(told)
    waiting.until(lambda: kept.written == kept.taken, "all is written")
    journal.close()
    size = size_of(path)
    print(f"a day of notices: {size / 1000:.0f} kB, {kept.written} rows")
    assert size < PER_VM_AND_DAY / 2


@pytest.mark.figures
def test_the_liveliest_vm_writes_less_than_500_kb_in_a_day(tmp_path: Path) -> None:
    """A worst case: every second of a day all figures jump and four things are done."""
    path = tmp_path / "history.sqlite"
    kept = history(path)
    rng = random.Random(1)
    number = 0
    for second in range(DAY):
        kept.sample("uuid-1", "web", sample(second, rng.randrange(GIB), rng.randrange(GIB)))
        for _ in range(4):
            number += 1
            estimate = {"demand_bytes": rng.randrange(GIB), "desired_bytes": rng.randrange(GIB)}
            kept.entry(entry(number, second, target_bytes=rng.randrange(GIB), estimate=estimate))
    kept.close()
    whole = size_of(path)
    without_tiers(path)
    print(f"history of the liveliest VM in a day: {size_of(path) / 1e3:.0f} kB, with tiers {whole / 1e3:.0f}")
    assert kept.dropped == 0
    assert size_of(path) < PER_VM_AND_DAY


@pytest.mark.figures
def test_busy_vms_stay_within_50_mb_a_day_for_100(tmp_path: Path) -> None:
    """Measured in an hour, since files grow by pages, after they have used up what is allowed at once."""
    path = tmp_path / "history.sqlite"
    count, warm, seconds = 10, 3000.0, 3600.0
    sizes: list[int] = []

    async def story() -> None:
        host = Host(12 * GIB)
        for number in range(count):
            curve = burst(96 * MIB, 900 * MIB, 120 + 17 * number, 40, warm + seconds, rise=8)
            host.vm(f"vm{number}", workload=Workload(anonymous=curve))
        async with host.controller() as controller:
            kept = History(path, keep_seconds=7 * 86400, largest_bytes=GIB, wall=controller.journal.wall_time)
            controller.journal.add_sink(kept)
            for pause in (warm, seconds):
                await asyncio.sleep(pause)
                await aside(waiting.until, lambda: kept.written == kept.taken, "all is written")
                sizes.append(size_of(path) - minutes_of(path))
        assert kept.dropped == 0
        assert kept.problem is None

    run(story())
    a_day = (sizes[1] - sizes[0]) * (100 / count) * (DAY / seconds)
    print(f"history of {count} busy VMs: {sizes}; 100 VMs and a day at this rate: {a_day / 1e6:.1f} MB")
    assert a_day < 50e6


def test_a_vm_that_does_nothing_but_move_is_told_of_within_its_budget(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    kept = history(path)
    for number in range(1, 5 * BURST):
        kept.entry(entry(number, number / 10))
    kept.entry(entry(9999, 7 * 3600.0))
    kept.close()
    reading = Reading(path)
    stored = reading.entries(None, 0)
    reading.close()
    assert BURST <= len(stored) <= BURST + PER_HOUR + 2
    assert stored[-1].detail is not None
    assert "left_out_before" in stored[-1].detail


def test_what_is_too_old_or_too_much_is_forgotten(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "history.sqlite")
    file.write(("sample", (EPOCH + at, "u", "web", sample(at, GIB))) for at in range(0, 40_000, 10))
    file.write(("entry", (EPOCH + at, "notice", "x", None, None, "x" * 500, None)) for at in range(4000))
    file.clean(EPOCH + 40_000, 0, Keep(samples=20_000), GIB)
    reading = Reading(tmp_path / "history.sqlite")
    assert min(one.at for one in reading.samples("u", 0)) == EPOCH + 19_990
    assert reading.entries(None, 0) == []
    before = file.size_bytes()
    file.clean(EPOCH + 40_000, 0, Keep(), before // 2)
    assert file.size_bytes() <= before // 2
    assert reading.samples("u", 0)[-1].at == EPOCH + 39_990
    reading.close()
    file.close()


def test_a_broken_file_is_put_aside_and_another_begun(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"this is not a database, and never was one" * 100)
    kept = history(path)
    kept.entry(entry(1, 1.0))
    waiting.until(lambda: kept.written and (tmp_path / "history.sqlite.broken").exists(), "put aside")
    kept.close()
    reading = Reading(path)
    assert [one.text for one in reading.entries(None, 0)] == ["the guest has a use for it"]
    reading.close()


def test_a_file_that_breaks_while_it_is_written_costs_history_only(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    told: list[str] = []
    kept = history(path, failed=told.append)
    kept.entry(entry(1, 1.0))
    waiting.until(lambda: path.exists() and _entries(path), "the first row is written")
    with path.open("r+b") as file:
        file.write(b"\xff" * 8192)
    for number in range(2, 200):
        kept.entry(entry(number, number))
        kept.sample("uuid-1", "web", sample(number * 20, number * MIB))
    kept.close()
    assert not kept._thread.is_alive()


def test_no_room_or_no_right_costs_history_is_said_once_and_control_goes_on(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")

    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            told: list[str] = []
            kept = history(blocked / "history.sqlite", failed=told.append)
            controller.journal.add_sink(kept)
            await until(lambda: vm.actual_bytes < 512 * MIB, "web gets smaller all the same")
            await aside(lambda: waiting.until(lambda: told, "somebody is told"))
            assert "Not a directory" in told[0] or "File exists" in told[0]
            assert len(told) == 1
            assert host_view(controller).history_problem == kept.problem == told[0], "as long as it lasts"

    run(story())


def test_a_full_disk_costs_history_only(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    file = HistoryFile(path)
    file._db.execute("PRAGMA max_page_count = 20")  # to SQLite, this is a full disk
    with pytest.raises(sqlite3.OperationalError, match="full"):
        file.write(("entry", (EPOCH, "notice", "x", None, None, "x" * 4000, None)) for _ in range(100))
    file.write([])
    file.close()
    # The file is whole: what did not fit was left out as a whole.
    assert _entries(path) == 0


def test_a_file_that_cannot_be_read_is_an_unknown_vm(tmp_path: Path) -> None:
    assert read_stored(tmp_path / "nothing.sqlite", "web", 0) is None


def _entries(path: Path) -> int:
    with sqlite3.connect(path) as db:
        try:
            return int(db.execute("SELECT count(*) FROM entries").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # its tables are just being made
