"""Advice: what it is drawn from, what it refuses to say, and that the replay has the last word."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from host_controller.advice.advise import advise
from host_controller.advice.past import DAY, SLOT, Past, aligned, comparable, past_of
from host_controller.advice.replay import Replay
from host_controller.advice.sizes import suggest
from host_controller.advice.sources import pasts_in
from host_controller.cli import group
from host_controller.cli.advise import read_pasts
from host_controller.cli.export import FORMATS
from host_controller.cli.set_limits import set_limits
from host_controller.core.model import Growth, Limits, VmConfig
from host_controller.errors import InputError
from host_controller.records.history_file import HistoryFile
from host_controller.records.stored_limits import StoredLimits
from host_controller.records.tiers import Span
from host_controller.units import GIB, MIB
from tests.unit.records.test_tiers import NOW, answer

NOW_LIMITS = Limits(2 * GIB, 512 * MIB, 8 * GIB)
LIMITS = StoredLimits(2 * GIB, 512 * MIB, 8 * GIB, growth=Growth.BALLOON)


def past(demands: list[int | None], name: str = "web", days: float | None = None, **more: Any) -> Past:
    seconds = len(demands) * SLOT if days is None else days * DAY
    values = {"limits": LIMITS} | more
    return Past(f"uuid-{name}", name, values.pop("limits"), 0.0, tuple(demands), seconds, seconds, **values)


def day(base: int = 600 * MIB, peak: int = GIB) -> list[int | None]:
    return [peak if 100 <= slot < 150 else base for slot in range(288)]


def minutes(demands: list[int], assigned: int = 2 * GIB, tight: float = 0.0) -> list[Span]:
    return [
        Span(NOW + 60 * n, 60.0, 60.0, tight, assigned, assigned, assigned, assigned, one, one, one)
        for n, one in enumerate(demands)
    ]


def test_a_maximum_is_what_was_wanted_and_a_quarter_more_after_a_fortnight() -> None:
    found = suggest(past(day() * 15), NOW_LIMITS)
    assert found.confidence == "good"
    assert found.limits.maximum_bytes == 1408 * MIB  # 1 GiB, its margin, a quarter, whole blocks
    assert "it wanted 1 GiB at most" in found.reasons[0]
    assert found.limits.startup_bytes == found.limits.maximum_bytes


def test_less_is_known_after_a_week_so_more_is_left() -> None:
    fortnight, week = (suggest(past(day() * days), NOW_LIMITS).limits for days in (15, 8))
    assert week.maximum_bytes > fortnight.maximum_bytes + 512 * MIB


def test_nothing_is_advised_from_less_than_a_week_unless_asked() -> None:
    short = past(day() * 3)
    refused = suggest(short, NOW_LIMITS)
    assert refused.refused == "it was seen for 3.0 days; advice wants a week (--anyway gives it all the same)"
    assert refused.limits == NOW_LIMITS
    assert suggest(short, NOW_LIMITS, anyway=True).confidence == "poor"
    assert suggest(short, NOW_LIMITS, anyway=True).limits.maximum_bytes < NOW_LIMITS.maximum_bytes


def test_of_a_vm_of_an_hour_it_is_said_and_what_is_known_is_answered_all_the_same() -> None:
    young = past([GIB] * 12)
    assert str(suggest(young, NOW_LIMITS).refused).startswith(
        "it was seen for 1.0 hours; advice wants a week"
    )
    found = advise([young, past(day() * 30, "db")])
    by_name = {one.past.name: one for one in found.vms}
    assert by_name["web"].limits == NOW_LIMITS
    assert by_name["db"].limits.maximum_bytes < NOW_LIMITS.maximum_bytes


def test_a_vm_that_was_renamed_is_one_vm_with_the_name_that_it_had_last(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    file = HistoryFile(path)
    for place, name in enumerate(("web", "shop")):
        spans = [one._replace(at=one.at + 3600 * place) for one in minutes([GIB] * 60)]
        file.write([("minute", ("uuid-1", name, one, None)) for one in spans])
    file.close()
    [one] = pasts_in([path], 0)
    assert (one.name, len(one.demands), one.gaps) == ("shop", 24, 0)


def test_a_trace_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="nowhere: No such file"):
        pasts_in([Path("nowhere")], 0)


def test_a_vm_that_had_its_maximum_and_nothing_to_spare_is_told_a_lower_bound() -> None:
    found = suggest(past([8 * GIB] * 288 * 15, censored_seconds=3600.0), NOW_LIMITS)
    assert found.lower_bound
    assert found.limits.maximum_bytes > NOW_LIMITS.maximum_bytes
    assert "lower bound" in found.reasons[0]


def test_a_vm_that_never_reports_is_named_and_gets_no_advice() -> None:
    silent = replace(past([None] * 288 * 15), known_seconds=0.0)
    found = suggest(silent, NOW_LIMITS)
    assert found.refused is not None
    assert "hardly ever heard" in found.refused
    assert "never reports" in found.findings[0]


def test_a_vm_that_never_shrinks_sits_at_its_maximum_or_never_uses_its_buffer_is_named() -> None:
    seconds = 15 * DAY
    odd = past(
        day() * 15,
        assigned_range=(8 * GIB, 8 * GIB),
        at_maximum_seconds=seconds,
        growth_percent=1.5,
    )
    found = " | ".join(suggest(odd, NOW_LIMITS).findings)
    assert "sits at its maximum, 100 % of the time, though it could spare some" in found
    assert "never shrinks" in found
    assert "its buffer of 20 % is never used" in found
    assert suggest(odd, NOW_LIMITS).limits.buffer_percent == 5


def test_minutes_become_slots_gaps_and_growth() -> None:
    spans = minutes([GIB] * 10 + [2 * GIB] * 10)
    late = [one._replace(at=one.at + 3600) for one in minutes([3 * GIB] * 5)]
    found = past_of("u", "web", LIMITS, spans[:15] + late)
    assert found is not None
    assert found.demands[:3] == (GIB, GIB, 2 * GIB)
    assert found.demands[3:12] == (None,) * 9
    assert (found.gaps, found.gap_seconds) == (1, 3600 - 15 * 60)
    assert found.growth_percent == 100
    assert found.peak_bytes == 3 * GIB


def test_a_minute_without_spare_counts_only_where_it_had_its_maximum() -> None:
    growing = past_of("u", "web", LIMITS, minutes([GIB] * 5, tight=60.0))
    full = past_of("u", "web", LIMITS, minutes([8 * GIB] * 5, assigned=8 * GIB, tight=60.0))
    assert growing is not None
    assert full is not None
    assert (growing.censored_seconds, full.censored_seconds) == (0, 300)


def test_vms_come_and_go_and_a_gap_holds_what_was_seen_last() -> None:
    early, late = past([GIB, None, GIB]), replace(past([2 * GIB] * 2, "db"), begin=2 * SLOT)
    _, rows = aligned([early, late])
    assert rows == [[GIB, None], [GIB, None], [GIB, 2 * GIB], [None, 2 * GIB]]


def test_the_replay_gives_what_is_wanted_where_there_is_room() -> None:
    outcome = Replay([past(day())], {"uuid-web": NOW_LIMITS}).play()
    vm = outcome.vms["uuid-web"]
    assert vm.unmet_share < 0.001
    assert GIB <= vm.largest_bytes < 2 * GIB
    assert outcome.seconds == DAY


def test_the_replay_knows_the_others_of_a_host_that_is_too_small() -> None:
    both = [past(day(GIB, 3 * GIB), name) for name in ("a", "b")]
    limits = {one.uuid: NOW_LIMITS for one in both}
    tight, roomy = (Replay(both, limits, capacity).play() for capacity in (4 * GIB, 16 * GIB))
    assert tight.peak_bytes <= 4 * GIB
    assert sum(one.unmet_mib_seconds for one in tight.vms.values()) > 100 * 1024
    assert sum(one.short_seconds for one in roomy.vms.values()) < 1800


def test_whoever_goes_short_in_the_replay_keeps_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_little(one: Past, now: Limits, *, anyway: bool = False) -> Any:
        return replace(
            suggest(one, now, anyway=anyway),
            limits=replace(now, maximum_bytes=700 * MIB, startup_bytes=700 * MIB),
        )

    pasts = [past(day() * 15)]
    (right,) = advise(pasts).vms
    assert (right.taken_back, right.freed_bytes) == (False, (8192 - 1408) * MIB)
    monkeypatch.setattr("host_controller.advice.advise.suggest", too_little)
    (wrong,) = advise(pasts).vms
    assert (wrong.taken_back, wrong.limits, wrong.freed_bytes) == (True, NOW_LIMITS, 0)


def stored(path: Path, days: int = 8) -> Path:
    file = HistoryFile(path)
    config = VmConfig("uuid-web", "web", NOW_LIMITS)
    begin = NOW - days * DAY
    spans = [one._replace(at=begin + 60 * n) for n, one in enumerate(minutes([GIB] * days * 1440))]
    file.write([("minute", ("uuid-web", "web", one, config)) for one in spans])
    file.close()
    return path


def test_advise_reads_the_history_of_a_host_and_says_what_it_would_have_done(tmp_path: Path) -> None:
    path = stored(tmp_path / "history.sqlite")
    common = ["--history", str(path), "--socket", str(tmp_path / "none.sock")]
    told = CliRunner().invoke(group, ["advise", "web", *common])
    assert told.exit_code == 0, told.output
    assert "seen for 8.0 days, 0 gaps, 0 resets: confidence fair" in told.output
    assert "in the replay: 0 MiB·s unmet" in told.output
    asked = CliRunner().invoke(group, ["advise", "--json", *common])
    (vm,) = json.loads(asked.output)["vms"]
    assert vm["advised"]["maximum_bytes"] == 2176 * MIB
    unknown = CliRunner().invoke(group, ["advise", "nobody", *common])
    assert isinstance(unknown.exception, InputError)


def test_an_export_of_another_host_is_played_again_in_simulate(tmp_path: Path) -> None:
    path = tmp_path / "web.jsonl"
    path.write_text("\n".join(FORMATS["jsonl"](answer())) + "\n")
    (found,) = pasts_in([path], 0.0)
    assert (found.uuid, found.peak_bytes, found.limits is not None) == ("u", 300 * MIB, True)
    told = CliRunner().invoke(group, ["simulate", "--history", str(path), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["vms"][0]["unmet_mib_seconds"] == 0
    changed = CliRunner().invoke(
        group, ["simulate", "--history", str(path), "--with", f"{found.name}:maximum=200M", "--json"]
    )
    assert isinstance(changed.exception, InputError), "startup is above such a maximum"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense\n",
        "[1]\n",
        '{"span": {}}\n',
        '{"dynmem-history": 2}\n',
        '{"dynmem-history": 1, "uuid": "u", "name": "n"}\n{"span": 7}\n',
        *(
            '{"dynmem-history": 1, "uuid": "u", "name": "n"}\n'
            + json.dumps({"span": Span(NOW, *times, 1, 1, 1, 1, 1, 1, 1)._asdict()})
            for times in ((1e11, 60.0, 0.0), (60.0, 61.0, 0.0), (60.0, 60.0, 61.0), (60.0, 60.0, -1.0))
        ),
    ],
    ids=range(10),
)
def test_a_file_that_is_no_export_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    if not text:
        assert pasts_in([path], 0.0) == []
        return
    with pytest.raises(InputError, match=r"x\.jsonl"):
        pasts_in([path], 0.0)


@pytest.mark.parametrize(
    "limits",
    [
        r'{"growth": "\ud800"}', r'{"startup_bytes": "\ud800"}', r'{"\ud800": 1}', r'["\ud800"]', "1e999",
        "NaN", "9" * 400, "true", '{"startup_bytes": 1e30, "minimum_bytes": 1, "maximum_bytes": 1}',
    ],
)  # fmt: skip
def test_limits_of_an_export_that_make_no_sense_are_none(tmp_path: Path, limits: str) -> None:
    path = tmp_path / "x.jsonl"
    span = json.dumps({"span": minutes([GIB])[0]._asdict()})
    path.write_text(f'{{"dynmem-history": 1, "uuid": "u", "name": "n", "limits": {limits}}}\n{span}\n')
    (found,) = pasts_in([path], 0.0)
    assert (found.limits, found.peak_bytes) == (None, GIB)


def test_a_minute_of_a_clock_that_was_years_ahead_makes_no_years_of_slots() -> None:
    spans = minutes([GIB] * 60)
    found = past_of("u", "web", LIMITS, [*spans, spans[0]._replace(at=NOW + 20_000 * DAY)])
    assert found is not None
    assert (len(found.demands), found.gaps) == (12, 0)


def test_vms_of_another_hosts_time_are_left_out_and_named(tmp_path: Path) -> None:
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    here.write_text("\n".join(FORMATS["jsonl"](answer())) + "\n")
    lines = [json.loads(line) for line in FORMATS["jsonl"](answer())]
    lines[0] |= {"uuid": "other", "name": "old"}
    lines[1]["span"]["at"] = 1000.0
    there.write_text("\n".join(map(json.dumps, lines[:2])) + "\n")
    kept, others = comparable(pasts_in([here, there], 0.0))
    assert ([one.uuid for one in kept], [one.uuid for one in others]) == (["u"], ["other"])
    both = ["--history", str(here), "--history", str(there)]
    told = CliRunner().invoke(group, ["simulate", *both])
    assert "left out" in told.output
    assert "old" in told.output
    told = CliRunner().invoke(group, ["simulate", *both, "--json"])
    assert json.loads(told.output)["left_out"] == ["old"]


def test_a_vm_whose_limits_are_not_known_is_named_in_json_as_in_text() -> None:
    known, odd = past([GIB] * 288, "known"), past([GIB] * 288, "odd")
    found = advise([known, replace(odd, limits=None)])
    assert [one["name"] for one in found.as_json()["vms"]] == ["known"]
    assert found.as_json()["left_out"] == ["odd"]


def test_json_of_one_vm_frees_what_that_one_does_as_its_text(tmp_path: Path) -> None:
    path = stored(tmp_path / "history.sqlite")
    file = HistoryFile(path)
    begin, other = NOW - 8 * DAY, VmConfig("uuid-db", "db", NOW_LIMITS)
    spans = [one._replace(at=begin + 60 * n) for n, one in enumerate(minutes([GIB] * 8 * 1440))]
    file.write([("minute", ("uuid-db", "db", one, other)) for one in spans])
    file.close()
    common = ["--json", "--history", str(path), "--socket", str(tmp_path / "none.sock")]
    both, one = (
        json.loads(CliRunner().invoke(group, ["advise", *vm, *common]).output) for vm in ([], ["web"])
    )
    freed = {vm["name"]: vm["freed_bytes"] for vm in both["vms"]}
    assert min(freed.values()) > 0
    assert (both["freed_bytes"], one["freed_bytes"]) == (sum(freed.values()), freed["web"])


def test_a_vm_that_migrated_away_and_back_holds_its_demand_meanwhile_and_the_gap_is_told() -> None:
    home = minutes([GIB] * 20)
    back = [one._replace(at=one.at + 7200) for one in minutes([2 * GIB] * 20)]
    found = past_of("u", "web", LIMITS, home + back)
    assert found is not None
    assert found.gaps == 1
    _, rows = aligned([found])
    assert [row[0] for row in rows[:24]] == [GIB] * 24


def test_of_a_name_that_was_used_again_both_vms_are_told_apart(tmp_path: Path) -> None:
    path = stored(tmp_path / "history.sqlite")
    file = HistoryFile(path)
    again = VmConfig("uuid-new", "web", NOW_LIMITS)
    file.write([("minute", ("uuid-new", "web", one, again)) for one in minutes([GIB] * 60)])
    file.close()
    asked = ["advise", "web", "--json", "--history", str(path), "--socket", str(tmp_path / "none.sock")]
    found = json.loads(CliRunner().invoke(group, asked).output)["vms"]
    assert [(one["uuid"], one["refused"] is None) for one in found] == [
        ("uuid-web", True),
        ("uuid-new", False),
    ]


def test_apply_sets_what_is_advised_as_dynmem_set_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def instead(vm: str, trust: str | None, **given: Any) -> None:
        asked.append({"vm": vm, "trust": trust} | given)

    monkeypatch.setattr(set_limits, "callback", instead)
    common = ["--history", str(stored(tmp_path / "history.sqlite")), "--socket", str(tmp_path / "none.sock")]
    told = CliRunner().invoke(group, ["advise", "web", "--apply", *common])
    assert told.exit_code == 0, told.output
    (given,) = asked
    assert (given["vm"], given["maximum"], given["startup"]) == ("uuid-web", 2176 * MIB, None)
    assert not given["dry_run"]
    everybody = CliRunner().invoke(group, ["advise", "--apply", *common])
    assert isinstance(everybody.exception, InputError)
    assert len(asked) == 1


def test_what_is_advised_for_a_name_is_applied_to_the_vm_that_had_it_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(tmp_path / "history.sqlite")
    file = HistoryFile(path)
    early = [one._replace(at=one.at - 20 * DAY) for one in minutes([GIB] * 60 * 24 * 8)]
    file.write(
        [("minute", ("uuid-gone", "web", one, VmConfig("uuid-gone", "web", NOW_LIMITS))) for one in early]
    )
    file.close()
    asked: list[str] = []
    monkeypatch.setattr(set_limits, "callback", lambda vm, *_, **__: asked.append(vm))
    common = ["--history", str(path), "--since", "365d", "--socket", str(tmp_path / "none.sock")]
    told = CliRunner().invoke(group, ["advise", "web", "--apply", *common])
    assert (told.exit_code, asked) == (0, ["uuid-web"]), told.output


def test_who_has_no_history_is_told_where_one_comes_from(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file") as said:
        pasts_in([tmp_path / "history.sqlite"], 0.0)
    assert "--history" in str(said.value.hint)


def test_of_a_history_that_has_just_begun_a_longer_time_is_not_all_that_is_advised(tmp_path: Path) -> None:
    HistoryFile(tmp_path / "history.sqlite").close()
    with pytest.raises(InputError, match="nothing by the minute of the last 35d") as said:
        read_pasts((tmp_path / "history.sqlite",), "35d")
    assert "a row each minute" in str(said.value.hint)


def test_a_history_that_is_no_ordinary_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null"), Path("/dev/zero")):
        with pytest.raises(InputError, match="no ordinary file"):
            pasts_in([path], 0.0)


def test_no_more_is_advised_than_any_vm_can_have() -> None:
    most = Limits(GIB, GIB, 1 << 44)
    found = suggest(past([1 << 44] * 288 * 8, censored_seconds=3600.0), most)
    assert found.limits.maximum_bytes == 1 << 44
    assert not found.limits.problems()
