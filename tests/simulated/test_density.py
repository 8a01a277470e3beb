"""Density is counted in three ways, and each counts what it says; a month is taken from where it lies."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from bench import density
from bench.bulk_laws import STEPS, Hosts, step_static
from bench.traces import Trace, load


def trace(*slots: list[float], cap: float = 4096.0) -> Trace:
    demand = np.array(slots)
    return Trace("made", "made", demand, np.full(demand.shape[1], cap), 0)


def whether_it_fits(found: Trace, host_mib: float, count: str, law: str = "clairvoyant") -> bool:
    n = found.demand.shape[1]
    return bool(density.fits(found, STEPS[law], [(np.arange(n), n, host_mib)], count)[0])


def test_a_little_missing_in_many_slots_counts_by_slots_and_not_by_mib() -> None:
    often = trace(*[[1500.0, 1500.5]] * 100)
    assert not whether_it_fits(often, 3000, "slots")
    assert whether_it_fits(often, 3000, "mib"), "0.5 of 3000.5 MiB"


def test_much_missing_in_one_slot_counts_by_mib_and_not_by_slots() -> None:
    once = trace(*[[700.0, 700.0]] * 999, [4000.0, 700.0])
    assert whether_it_fits(once, 1500, "slots"), "1 of 2,000 VM-slots"
    assert not whether_it_fits(once, 1500, "mib")


def test_what_a_guest_does_not_touch_is_its_hosts_if_it_is_counted_so() -> None:
    roomy = trace(*[[100.0, 900.0]] * 10)
    assert not whether_it_fits(roomy, 1500, "slots", "static")
    assert whether_it_fits(roomy, 1500, "touched", "static")
    assert not whether_it_fits(roomy, 900, "touched", "static")


def test_what_a_host_gave_out_beyond_its_memory_is_missing_in_proportion() -> None:
    hosts = Hosts(np.array([1500.0]), np.zeros((1, 2)), np.array([[1000.0, 2000.0]]), np.zeros((1, 2)))
    demand = np.array([[800.0, 800.0]])
    step_static(hosts, demand)
    # 3000 were given, so each has half of its: 500 and 1000.
    assert density.lacking(hosts, demand) == pytest.approx(np.array([[300.0, 0.0]]))


def month(folder: Path, name: str) -> None:
    with gzip.open(folder / f"{name}_mem_use_mib.csv.gz", "wt") as stream:
        stream.write("slot,a,b\n0,100,200\n1,300,5000\n")
    (folder / f"{name}_vms.csv").write_text("vm,cap_mib\na,1024\nb,4096\n")


def test_any_month_can_be_loaded_and_is_named_by_its_file(tmp_path: Path) -> None:
    month(tmp_path, "bitbrains_rnd_2013-08")
    found = load(tmp_path)
    assert (found.name, found.demand.shape, found.clipped) == ("bitbrains-rnd-2013-08", (2, 2), 1)
    month(tmp_path, "bitbrains_rnd_2013-09")
    assert load(tmp_path, "2013-09").name == "bitbrains-rnd-2013-09"
    with pytest.raises(ValueError, match=r"2013-08_mem.*2013-09_mem"):
        load(tmp_path)
    with pytest.raises(ValueError, match="none"):
        load(tmp_path / "nowhere")


def test_laws_that_never_promise_too_much_fit_as_many_by_touch_as_by_slots() -> None:
    slots = {"dynmem": {"64": [3, 5]}, "ghaf": {"64": [1, 1]}, "mom": {"64": [1, 1]}}
    kept = {"slots": slots, "touched": {"ghaf": {"64": [2, 4]}}}
    # What has not been measured is not known: mom's is another.
    assert density.densities(kept, "touched", 64) == {"dynmem": 4.0, "ghaf": 3.0}


@pytest.mark.parametrize("near", [1, 3, 6], ids=["below", "there", "above"])
def test_wherever_the_search_begins_it_finds_the_same(near: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "HOSTS_GIB", (2, 4))
    found, chosen = trace(*[[600.0, 700.0, 650.0, 800.0, 620.0, 900.0]] * 10), np.array([range(6)])
    before = {"2": [near], "4": [near]}
    assert density.search(found, STEPS["clairvoyant"], chosen, near=before) == {2: [3], 4: [5]}
    assert density.search(found, STEPS["clairvoyant"], chosen) == {2: [3], 4: [5]}
