"""What a burn-in found is kept for its versions, and the doctor judges by it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from host_controller.cli import verify
from host_controller.doctor.facts import HostSurvey
from host_controller.doctor.host import burn_in
from host_controller.domain_xml.host_abilities import PROVEN_BY
from host_controller.errors import DynmemError
from host_controller.records.burn_in import BurnIn, Verdict, Versions, load, newest_of
from host_controller.verify.burn_in import checks

HERE = Versions("6.1.0-28-amd64", 7_002_022, 9_000_000)
SOUND = BurnIn(HERE, "KVM", 1000.0, 60.0, (Verdict("unplug", "passed", "", 0.2, "s"),))


def survey(*found: BurnIn, kernel: str = HERE.kernel) -> HostSurvey:
    return HostSurvey(
        "qemu:///system",
        libvirt_version=HERE.libvirt,
        qemu_version=HERE.qemu,
        kernel_release=kernel,
        burn_ins=found,
    )


def failing(*checks: str) -> BurnIn:
    return replace(SOUND, results=tuple(Verdict(name, "failed", "it did not") for name in checks))


def test_what_was_found_is_read_again_and_replaces_what_was_found_with_the_same_versions(
    tmp_path: Path,
) -> None:
    SOUND.save(tmp_path)
    later = replace(SOUND, at=2000.0)
    later.save(tmp_path)
    other = replace(SOUND, at=1500.0, versions=replace(HERE, kernel="6.12.0/../x"))
    assert other.save(tmp_path).parent == tmp_path
    assert load(tmp_path) == (other, later)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"versions": 3}', "[" * 100_000, '{"versions": {"kernel": 1}}']
)
def test_a_damaged_file_is_passed_over(text: str, tmp_path: Path) -> None:
    SOUND.save(tmp_path)
    (tmp_path / "a.json").write_text(text)
    assert load(tmp_path) == (SOUND,)
    assert load(tmp_path / "nowhere") == ()


def test_a_number_that_no_file_of_ours_has_is_damage_too(tmp_path: Path) -> None:
    text = SOUND.save(tmp_path).read_text()
    (tmp_path / "a.json").write_text(text.replace('"at": ', '"at": 1' + "0" * 400 + ', "was": '))
    assert load(tmp_path) == (SOUND,)


def test_a_verdict_that_is_none_of_the_three_is_no_verdict(tmp_path: Path) -> None:
    text = SOUND.save(tmp_path).read_text()
    (tmp_path / "a.json").write_text(text.replace('"passed"', '"passed, honestly"'))
    assert load(tmp_path) == (SOUND,)


def test_the_newest_verdict_of_these_very_versions_counts() -> None:
    later = replace(SOUND, at=2000.0)
    other = replace(SOUND, at=3000.0, versions=replace(HERE, qemu=10_000_000))
    assert newest_of((SOUND, later, other), HERE) is later
    assert newest_of((other,), HERE) is None


def test_each_check_that_growth_goes_by_is_one_of_the_courses() -> None:
    course = Path(checks.__file__).read_text()
    assert all(f'"{name}"' in course for names in PROVEN_BY.values() for name in names)


def test_a_host_that_was_never_tried_is_a_note() -> None:
    finding = burn_in(survey())
    assert (finding.level, finding.found) == ("note", "this host was never burnt in")
    assert finding.remedy.startswith("dynmem verify")


def test_a_host_that_passed_is_in_order_until_one_of_the_three_changes() -> None:
    assert burn_in(survey(SOUND)).level == "ok"
    changed = burn_in(survey(SOUND, kernel="6.1.0-29-amd64"))
    assert changed.level == "note"
    assert changed.found == "changed since the last one: kernel 6.1.0-28-amd64 → 6.1.0-29-amd64"
    newer = burn_in(replace(survey(SOUND), qemu_version=10_000_000, libvirt_version=11_003_000))
    assert newer.found.endswith("QEMU 7.2.22 → 10.0.0, libvirt 9.0.0 → 11.3.0")


@pytest.mark.parametrize(
    ("checks", "remedy"),
    [
        (("unplug",), "--growth virtio-mem"),
        (("virtio-mem",), "--growth hotadd"),
        (("online", "virtio-mem"), "--growth balloon"),
        (("balloon frees",), "no memory can be moved"),
        (("forged actual",), "--json"),
    ],
)
def test_what_failed_is_a_problem_and_the_remedy_is_what_works(checks: tuple[str, ...], remedy: str) -> None:
    finding = burn_in(survey(failing(*checks)))
    assert finding.level == "problem"
    assert f"{checks[0]}: it did not" in finding.found
    assert remedy in finding.remedy


def test_only_what_has_passed_is_trusted() -> None:
    assert "unplug" in SOUND.passed
    assert "virtio-mem" not in SOUND.passed
    assert "unplug" not in failing("unplug").passed


@pytest.mark.parametrize(
    "unwritten", [["--plot", "folder.png"], ["--keep", "file/below"]], ids=["picture", "record"]
)
def test_what_cannot_be_written_of_a_burn_in_costs_nothing_else(
    unwritten: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(verify, "_run", lambda *_, **__: (SOUND, []))
    told = CliRunner().invoke(verify.verify, ["--json", "--keep", "kept", *unwritten])
    assert isinstance(told.exception, DynmemError)
    assert json.loads(told.output)["results"][0]["check"] == "unplug"
    assert load(tmp_path / "kept") == (() if "--keep" in unwritten else (SOUND,))
