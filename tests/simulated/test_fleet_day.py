"""The simulation of a fleet counts what it says, and its laws do what is said of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench import fleet_day, fleet_places
from bench.fleet_cells import CAPACITY_MIB, MOVE_SECONDS, OneCell, Tally
from bench.fleet_day import WORLDS, cell_of, play
from bench.fleet_demand import DAY_SECONDS, Demand, Drawn, draw, even, filling, trace
from bench.fleet_laws import LAWS, Clairvoyant, Dynmem, Threshold, without_place
from host_controller.fleet.core.relief import SHORT_SECONDS, Move
from host_controller.units import GIB

GIB_IN_MIB = 1024.0
MINUTE = 60


def made(*curves: list[float], largest: float = 16 * GIB_IN_MIB) -> Demand:
    """Curves in GiB, minute by minute."""
    values = np.array(curves).T * GIB_IN_MIB
    return Demand("made", "made", MINUTE, values, np.full(len(curves), largest), len(values))


def cell(demand: Demand, *where: int, hosts: int = 2) -> OneCell:
    vms = np.arange(demand.curves.shape[1])
    return OneCell(demand, Drawn(vms, np.zeros_like(vms)), hosts, where=np.array(where))


def run(one: OneCell, law: str, seconds: float) -> Tally:
    decide = LAWS[law]()
    while one.now < seconds:
        decide(one, one.step())
    return one.tally


STEADY = made(*[[size] * 120 for size in (40.0, 10.0, 8.0, 7.0)])
"""One GiB more than a host has, if all are on it."""


def test_what_a_host_lacks_is_counted_for_as_long_as_it_lacks_it() -> None:
    tally = run(cell(STEADY, 0, 0, 0, 0), "none", 600)
    assert (tally.host_steps, tally.short) == (120, 60)
    assert tally.unmet_mib_seconds == 600 * GIB_IN_MIB
    assert tally.load == pytest.approx(65 / 128)


def test_relief_comes_after_five_minutes_and_the_time_that_a_move_takes() -> None:
    one = cell(STEADY, 0, 0, 0, 0)
    tally = run(one, "dynmem", 3600)
    assert one.where.tolist() == [0, 0, 0, 1], "the smallest that is enough"
    # Short since the first step; it sets out when that has lasted, and arrives a minute later.
    assert tally.short == (SHORT_SECONDS + MOVE_SECONDS) / 10
    assert tally.moves == 1


def test_a_rule_without_patience_moves_at_ninety_percent_what_relief_leaves_alone() -> None:
    steady = made(*[[size] * 120 for size in (40.0, 10.0, 8.0)])
    assert run(cell(steady, 0, 0, 0), "threshold", 3600).moves == 1
    assert run(cell(steady, 0, 0, 0), "dynmem", 3600).moves == 0


def test_a_clairvoyant_moves_before_a_host_is_short_and_not_for_what_is_soon_over() -> None:
    long = made([30.0] * 120, [30.0] * 10 + [40.0] * 110)
    assert run(cell(long, 0, 0), "clairvoyant", 3600).short == 0
    brief = made([30.0] * 120, [30.0] * 10 + [40.0] * 8 + [30.0] * 102)
    assert run(cell(brief, 0, 0), "clairvoyant", 3600).moves == 0
    longer = made([30.0] * 120, [30.0] * 10 + [40.0] * 15 + [30.0] * 95)
    assert run(cell(longer, 0, 0), "clairvoyant", 3600).moves == 1
    assert run(cell(longer, 0, 0), "frugal", 3600).moves == 0


def test_a_vm_on_its_way_stays_where_its_destination_has_filled_up_meanwhile() -> None:
    one = cell(made([20.0] * 9, [20.0, *[50.0] * 8]), 0, 1)
    one.begin([Move("0", "0", "1", 20 * GIB, "")])
    for _ in range(6):
        one.step()
    assert (one.where.tolist(), one.tally.refused, one.tally.moves) == ([0, 1], 1, 0)


def test_a_destination_keeps_what_it_has_promised_to_a_vm_on_its_way() -> None:
    one = cell(STEADY, 0, 0, 0, 1)
    one.begin([Move("1", "0", "1", 10 * GIB, "")])
    assert one.figures(one.loads, [1])["1"].floor_bytes == (7 + 10) * GIB
    assert one.figures(one.loads, [1])["1"].admits_bytes == (64 - 17) * GIB
    told = one.figures(one.loads, [0], [0])["0"]
    assert [vm.floor_bytes // GIB for vm in told.vms] == [40, 10, 8]
    assert told.floor_bytes == 58 * GIB


def test_static_sizes_leave_out_what_has_no_room_by_its_largest_size() -> None:
    one = cell(made(*[[1.0] * 9] * 9), *[0] * 9)
    assert without_place(one).tolist() == [8], "four of 16 GiB on each of two hosts"
    assert play("static", one, 60).unmet_mib_seconds == 60 * GIB_IN_MIB


def test_a_cell_is_filled_to_its_load_and_is_the_same_one_for_every_law() -> None:
    demand = trace(None)
    for load in (0.6, 0.95):
        mine, other = (cell_of(demand, load, DAY_SECONDS, 3, hosts=4) for _ in range(2))
        assert (mine.drawn.curve == other.drawn.curve).all()
        tally = play("none", cell_of(demand, load, DAY_SECONDS, 3, hosts=4), DAY_SECONDS)
        assert tally.load == pytest.approx(load, abs=0.01)


def test_no_two_vms_are_the_same_at_the_same_time_of_day() -> None:
    demand = trace(None)
    drawn = draw(demand, 2000, np.random.default_rng(0))
    assert len(set(zip(drawn.curve.tolist(), drawn.begins.tolist(), strict=True))) == 2000
    assert (drawn.begins % (DAY_SECONDS // demand.step_seconds) == 0).all()
    assert len(filling(demand, 0.5, CAPACITY_MIB, 3600, np.random.default_rng(0)).curve) > 20


@pytest.mark.parametrize("law", [Dynmem(), Threshold(), Clairvoyant(0.1)])
def test_nobody_is_moved_where_all_is_well(law: object) -> None:
    one = cell(made([30.0] * 20, [20.0] * 20), 0, 1)
    for _ in range(60):
        law(one, one.step())  # type: ignore[operator]
    assert one.tally.moves == 0
    assert not one.ways


def test_a_host_that_shares_fairly_cuts_its_largest_to_one_size() -> None:
    assert fleet_places.lacking(np.array([10.0, 30.0, 40.0]), 80.0).tolist() == [0, 0]
    assert fleet_places.lacking(np.array([10.0, 30.0, 40.0]), 75.0).tolist() == [1, 5]
    assert fleet_places.lacking(np.array([10.0, 30.0, 40.0]), 60.0).tolist() == [2, 20]
    assert fleet_places.lacking(np.array([10.0, 10.0, 10.0]), 15.0).tolist() == [3, 15]


def test_starts_go_where_most_is_free_by_what_is_published_and_nowhere_if_nothing_is() -> None:
    sizes, capacities = {"0": 10, "1": 30, "2": 5}, {"a": 50, "b": 60}
    assert fleet_places.balanced(["a", "b"], sizes, capacities, "2") == "a"
    assert fleet_places.balanced(["a", "a"], sizes, capacities, "2") == "b"
    assert fleet_places.balanced(["a", "b"], sizes, {"a": 12, "b": 31}, "2") is None


def test_what_dynmem_publishes_spreads_vms_by_what_they_need_and_not_by_their_number() -> None:
    demand = made([8.0] * 600, [1.0] * 600)
    drawn = Drawn(np.array([0, *[1] * 72]), np.zeros(73, dtype=np.int64))
    where = fleet_places.Starts(demand, drawn).run().tolist()
    assert where[0] == 0
    assert [where.count(host) for host in range(8)] == [3, *[10] * 7], "8 + 2, and 10 everywhere else"


def test_the_clairvoyant_starts_vms_that_peak_together_on_different_hosts() -> None:
    moments = np.arange(8)
    day, night = np.where(moments < 4, 40.0, 20.0), np.where(moments < 4, 20.0, 40.0)
    vms = np.array([day, day, night, night]).T * GIB_IN_MIB
    where = fleet_places.foreseen(np.hstack([vms] * 4))
    needs = np.hstack([vms] * 4)
    loads = [needs[:, where == host].sum(axis=1).max() for host in range(8)]
    assert max(loads) <= CAPACITY_MIB


def test_more_goes_unmet_of_vms_that_stay_than_of_those_that_are_relieved() -> None:
    demand = made(*[[size] * 3200 for size in (40.0, 10.0, 8.0, 7.0)])
    drawn = Drawn(np.arange(4), np.zeros(4, dtype=np.int64))
    where = np.zeros(4, dtype=np.int64)
    stays = fleet_places.staying(demand.curves, where)
    assert stays.tolist() == [1 / 4, 1 / 65]
    assert (fleet_places.relieved(demand, drawn, where) < stays / 5).all()
    assert (fleet_places.staying(demand.curves, where, 1) == 0).all()


def test_the_goals_world_begins_even_with_some_eighty_vms_and_parts_from_there() -> None:
    world = WORLDS["even"]
    one = cell_of(even(), 0.95, world.seconds, 0, world.hosts)
    assert 60 < len(one.need) < 100
    at_first = one.loads
    assert at_first.max() - at_first.min() < 3 * GIB_IN_MIB
    while one.now < world.seconds:
        loads = one.step()
    assert loads.max() - loads.min() > 5 * GIB_IN_MIB


def test_as_many_hosts_are_played_in_small_cells_as_in_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_day, "FILE", tmp_path / "day.json")
    asked = ["--demands", "even", "--loads", "0.8", "--laws", "none", "--cells", "1", "--seconds", "600"]
    fleet_day.main([*asked, "--jobs", "1"])
    one = json.loads((tmp_path / "day.json").read_text())["600"]["even walk"]["0.8"]["none"]
    assert (one["cells"], one["sums"]["host_steps"]) == (4, 32 * 60)
