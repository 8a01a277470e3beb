"""`dynmem doctor` on a host of a fleet: what Pacemaker lacks, what that protects from, and certificates."""

import time
from pathlib import Path

import pytest

from host_controller.cli import doctor
from host_controller.config import Config, load
from host_controller.doctor.cluster import FleetSurvey, Setting, checked
from host_controller.fleet.certificates import end_of
from host_controller.fleet.errors import EngineError, FleetError
from host_controller.fleet.expiry import DAY
from host_controller.fleet.pacemaker.cib import Cib, read_cib
from host_controller.fleet.pacemaker.tools import Tools
from tests.unit.fleet.authority import credentials
from tests.unit.fleet.cluster import cib_text

QUORUM = Setting("no-quorum-policy", "not set", "freeze", "VMs being stopped when hosts are cut off")
FENCING = Setting("a fencing device", "none", "one", "nothing being restarted after a crash", True)


def test_each_setting_that_is_missing_is_a_problem_with_what_it_protects_from() -> None:
    quorum, fencing, certificate = checked(FleetSurvey((QUORUM, FENCING)))
    assert quorum.level == fencing.level == "problem"
    assert "It protects from VMs being stopped when hosts are cut off" in quorum.found
    assert quorum.remedy == "dynmem fleet init sets it"
    assert "by hand" in fencing.remedy
    assert certificate.level == "ok"


@pytest.mark.parametrize(
    ("survey", "level", "found"),
    [
        (FleetSurvey(), "ok", "is set"),
        (FleetSurvey(clustered=False), "ok", "not installed"),
        (FleetSurvey(problem="cibadmin did not answer"), "note", "did not answer"),
    ],
)
def test_a_cluster_that_is_not_there_is_no_problem(survey: FleetSurvey, level: str, found: str) -> None:
    pacemaker, _ = checked(survey)
    assert (pacemaker.level, found in pacemaker.found) == (level, True)


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    credentials(tmp_path / "ca", "n1")  # for a day
    file = tmp_path / "dynmem.toml"
    file.write_text(f'[fleet]\nlisten = "127.0.0.1:8686"\ncredentials = "{tmp_path}/ca/n1"\n')
    monkeypatch.setattr("shutil.which", lambda _: "/usr/sbin/cibadmin")
    return load(file)


def test_the_host_is_looked_at_as_it_is(configured: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tools, "query", lambda _: read_cib(cib_text({}, {"n1": 1})))
    found = [one for _, one in doctor._fleet(configured)]
    assert "fencing" in found[0].found
    assert {one.check for one in found} == {"Pacemaker", "fleet certificate"}
    assert (found[-1].level, "expires within a day" in found[-1].found) == ("problem", True)
    assert doctor._fleet(Config()) == []


def test_a_cluster_that_cannot_be_asked_keeps_nobody_from_looking(
    configured: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Tools) -> Cib:
        raise EngineError("cibadmin failed with 102")

    monkeypatch.setattr(Tools, "query", fails)
    Path(configured.fleet.credentials, "host.pem").write_text("no certificate")
    pacemaker, certificate = (one for _, one in doctor._fleet(configured))
    assert (pacemaker.level, pacemaker.found) == ("note", "cibadmin failed with 102")
    assert (certificate.level, "openssl" in certificate.found) == ("problem", True)


def test_when_a_certificate_expires_is_read_of_its_file(tmp_path: Path) -> None:
    own = credentials(tmp_path / "ca", "n1", 5)
    assert 4.9 <= (end_of(own.certificate) - time.time()) / DAY <= 5
    with pytest.raises(FleetError):
        end_of(tmp_path / "missing")
