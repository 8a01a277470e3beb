"""Who is paused, here and where it comes from: by its operator's word, and by the mark that a VM brings."""

import libvirt
import pytest

from host_controller.control.pausing import AWAY, MIGRATION, Pausing
from host_controller.core.interface import VmAppeared, VmGone, VmStateChanged
from host_controller.core.model import Limits, RunState, VmConfig
from host_controller.hypervisor import events, jobs
from host_controller.units import GIB

VM = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"


class Marks:
    """VMs with their marks, as an XML would have them."""

    def __init__(self, *held: str) -> None:
        self.held = set(held)
        self.booted = False

    def came_held(self, uuid: str) -> bool:
        return uuid in self.held and not self.booted

    def mark_held(self, uuid: str, on: bool) -> None:
        (self.held.add if on else self.held.discard)(uuid)


def appeared(state: RunState = RunState.RUNNING) -> VmAppeared:
    limits = Limits(GIB, GIB, GIB)
    return VmAppeared(VM, VmConfig(VM, "web", limits, boot_ram_bytes=GIB), state, (), GIB, False)


def test_who_is_paused_is_marked_and_who_is_resumed_is_not() -> None:
    marks = Marks()
    pausing = Pausing(marks)
    assert pausing.hear(appeared()) is None
    assert pausing.hold(VM, True)
    assert marks.held == {VM}
    assert pausing.hold(VM, False)
    assert not marks.held


def test_it_is_paused_on_the_host_that_it_is_moved_to_and_no_longer_on_the_one_that_it_left() -> None:
    marks = Marks(VM)
    here, there = Pausing(marks), Pausing(marks)
    here.hold(VM, True)
    assert there.hear(appeared(RunState.PAUSED)) == VM
    there.hear(VmStateChanged(VM, RunState.RUNNING))
    here.hear(VmGone(VM, AWAY))
    assert (here.paused, there.paused) == (set(), {VM})
    there.hold(VM, False)
    there.hear(VmGone(VM, AWAY))
    assert here.hear(appeared()) is None, "it was resumed over there"


@pytest.mark.parametrize("reason", ["failed", "destroyed"])
def test_of_one_whose_migration_fails_nothing_stays_where_it_was_to_go(reason: str) -> None:
    pausing = Pausing(Marks(VM))
    assert pausing.hear(appeared(RunState.PAUSED)) == VM
    pausing.hear(VmGone(VM, reason))
    assert not pausing.paused


def test_one_that_stops_here_stays_paused() -> None:
    pausing = Pausing(Marks())
    pausing.hold(VM, True)
    pausing.hear(VmGone(VM, "shut down"))
    assert pausing.hear(appeared()) == VM


def test_where_nothing_goes_along_it_is_kept_here() -> None:
    pausing = Pausing(None)
    pausing.hold(VM, True)
    pausing.hear(VmGone(VM, AWAY))
    assert pausing.hear(appeared()) == VM


@pytest.mark.parametrize("gone", [True, False])
def test_a_mark_that_could_not_be_taken_off_pauses_nobody_who_was_resumed_here(gone: bool) -> None:
    """As of one that was saved, or while libvirtd was away."""
    marks = Marks(VM)
    pausing = Pausing(marks)
    pausing.hold(VM, True)
    if gone:
        pausing.hear(VmGone(VM, "saved"))
    pausing.hold(VM, False)
    marks.held = {VM}
    assert pausing.hear(appeared()) is None
    assert not marks.held, "it is taken off then"


def test_a_pause_of_all_is_this_hosts_and_marks_nobody() -> None:
    marks = Marks()
    pausing = Pausing(marks)
    assert pausing.hold_all(True, [VM]) == [VM]
    assert pausing.hear(appeared()) == VM
    assert not marks.held
    pausing.hold(VM, True)
    assert pausing.hold_all(False, [VM]) == [], "it is paused by itself, too"


def test_one_that_comes_paused_stays_so_when_all_are_resumed() -> None:
    pausing = Pausing(Marks(VM))
    pausing.hear(appeared(RunState.PAUSED))
    pausing.hold_all(True, [VM])
    assert pausing.hold_all(False, [VM]) == []


def test_a_mark_in_what_it_boots_with_is_an_old_one() -> None:
    """A migration has written it into its definition."""
    marks = Marks(VM)
    marks.booted = True
    assert Pausing(marks).hear(appeared()) is None
    assert not marks.held


def test_what_libvirt_calls_a_migration_is_called_so_here() -> None:
    assert events._STOPPED_REASONS[libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED] == AWAY
    assert jobs._JOB_NAMES[libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT] == MIGRATION
