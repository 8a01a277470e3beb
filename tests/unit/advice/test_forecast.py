"""When a host is full, what still fits, and what was saved."""

import json
import math
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from host_controller import config
from host_controller.advice.forecast import (
    HOURS,
    Forecast,
    forecast,
    hourly_needs,
    room_for,
)
from host_controller.advice.past import DAY, SLOT
from host_controller.advice.savings import savings
from host_controller.advice.sources import Recorded
from host_controller.cli import group
from host_controller.config import ConfigError, parse
from host_controller.core.model import VmConfig
from host_controller.errors import InputError
from host_controller.records.history_file import HistoryFile
from host_controller.records.tier_file import KEEP
from host_controller.records.tiers import Span
from host_controller.units import GIB, MIB
from tests.unit.advice.test_advice import LIMITS, NOW_LIMITS, minutes, past
from tests.unit.records.test_tiers import NOW


def weeks(count: int, growth: float = 1.0) -> list[float]:
    """10 GiB by night and 20 GiB by day, each week so many times the one before."""
    return [
        (20 if 8 <= hour % 24 < 18 else 10) * GIB * growth ** (hour // HOURS) for hour in range(count * HOURS)
    ]


def test_hours_of_the_week_come_again() -> None:
    found = forecast(0.0, weeks(3))
    assert found.trend_per_week == pytest.approx(0)
    assert found.at(3).middle == pytest.approx(10 * GIB)
    assert found.at(HOURS + 12).middle == pytest.approx(20 * GIB)
    assert found.begin == 3 * HOURS * 3600


def test_growth_from_week_to_week_goes_on_and_more_of_it_is_believed_the_longer_it_lasts() -> None:
    few, many = forecast(0.0, weeks(3, 1.1)), forecast(0.0, weeks(20, 1.02))
    assert few.trend_per_week == pytest.approx(0.1)
    assert many.trend_per_week == pytest.approx(0.02)
    assert few.trust == 0.25
    assert many.trust > 0.7
    assert many.at(12 + HOURS * 10).middle > many.at(12).middle * 1.1


def test_a_range_widens_and_the_earliest_comes_before_the_likely() -> None:
    bumpy = [one * (1.15 if (n // HOURS) % 2 else 0.95) for n, one in enumerate(weeks(6, 1.05))]
    found = forecast(0.0, bumpy)
    near, far = found.at(12), found.at(12 + 8 * HOURS)
    assert near.low <= near.middle <= near.high
    assert far.high / far.middle > near.high / near.middle
    earliest, likely, latest = found.full_at(40 * GIB)
    assert earliest is not None
    assert likely is not None
    assert earliest < likely
    assert latest is None or likely <= latest


def test_what_never_grows_is_never_full() -> None:
    assert forecast(0.0, weeks(4)).full_at(64 * GIB) == (None, None, None)


def test_less_than_a_week_is_no_forecast() -> None:
    with pytest.raises(InputError, match=r"4\.0 days are known"):
        forecast(0.0, weeks(1)[:96])


def test_a_single_week_has_a_range_all_the_same() -> None:
    found = forecast(0.0, weeks(1))
    assert found.at(0).high / found.at(0).middle == pytest.approx(math.exp(0.35))


def test_the_range_is_as_wide_as_four_in_five_of_the_hosts_own_errors_to_both_sides() -> None:
    """Half of the hours that could be forecast came as forecast, the others were three tenths above."""
    calm, bumpy = forecast(0.0, weeks(4)), forecast(0.0, weeks(2) + [one * 1.3 for one in weeks(1)])
    assert calm.spread == pytest.approx(0.0)
    assert bumpy.spread == pytest.approx(math.log(1.3), rel=0.01)
    one = bumpy.at(5)
    assert (
        one.high / one.middle == pytest.approx(one.middle / one.low) == pytest.approx(math.exp(bumpy.spread))
    )


def test_the_need_of_an_hour_is_the_largest_sum_and_a_minimum_at_the_least() -> None:
    demands: list[int | None] = [100 * MIB] * 12 + [2 * GIB] + [100 * MIB] * 11
    begin, hours = hourly_needs([past(demands, "a"), past([GIB] * 24, "b")])
    assert begin == 0
    assert hours[0] == 512 * MIB + GIB + 16 * MIB
    assert hours[1] == pytest.approx(3 * GIB, rel=0.02)


def test_room_is_told_by_demand_and_safely() -> None:
    flat = Forecast(0.0, 4, 0.0, (10.0 * GIB,) * HOURS, 0.0)
    half = past([4 * GIB] * 288, "a")  # half of its maximum of 8 GiB
    room = room_for(8 * GIB, flat, [half], 32 * GIB)
    assert (room.by_demand, room.safely) == (5, 3)
    went = replace(half, uuid="moved away", begin=half.begin - 2 * DAY)
    assert room_for(8 * GIB, flat, [half, went], 32 * GIB).safely == 3, "it is promised nothing any more"
    off = replace(half, uuid="switched off", begin=half.begin - DAY / 2)
    assert room_for(8 * GIB, flat, [half, off], 32 * GIB).safely == 2


def test_savings_are_static_sizes_less_what_vms_cost() -> None:
    spans = [one._replace(charge_bytes=2 * GIB) for one in minutes([GIB] * 120)]
    found = savings([Recorded("u", "web", LIMITS, spans), Recorded("v", "odd", None, spans)])
    assert found is not None
    assert found.static_gib_hours == pytest.approx(16)
    assert found.saved_gib_hours == pytest.approx(12)
    assert found.peak_static_bytes - found.peak_dynamic_bytes == 6 * GIB
    assert found.left_out == ("odd",)
    assert found.as_json(0.5)["saved_money"] == 6
    assert savings([]) is None


def test_an_hour_that_a_clock_has_come_by_twice_is_no_higher_peak() -> None:
    def hour(at: float, charge: int, seconds: float) -> list[Span]:
        return [
            one._replace(at=at + 60.0 * n, charge_bytes=charge, seconds=seconds / 60)
            for n, one in enumerate(minutes([GIB] * 60))
        ]

    spans = hour(0.0, 2 * GIB, 7200.0) + hour(3600.0, 3 * GIB, 3600.0)
    found = savings([Recorded("u", "web", LIMITS, spans)])
    assert found is not None
    assert (found.hours, found.static_gib_hours, found.dynamic_gib_hours) == pytest.approx((3, 24, 7))
    assert (found.peak_at, found.peak_static_bytes) == (3600.0, 8 * GIB)
    assert found.peak_dynamic_bytes == pytest.approx(3 * GIB)


def test_a_price_is_the_configurations_unless_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = tmp_path / "web.jsonl"
    vm = {"dynmem-history": 1, "uuid": "u", "name": "web", "limits": msgspec.to_builtins(LIMITS)}
    spans = [one._replace(charge_bytes=2 * GIB)._asdict() for one in minutes([GIB] * 120)]
    export.write_text("\n".join(json.dumps(one) for one in (vm, *({"span": span} for span in spans))))
    monkeypatch.setattr(config, "load", lambda: parse(b"[savings]\nprice = 0.5\n"))

    def money(*more: str) -> object:
        told = CliRunner().invoke(
            group, ["savings", "--since", "100000d", "--json", "--history", str(export), *more]
        )
        assert told.exit_code == 0, told.output
        return json.loads(told.output)["saved_money"]

    assert (money(), money("--price", "2"), money("--price", "0")) == (6.0, 24.0, None)
    with pytest.raises(ConfigError, match="0 or more"):
        parse(b"[savings]\nprice = -1\n")


def test_forecast_and_savings_read_a_history_and_refuse_what_makes_no_sense(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    file = HistoryFile(path)
    limits = VmConfig("uuid-web", "web", NOW_LIMITS)
    spans = [one._replace(at=NOW - 15 * DAY + SLOT * n) for n, one in enumerate(minutes([GIB] * 15 * 288))]
    file.write([("minute", ("uuid-web", "web", one, limits)) for one in spans])
    file.clean(NOW, 0, KEEP, GIB)
    file.close()
    common = ["--history", str(path)]
    here = [*common, "--socket", str(tmp_path / "none.sock")]
    run = CliRunner().invoke
    told = run(group, ["forecast", "--capacity", "64G", "--shape", "8G", *here])
    assert told.exit_code == 0, told.output
    assert "from 2 weeks" in told.output
    assert "64 GiB are not reached within 26 weeks" in told.output
    assert (
        "1 GiB are reached at the earliest 20" in run(group, ["forecast", "--capacity", "1G", *here]).output
    )
    assert "VMs of 8 GiB: 62 more by demand, 7 more safely" in told.output
    more = json.loads(run(group, ["forecast", "--capacity", "64G", "--add", "32G", "--json", *here]).output)
    assert more["capacity_bytes"] == 96 * GIB
    assert "is not known without a capacity" in run(group, ["forecast", *here]).output
    saved = run(group, ["savings", "--json", *common])
    assert json.loads(saved.output)["saved_bytes_at_peak"] > 0
    for wrong in (
        ["forecast", "--without", "nobody", *here],
        ["forecast", "--without", "web", *here],
        ["savings", "--price", "-1", *common],
        ["savings", "--price", "nan", *common],
        ["savings", "--since", "soon", *common],
    ):
        assert isinstance(run(group, wrong).exception, InputError), wrong
