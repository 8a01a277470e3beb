"""The tier between: a guest without our agent whose files are read through its QEMU guest agent."""

from dataclasses import replace

from host_controller.core import interface as hv
from host_controller.core.books.ledger import Ledger
from host_controller.core.intake import apply
from host_controller.core.interface import GuestReading
from host_controller.core.model import BalloonStats
from host_controller.core.state import State
from host_controller.core.vm.guest import READ, READING_SECONDS
from host_controller.core.vm.record import Vm
from host_controller.units import MIB
from tests.support import build
from tests.support.build import settings
from tests.support.words import REPORT

READING = GuestReading(
    total_bytes=400 * MIB,
    available_bytes=100 * MIB,
    free_bytes=5 * MIB,
    reclaimable_bytes=90 * MIB,
    swap_used_bytes=30 * MIB,
    swap_in_bytes=0,
    refault_bytes=0,
    stall_us=0,
)


def stats(updated: int, available_mib: int = 100) -> BalloonStats:
    return BalloonStats(400 * MIB, available_mib * MIB, updated)


class Guest:
    """An agentless guest of 512 MiB, with what it is heard to say."""

    def __init__(self) -> None:
        self.vm: Vm = build.vm(512, stats=stats(1))
        self.state = State(settings(), Ledger(settings()), {self.vm.config.uuid: self.vm})

    def sampled(self, at: float, available_mib: int = 100) -> None:
        apply(
            self.state, hv.BalloonSampled(self.vm.config.uuid, 512 * MIB, stats(int(at), available_mib)), at
        )

    def read(self, at: float, reading: GuestReading = READING) -> None:
        apply(self.state, hv.GuestRead(self.vm.config.uuid, reading), at)


def test_a_reading_says_what_statistics_cannot() -> None:
    guest = Guest()
    guest.sampled(10.0)
    guest.read(12.0)
    facts = guest.vm.guest.facts
    assert facts is not None
    assert (facts.from_agent, facts.boot_id, facts.counted) == (False, READ, True)
    assert (facts.swap_used_bytes, facts.stall_us, facts.free_bytes) == (30 * MIB, 0, 5 * MIB)
    assert (facts.usable_bytes, facts.available_bytes) == (512 * MIB, 100 * MIB)


def test_every_field_of_a_reading_is_a_fact_within_what_the_statistics_say() -> None:
    guest = Guest()
    said = replace(
        READING, free_bytes=200 * MIB, reclaimable_bytes=410 * MIB, swap_in_bytes=7, refault_bytes=9
    )
    guest.read(12.0, replace(said, stall_us=11))
    facts = guest.vm.guest.facts
    assert facts is not None
    assert facts.free_bytes == 100 * MIB, "not more than is available"
    assert facts.reclaimable_bytes == 400 * MIB, "not more than there is"
    assert (facts.swap_in_bytes, facts.refault_bytes, facts.stall_us) == (7, 9, 11)


def test_between_readings_statistics_tell_of_growth_and_count_nothing() -> None:
    guest = Guest()
    guest.read(10.0)
    guest.sampled(11.0, available_mib=40)
    facts = guest.vm.guest.facts
    assert facts is not None
    assert (facts.available_bytes, facts.counted, facts.swap_used_bytes) == (40 * MIB, False, 30 * MIB)
    assert guest.vm.guest.demand.slope > 0


def test_counters_are_compared_over_the_time_between_readings_whatever_statistics_came_between() -> None:
    def told(*samples: float) -> tuple[float, float]:
        guest = Guest()
        guest.read(10.0)
        for at in samples:
            guest.sampled(at)
        guest.read(20.0, replace(READING, stall_us=1_000_000, refault_bytes=20 * MIB))
        return guest.vm.guest.demand.stall.share, guest.vm.guest.demand.refault_rate

    assert told() == told(12.0, 14.0, 19.0)
    assert 0.09 < told()[0] <= 0.1, "a second of ten"


def test_while_our_agent_speaks_it_is_the_only_witness() -> None:
    guest = Guest()
    apply(guest.state, hv.GuestSpoke(guest.vm.config.uuid, REPORT), 10.0)
    guest.read(12.0)
    assert guest.vm.guest.facts is not None
    assert guest.vm.guest.facts.from_agent
    assert not guest.vm.guest.is_read(12.0)


def test_our_agent_takes_over_as_soon_as_it_speaks_and_the_guest_agent_when_it_is_silent() -> None:
    guest = Guest()
    guest.read(10.0)
    apply(guest.state, hv.GuestSpoke(guest.vm.config.uuid, REPORT), 11.0)
    facts = guest.vm.guest.facts
    assert facts is not None
    assert facts.from_agent
    guest.read(60.0)
    assert guest.vm.guest.facts is not None
    assert guest.vm.guest.facts.boot_id == READ


def test_when_nobody_reads_any_more_statistics_are_the_witness() -> None:
    guest = Guest()
    guest.read(10.0)
    guest.sampled(10.0 + READING_SECONDS)
    assert guest.vm.guest.facts is not None
    assert guest.vm.guest.facts.boot_id == READ
    guest.sampled(11.0 + READING_SECONDS)
    assert guest.vm.guest.facts.boot_id == ""
    assert guest.vm.guest.facts.swap_used_bytes == 0


def test_a_reading_that_cannot_be_true_is_counted_and_changes_nothing() -> None:
    guest = Guest()
    guest.read(10.0, replace(READING, total_bytes=513 * MIB))
    assert guest.vm.guest.facts is None
    assert guest.vm.guest.noise == {"total-above-ram": 1}
    assert not guest.vm.guest.is_read(10.0)


def test_it_is_told_once_that_a_guest_is_read() -> None:
    guest = Guest()
    for at in (10.0, 20.0, 30.0):
        guest.read(at)
    assert [one.text for one in guest.state.notices if one.kind == "agent"] == [
        "web is read through its QEMU guest agent"
    ]


def test_a_reset_forgets_what_the_last_kernel_said() -> None:
    guest = Guest()
    guest.read(10.0)
    apply(guest.state, hv.VmReset(guest.vm.config.uuid), 11.0)
    assert not guest.vm.guest.is_read(11.0)
