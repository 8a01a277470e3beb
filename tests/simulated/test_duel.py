"""The duel finds what is wrong, shows it as simply as it can, and shows the same again for the same seed."""

import itertools
import random
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bench.duel import __main__ as command
from bench.duel.__main__ import told
from bench.duel.hosts import Host, mutated, random_host, simpler
from bench.duel.judge import BOUND, PEERS, Verdict, compare, judged
from bench.duel.kept import Kept
from bench.duel.search import Worst, search
from host_controller.simulator.trial import OURS, Result, VmResult
from host_controller.simulator.trial_file import parse

SEEDS = range(25)


def planted(host: Host) -> Mapping[str, Verdict]:
    """A law that is ten times as bad wherever a VM's demand is a saw, and a little worse with each VM."""
    ratio = 1.0 + len(host.vms) / 100
    if any(vm["demand"]["kind"] == "saw" for vm in host.vms):
        ratio += 9.0
    return {"unmet": Verdict("unmet", ratio, "peer", ratio, 1.0)}


def after(count: int):  # type: ignore[no-untyped-def]
    return lambda played: played >= count


def test_a_fault_is_found_and_shown_on_the_simplest_host() -> None:
    worst = search(1, planted, after(60), after(200), ("unmet",))
    verdict, host = worst.by_kind["unmet"][0]
    assert verdict.ratio > 9
    assert [vm["demand"]["kind"] for vm in host.vms] == ["saw"]
    assert not {"weight", "swap", "buffer", "start"} & host.vms[0].keys()


@pytest.mark.parametrize(("kind", "missed"), [("unmet", True), ("bound", False), ("commands", False)])
def test_only_the_kinds_that_were_searched_are_held_to_their_goals(
    kind: str, missed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(host: Host, law: str) -> Mapping[str, Verdict]:
        return planted(host) | {"bound": Verdict("bound", 2.0, "bound", 2.0, 1.0)}

    monkeypatch.setattr(command, "judged", found)
    assert command.main(["--hosts", "40", "--kinds", kind]) == missed
    assert ("MISSED: unmet <= 1.5\n" in capsys.readouterr().out) == missed


def test_equal_seeds_find_the_same_and_others_something_else() -> None:
    first, again, other = (search(seed, planted, after(20), after(50)) for seed in (3, 3, 4))
    assert first == again
    assert first.by_kind != other.by_kind


def test_a_duel_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    asked: list[Host] = []

    def counted(host: Host) -> Mapping[str, Verdict]:
        asked.append(host)
        return planted(host)

    def duel(path: Path | None, seconds: float, mark: str = "law") -> Worst:
        """Each host takes a second."""
        judge = Kept(counted, path, mark, clock=itertools.count().__next__)
        return search(1, judge, lambda _: judge.spent_seconds >= seconds, after(5))

    at_once = duel(None, 30.0)
    hosts, path = list(asked), tmp_path / "duel.jsonl"
    asked.clear()
    for seconds in (10.0, 30.0, 30.0):
        again = duel(path, seconds)
    assert again == at_once
    assert len(asked) < len(hosts) + 10, "only what the shorter search made simpler was played beside"
    duel(path, 1.0, mark="another law")
    assert len(path.read_text().splitlines()) < 10


@pytest.mark.parametrize("seed", SEEDS)
def test_every_host_of_the_duel_can_be_played_by_dynmem_simulate(seed: int, tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(seed)
    host = random_host(rng)
    for _ in range(8):
        host = mutated(rng, host)
    for one in (host, *simpler(host)):
        tables = tomllib.loads(told(Verdict("unmet", 2.0, "peer", 2.0, 1.0), one))
        assert tables == one.tables()
        assert len(parse(tables, "told", tmp_path).vms) == len(one.vms)


def result(
    missing: float, footprint: float = 1.2, commands: float = 100.0, unavoidable: float = 0.0
) -> Result:
    vm = VmResult("a", unmet_mib_seconds=missing)
    return Result("", 60.0, 1, [vm], footprint, 1.0, commands, unavoidable_mib_seconds=unavoidable)


def test_a_peer_is_ahead_by_what_is_missing_beyond_what_nobody_could_give() -> None:
    runs = {law: result(50_000, unavoidable=1000) for law in (*PEERS, BOUND)}
    runs |= {OURS: result(12_000, unavoidable=1000), "ghaf": result(5000, unavoidable=1000)}
    verdict = compare(runs)["unmet"]
    assert (verdict.peer, verdict.ratio) == ("ghaf", pytest.approx(12_000 / 5000))


def test_who_leaves_guests_short_saves_nothing() -> None:
    runs = {law: result(50_000, footprint=1.0, commands=0) for law in (*PEERS, BOUND)}
    runs |= {OURS: result(0, 1.3, 300), "hyperv": result(0, 1.0, 140)}
    found = compare(runs)
    assert (found["footprint"].peer, found["footprint"].ratio) == ("hyperv", pytest.approx(1.3))
    assert (found["commands"].peer, found["commands"].ratio) == ("hyperv", pytest.approx(2.0))


def test_what_promises_more_than_the_host_has_is_not_ahead_for_it() -> None:
    runs = {law: result(50_000) for law in (*PEERS, BOUND)}
    runs |= {OURS: result(20_000)}
    runs["ghaf"].vms[0].unmet_mib_seconds = 0.0
    runs["ghaf"].overcommitted_mib_seconds = 40_000
    assert compare(runs)["unmet"].ratio < 1


def test_who_gives_out_more_than_the_host_has_is_not_among_those_that_keep_to_it() -> None:
    runs = {law: result(50_000) for law in (*PEERS, BOUND)}
    runs |= {OURS: result(20_000), "ghaf": result(1_000), "squeezed": result(10_000)}
    runs["ghaf"].promised_mib_seconds = 100_000
    found = compare(runs)
    assert (found["unmet"].peer, found["kept"].peer) == ("ghaf", "squeezed")
    for run in runs.values():
        run.promised_mib_seconds = 100_000
    assert "kept" not in compare(runs)


def test_a_peer_can_be_judged_in_our_place() -> None:
    runs = {law: result(50_000) for law in (*PEERS, BOUND)}
    runs |= {OURS: result(10_000), "squeezed": result(21_000)}
    verdict = compare(runs, "squeezed")["unmet"]
    assert (verdict.peer, verdict.ratio) == (OURS, pytest.approx(2.0))


def test_a_short_duel_with_fixed_seeds_shows_the_same_again() -> None:
    """The real thing for half a minute of each host: all laws, and one step of making it simpler."""

    def short(host: Host) -> Mapping[str, Verdict]:
        return judged(replace(host, seconds=30))

    worst = search(0, short, after(1), after(1), ("unmet",))
    verdict, host = worst.by_kind["unmet"][0]
    assert worst.played == 2
    assert short(host)["unmet"] == verdict
