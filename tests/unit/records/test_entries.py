"""Events in memory: in order, bounded, and of every VM its share."""

from host_controller.core.state import Notice
from host_controller.records.entries import Entries, Entry
from host_controller.records.journal import NOTICES_AT_ONCE, NOTICES_PER_HOUR, Journal

KEPT = 1000


def entry(number: int, vm: str | None) -> Entry:
    return Entry(number, 0.0, 0.0, "command", "SetTarget", vm, vm, "done", {})


def filled(*vms: str | None) -> Entries:
    entries = Entries(KEPT)
    for number, vm in enumerate(vms, 1):
        entries.add(entry(number, vm))
    return entries


def test_they_are_told_in_order_from_a_number_on() -> None:
    entries = filled("a", "b", "a", None, "a")
    assert [one.number for one in entries.after(0)] == [1, 2, 3, 4, 5]
    assert [one.number for one in entries.after(3)] == [4, 5]
    assert list(entries.after(5)) == []


def test_there_are_never_more_than_are_kept_and_the_newest_is_among_them() -> None:
    entries = filled(*(f"vm{number % 7}" for number in range(5 * KEPT)))
    assert len(entries) <= KEPT
    assert [one.number for one in entries.after(0)][-1] == 5 * KEPT
    assert len(entries) > KEPT * 9 // 10


def test_one_that_is_always_talked_of_pushes_nobody_elses_events_out() -> None:
    entries = filled("quiet", None, "calm", *["loud"] * 50 * KEPT)
    about = [one.vm for one in entries.after(0)]
    assert about[:3] == ["quiet", None, "calm"]


def test_of_a_vm_that_is_talked_of_without_end_little_is_noted_and_the_rest_is_counted() -> None:
    journal = Journal(lambda: 0.0, lambda: 0.0)
    noted = []
    for number in range(20 * 3600):
        told = [Notice(number / 20, "agent", "uuid-1", "web", "the agent of web is another one")]
        noted += journal.notices(told)
    assert NOTICES_AT_ONCE <= len(noted) <= NOTICES_AT_ONCE + NOTICES_PER_HOUR
    kept = list(journal.entries())
    assert len(kept) == len(noted)
    left_out = [one.detail.get("left_out_before", 0) for one in kept]
    assert sum(left_out) >= 20 * 3600 - len(noted) - 20 * 3600 / NOTICES_PER_HOUR  # type: ignore[arg-type]


def test_what_is_about_another_vm_is_noted_meanwhile() -> None:
    journal = Journal(lambda: 0.0, lambda: 0.0)
    loud = [Notice(0.0, "agent", "1", "loud", "again")] * 1000
    quiet = [
        Notice(0.0, "agent", "2", "quiet", "hello"),
        Notice(0.0, "emergency", None, None, "the host is short"),
    ]
    noted = journal.notices([*loud, *quiet])
    assert noted[-2:] == quiet


def test_a_vm_is_found_by_name_or_uuid_also_after_it_has_gone_and_the_last_of_a_name_counts() -> None:
    entries = Entries(KEPT)
    for number, (uuid, name) in enumerate([("u1", "web"), ("u2", "web"), ("u3", "db"), (None, "web")], 1):
        entries.add(Entry(number, 0.0, 0.0, "notice", "gone", uuid, name, "gone", {}))
    assert entries.find("web") == ("u2", "web") == entries.find("u2")
    assert entries.find("u1") == ("u1", "web")
    assert entries.find("nobody") is None


def test_a_uuid_is_found_before_a_vm_that_has_it_for_a_name() -> None:
    entries = Entries(KEPT)
    for number, (uuid, name) in enumerate([("u1", "web"), ("u2", "u1"), ("u3", "web")], 1):
        entries.add(Entry(number, 0.0, 0.0, "command", "SetTarget", uuid, name, "done", {}))
    assert entries.find("u1") == ("u1", "web")
    assert entries.find("web") == ("u3", "web")
    assert entries.find("u2") == ("u2", "u1")
    assert entries.find("nobody") is None
