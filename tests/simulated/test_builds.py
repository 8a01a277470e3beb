"""What is promised of builds that ramp up: nobody lacks anything, at a price that has a bound."""

import json

from bench.alone import GOALS, SEEDS, Sums, play
from bench.fast import RESULTS, SECONDS, TUNED_AT
from bench.runner import run
from bench.workloads import fleet


def test_ten_vms_that_build_and_serve_lack_nothing_at_the_footprint_and_churn_that_are_told() -> None:
    """On the host of `make bench-fast` that has a tenth more than they ever need at once."""
    host = json.loads((RESULTS / "fast.json").read_text())["hosts"][str(TUNED_AT)]
    found = run(fleet(SECONDS), host["capacity_bytes"])
    assert found.missing_mib_s <= 10
    assert found.footprint <= 1.25
    assert found.churn <= 1.0


def test_builds_alone_on_their_host_lack_nothing_and_hold_at_most_a_third_too_much() -> None:
    """While they build. The goal for the whole run is missed, and BENCHMARKS.md says so."""
    sums = Sums()
    for seed in SEEDS:
        play(1, seed, None, sums)
    _, most_in_builds = GOALS[1]
    assert most_in_builds is not None
    assert sums.unmet < 1
    assert sums.in_builds_assigned <= most_in_builds * sums.in_builds_needed
    assert sums.churn <= 1.0
