"""`dynmem fleet` says what it did, why not, and the same to programs."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from host_controller.cli import fleet as module
from host_controller.errors import InputError
from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import HostFigures
from host_controller.fleet.errors import RaceLost
from host_controller.fleet.pacemaker.cib import Cib
from host_controller.fleet.pacemaker.pins import drained
from host_controller.units import GIB, MIB
from tests.unit.fleet.cells import host, vm
from tests.unit.fleet.cluster import FakeEngine, cib_text
from tests.unit.fleet.test_moving import Destinations


class FakeHosts(Destinations):
    figures_of: dict[str, HostFigures]

    def figures(self, hosts: Any) -> tuple[dict[str, HostFigures], dict[str, str]]:
        return self.figures_of, {one: "refused" for one in hosts if one not in self.figures_of}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    one = FakeEngine(cib_text({"web": 9216, "new": 5000}, {"n1": 66560, "n2": 65536, "n3": 0}), {"web": "n1"})
    hosts = FakeHosts()
    hosts.figures_of = {"n1": host(vm("web", 8 * GIB)), "n2": host(admits_bytes=100 * MIB)}
    monkeypatch.setattr(module, "Tools", lambda: one)
    monkeypatch.setattr(module, "_hosts", lambda _: hosts)
    monkeypatch.setattr("host_controller.fleet.progress.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("host_controller.fleet.patience.LOOK_SECONDS", 0.0)
    return one


def invoke(*words: str) -> Result:
    result = CliRunner().invoke(module.fleet, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_status_shows_hosts_vms_and_who_is_silent(engine: FakeEngine) -> None:
    text = invoke("status").output
    assert "silent: refused" in text
    assert "stopped" in text
    found = json.loads(invoke("status", "--json").output)
    hosts = {one["name"]: one for one in found["hosts"]}
    assert (hosts["n1"]["booked_mib"], hosts["n1"]["need_bytes"]) == (9216, 8 * GIB)
    assert hosts["n3"]["capacity_bytes"] is None


def test_status_says_which_vm_two_hosts_tell_of(engine: FakeEngine) -> None:
    module._hosts(None).figures_of["n2"] = host(vm("web", GIB))  # type: ignore[attr-defined]
    assert "note: web: n2 runs it and the engine has it on n1" in invoke("status").output


def test_why_names_what_is_missing_and_fails_only_where_no_host_takes_it(engine: FakeEngine) -> None:
    result = invoke("why", "new")
    assert result.exit_code == 0
    assert "n1: takes it" in result.output
    assert "n2: 4.79 GiB are missing, 100 MiB are free for starts" in result.output
    assert "n3: its controller does not answer" in result.output
    engine.text = engine.text.replace(b'value="5000"', b'value="90000"')
    result = invoke("why", "new")
    assert result.exit_code == 1
    assert "larger than the host's whole capacity" in result.output
    assert json.loads(invoke("why", "new", "--json").output)["size_mib"] == 90000


def test_why_goes_by_what_a_vm_needs_where_its_attribute_is_no_size(engine: FakeEngine) -> None:
    engine.text = engine.text.replace(b'value="9216"', b'value="much"').replace(b'value="5000"', b'value="?"')
    told = json.loads(invoke("why", "web", "--json").output)
    assert told["size_mib"] == 8192
    assert [one["shortfall_mib"] for one in told["hosts"] if one["host"] == "n2"] == [8192 - 100]
    with pytest.raises(InputError, match="nobody tells how large it is"):
        invoke("why", "new")


def test_a_drain_that_is_refused_says_what_each_host_lacks(engine: FakeEngine) -> None:
    def would(cib: Cib) -> tuple[Action, ...]:
        return (Action("stop", "web", "n1", text="stop"),) if drained(cib, "n1") else ()

    engine.would = would
    result = invoke("drain", "n1")
    assert result.exit_code == 2
    assert "web (8 GiB): it would be stopped: no other host has room for it" in result.output
    assert "n2: 7.9 GiB missing" in result.output
    assert engine.commits == []


@pytest.mark.parametrize("begun", [True, False])
def test_a_drain_that_is_interrupted_says_what_goes_on_if_it_has_begun(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    engine.would = lambda cib: (
        (Action("migrate", "web", "n1", "n2", "migrate"),)
        if drained(cib, "n1") and engine.places["web"] == "n1"
        else ()
    )
    hosts = module._hosts(None)
    hosts.figures_of["n2"] = host()  # type: ignore[attr-defined]
    monkeypatch.setattr(*((module.fleet_text, "progress_line") if begun else (hosts, "figures")), interrupt)
    output = invoke("drain", "n1").output
    assert ("n1 stays in standby" in output) is begun
    assert ("dynmem fleet undrain n1 ends it" in output) is begun
    assert drained(engine.query(), "n1") is begun


def test_a_drain_tells_of_its_progress_and_a_dry_run_does_nothing(engine: FakeEngine) -> None:
    def would(cib: Cib) -> tuple[Action, ...]:
        moves = drained(cib, "n1") and engine.places["web"] == "n1"
        return (Action("migrate", "web", "n1", "n2", "migrate"),) if moves else ()

    engine.would = would
    module._hosts(None).figures_of["n2"] = host()  # type: ignore[attr-defined]
    assert "n1 can be emptied" in invoke("drain", "n1", "--dry-run").output
    assert engine.commits == []
    output = invoke("drain", "n1").output
    assert "1 of 1 moved; still there: none" in output
    assert "web → n2" in output
    assert "n1 takes VMs again" in invoke("undrain", "n1").output
    assert "n1 is not drained" in invoke("undrain", "n1").output


def test_init_checks_sets_and_leaves_fencing_to_people(engine: FakeEngine) -> None:
    result = invoke("init", "--check")
    assert result.exit_code == 1
    assert "protects from VMs being stopped when hosts are cut off" in result.output
    assert engine.commits == []
    result = invoke("init")
    assert result.exit_code == 1
    assert "by hand a fencing device" in result.output
    assert len(engine.commits) == 1
    left = json.loads(invoke("init", "--check", "--json").output)["needs"]
    assert [one["what"] for one in left] == ["a fencing device"]


@pytest.mark.parametrize("words", [("init",), ("drain", "n1"), ("undrain", "n1")])
def test_what_somebody_waits_for_is_done_anew_when_another_change_comes_first(
    engine: FakeEngine, words: tuple[str, ...]
) -> None:
    def would(cib: Cib) -> tuple[Action, ...]:
        moves = drained(cib, "n1") and engine.places["web"] == "n1"
        return (Action("migrate", "web", "n1", "n2", "migrate"),) if moves else ()

    engine.would = would
    module._hosts(None).figures_of["n2"] = host()  # type: ignore[attr-defined]
    if words[0] == "undrain":
        invoke("drain", "n1")
    before = len(engine.commits)
    engine.lose(races=5)
    assert "changed meanwhile" not in invoke(*words).output
    assert len(engine.commits) > before


def test_init_judges_no_plan_of_an_engine_that_is_at_work(engine: FakeEngine) -> None:
    looks = iter([False, False])

    def idle() -> bool:
        engine.rests = next(looks, True)
        return engine.rests

    def would(cib: Cib) -> tuple[Action, ...]:
        half_done = cib.options.get("placement-strategy") == "balanced" and not engine.rests
        return (Action("other", "web", "n1", text="restart"),) if half_done else ()

    engine.idle, engine.would, engine.rests = idle, would, False  # type: ignore[method-assign]
    invoke("init")
    assert len(engine.commits) == 1


def test_a_cluster_that_changes_all_the_time_is_left_as_it_is_after_half_a_minute(engine: FakeEngine) -> None:
    engine.lose(races=1000)
    with pytest.raises(RaceLost, match="changed meanwhile"):
        invoke("init")
    assert engine.commits == []


def test_certificates_are_made_for_each_host(tmp_path: Path) -> None:
    output = invoke("certificates", "n1", "n2", "--directory", str(tmp_path / "ca")).output
    assert "a new authority" in output
    for name in ("n1/host.pem", "n1/host.key", "n2/ca.pem", "ca.key"):
        assert (tmp_path / "ca" / name).exists()
    assert "a new authority" not in invoke("certificates", "n3", "--directory", str(tmp_path / "ca")).output
