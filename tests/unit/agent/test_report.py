"""When the agent reports: silent at rest, at the next tick when something moves, at 10 Hz in need."""

import pytest

from agent.codec import decode_from_guest, encode
from agent.probe import Facts
from agent.report import MIB, Blocks, Reporter, step_bytes
from agent.wire import Report, Welcome

BLOCKS = Blocks(online_bytes=512 * MIB)
TOTAL = 404 * MIB


def facts(available_bytes: int, **changes: object) -> Facts:
    values: dict[str, object] = dict.fromkeys(Facts._fields, 0)
    values |= {"total_bytes": TOTAL, "available_bytes": available_bytes, "floor_bytes": 6 * MIB, "psi": None}
    return Facts(**{**values, **changes})  # type: ignore[arg-type]


class Guest:
    """Lets time pass, and keeps what was reported when."""

    def __init__(self) -> None:
        self.now = 100.0
        self.available = 300 * MIB
        self.blocks = BLOCKS
        self.total = TOTAL
        self.reporter = Reporter("0b1c2d3e-4f50-4162-9384-a5b6c7d8e9f0", self.now)
        self.sent: list[tuple[float, Report]] = []
        self.samples = 0

    def run(self, seconds: float, rate_bytes: float = 0.0) -> list[tuple[float, Report]]:
        """The reports of the next seconds, while available memory changes at a rate a second."""
        start, first = self.now, self.available
        sent = []
        while (due := max(self.reporter.sample_due(), self.now)) < start + seconds:
            self.now = due
            self.available = int(first + rate_bytes * (self.now - start))
            self.samples += 1
            sample = facts(self.available, total_bytes=self.total)
            if report := self.reporter.observe(sample, self.blocks, self.now):
                sent.append((self.now, report))
        self.now = start + seconds
        self.available = int(first + rate_bytes * seconds)
        self.sent += sent
        return sent


@pytest.fixture
def guest():
    guest = Guest()
    guest.run(11.2)  # past the first reports, and not beside a heartbeat
    return guest


def test_the_first_report_is_sent_at_once():
    guest = Guest()
    assert [report.reason for _, report in guest.run(0.1)] == ["hello"]


@pytest.mark.figures
def test_a_guest_at_rest_sends_a_heartbeat_every_five_seconds_and_wakes_twice_a_second(guest):
    guest.samples = 0
    sent = guest.run(60)
    assert {report.reason for _, report in sent} == {"heartbeat"}
    assert 11 <= len(sent) <= 13
    assert guest.samples <= 121
    traffic = sum(len(encode(report)) for _, report in sent) / 60
    print(f"at rest: {traffic:.0f} B/s, {guest.samples / 60:.1f} wakeups/s")
    assert traffic <= 100


def test_sequence_numbers_count_reports(guest):
    guest.run(30)
    assert [report.sequence for _, report in guest.sent] == list(range(len(guest.sent)))


@pytest.mark.parametrize("phase", [0.0, 0.1, 0.25, 0.4, 0.49])
@pytest.mark.parametrize("rate", [-20 * MIB, -200 * MIB])
def test_an_allocation_is_reported_within_one_calm_tick(guest, phase, rate):
    guest.run(phase)
    start = guest.now
    when = next(when for when, report in guest.run(1.1, rate) if report.reason == "pressure")
    assert when - start <= 0.5 + step_bytes(TOTAL) / -rate + 1e-6


def test_a_slow_leak_is_reported_as_it_adds_up(guest):
    sent = guest.run(10, -1 * MIB)
    assert [report.reason for _, report in sent].count("moved") >= 3


def test_freed_memory_is_reported_without_an_alert(guest):
    sent = guest.run(0.6, 50 * MIB)
    assert [report.reason for _, report in sent] == ["moved"]
    assert not guest.reporter.alert(guest.now)


def test_falling_memory_is_reported_ten_times_a_second(guest):
    guest.run(0.5, -50 * MIB)
    sent = guest.run(1.0, -50 * MIB)
    assert 9 <= len(sent) <= 11


def test_an_alert_ends_when_two_seconds_passed_without_a_cause(guest):
    guest.run(1.0, -50 * MIB)
    assert guest.reporter.alert(guest.now)
    guest.run(3.0)
    assert not guest.reporter.alert(guest.now)
    guest.samples = 0
    guest.run(10)
    assert guest.samples <= 21


def test_low_headroom_that_moves_is_reported_ten_times_a_second(guest):
    guest.available = 11 * MIB
    guest.run(1)
    assert 9 <= len(guest.run(1.0, -1 * MIB)) <= 11


def test_a_guest_squeezed_for_hours_is_calm_when_nothing_moves(guest):
    guest.available = 10 * MIB
    guest.run(5)
    sent = guest.run(60)
    assert len(sent) <= 13


def test_a_guest_at_the_smallest_buffer_is_not_at_low_headroom():
    guest = Guest()
    guest.total, guest.available = 130 * MIB, (6 + 7) * MIB  # 5 % of a need of 136 MiB
    guest.run(5)
    sent = guest.run(15, -0.15 * MIB)
    assert {report.reason for _, report in sent} == {"heartbeat"}


def test_a_psi_event_is_reported_at_once(guest):
    guest.run(0.2)
    guest.reporter.psi_event(guest.now)
    when, report = guest.run(0.05)[0]
    assert when == pytest.approx(guest.now - 0.05)
    assert report.reason == "pressure"


def test_a_container_at_its_limit_does_not_flood_the_host(guest):
    sent = []
    for _ in range(20):  # two events a second, for ten seconds, and nothing moves
        guest.reporter.psi_event(guest.now)
        sent += guest.run(0.5)
    assert len(sent) <= 45


def test_events_faster_than_the_alert_rate_do_not_make_more_reports(guest):
    sent = []
    for _ in range(100):
        guest.reporter.psi_event(guest.now)
        sent += guest.run(0.01)
    assert len(sent) <= 11


def test_new_memory_is_reported_as_hotplug_at_once(guest):
    guest.run(0.2)
    guest.blocks = Blocks(online_bytes=640 * MIB, movable_bytes=128 * MIB)
    guest.reporter.force("hotplug", guest.now)
    assert [report.reason for _, report in guest.run(0.01)] == ["hotplug"]


def test_a_balloon_that_moves_is_reported(guest):
    guest.total -= 40 * MIB
    guest.available -= 40 * MIB
    assert guest.run(0.6)


def test_the_host_sets_the_cadence(guest):
    guest.reporter.welcome(Welcome("1", calm_seconds=2.0, heartbeat_seconds=20.0))
    guest.samples = 0
    guest.run(20)
    assert guest.samples <= 12


def test_every_report_can_be_sent_and_is_believed(guest):
    guest.run(5, -30 * MIB)
    for _, report in guest.sent:
        assert decode_from_guest(encode(report)).sequence == report.sequence
