"""`dynmem verify`: a sound host passes, and each defect is caught by the check that is named after it."""

import pytest

from host_controller.records.burn_in import Verdict
from host_controller.verify.burn_in import course
from host_controller.verify.burn_in.checks import DIMM_CYCLES
from tests.support.fake_machine import SOUND, Defects, FakeMachine


def verdicts(defects: Defects = SOUND) -> dict[str, Verdict]:
    machine = FakeMachine(defects)
    found = list(course.run(machine))
    names = [one.check for one in found]
    assert sorted(names) == sorted(course.NAMES)
    return {one.check: one for one in found}


def failed(found: dict[str, Verdict]) -> set[str]:
    return {name for name, one in found.items() if one.outcome == "failed"}


def test_a_sound_host_passes_everything_with_a_figure() -> None:
    found = verdicts()
    assert {one.outcome for one in found.values()} == {"passed"}
    assert all(one.figure is not None and one.unit for one in found.values())


@pytest.mark.parametrize(
    ("defects", "check", "words"),
    [
        (Defects(boots=False), "boot", "no answer"),
        (Defects(has_agent=False), "agent", "no agent"),
        (Defects(onlines=False), "online", "cycle 1: the DIMM's memory online in the guest: not within"),
        (Defects(dimm_leaves_until=0), "unplug", "cycle 1: the DIMM out of the guest: not within"),
        (Defects(dimm_leaves_until=DIMM_CYCLES - 1), "unplug", f"cycle {DIMM_CYCLES}:"),
        (Defects(virtio_mem_works_until=0), "virtio-mem", "cycle 1: virtio-mem at 6 MiB (it is at 0 MiB)"),
        (Defects(virtio_mem_works_until=57), "virtio-mem", "cycle 58:"),
        (Defects(balloon_lies=True), "balloon frees", "the host has 0 MiB of them back"),
        (Defects(balloon_moves=False), "inflate", "(it is at 512 MiB): not within"),
        (Defects(kills_when_short=True), "allocation while shrinking", "a program died (1 kills)"),
        (Defects(hides_unbound_driver=True), "unbound driver", "`actual` of no driver"),
        (Defects(stays_dead_after_reset=True), "reset squeezed", "no agent afterwards"),
    ],
    ids=lambda one: one if isinstance(one, str) and " " not in one else None,
)
def test_a_defect_is_caught_by_the_check_that_is_named_after_it(
    defects: Defects, check: str, words: str
) -> None:
    found = verdicts(defects)
    assert failed(found) == {check}
    assert words in found[check].said


def test_what_worked_before_the_defect_has_passed() -> None:
    found = verdicts(Defects(dimm_leaves_until=3))
    assert [found[name].outcome for name in ("hot add", "online", "offline", "unplug")] == [
        *["passed"] * 3,
        "failed",
    ]


def test_what_needs_a_check_that_failed_is_skipped_and_says_so() -> None:
    found = verdicts(Defects(boots=False))
    assert {one.outcome for name, one in found.items() if name != "boot"} == {"skipped"}
    assert found["unplug"].said == "needs boot"
    # A host without hot add can still do everything with its balloon.
    assert verdicts(Defects(onlines=False))["forged actual"].outcome == "passed"


def test_the_course_takes_less_than_five_minutes_of_the_guests_time() -> None:
    machine = FakeMachine()
    list(course.run(machine))
    assert machine.now < 300
