"""New memory goes online where the host says, and ranges go offline as far as the kernel lets them."""

import os
import time
from pathlib import Path

import pytest

from agent.blocks import MemoryBlocks
from agent.hotplug import (
    KERNEL_GRACE_SECONDS,
    MOST_JOBS,
    Hotplugger,
)
from agent.offlining import LOOK_SECONDS, MOST_IDLE_LOOKS
from agent.report import Blocks
from agent.uevents import Uevent, memory_block_number, parse
from agent.wire import Ack, Offline, Online, OnlineZone
from tests.support.waiting import until
from tests.unit.agent.record import BLOCK_BYTES, add_block, add_memory

PLENTY = 1 << 40


class Guest:
    """A sysfs of files: `state` takes any word, and a directory in its place refuses."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.memory = add_memory(root)
        self.logged: list[str] = []
        self.now = 100.0
        self.start()

    def start(self) -> None:
        self.blocks = MemoryBlocks(str(self.root))
        self.moved_pages = 0
        self.plugger = Hotplugger(
            self.blocks,
            lambda _priority, event, text: self.logged.append(event + text),
            lambda: self.moved_pages,
        )

    def state(self, number: int) -> str:
        return (self.memory / f"memory{number}/state").read_text().strip()

    def plug(self, *numbers: int, state: str = "offline\n") -> None:
        for number in numbers:
            add_block(self.root, number, state)
            self.plugger.uevents({number: "add"}, self.now)

    def ask(self, message: OnlineZone | Offline | Online, spare_bytes: int = PLENTY) -> Ack:
        """The Ack, however long it takes."""
        if ack := self.plugger.handle(message, lambda: spare_bytes, self.now):
            return ack
        return self.acks(1)[0]

    def acks(self, count: int) -> list[Ack]:
        """So many Acks, however long they take."""
        acks: list[Ack] = []

        def ended() -> bool:
            ack, _ = self.plugger.step(self.now)
            if ack:
                acks.append(ack)
            return len(acks) == count

        until(ended, lambda: self.logged)
        return acks

    def settle(self) -> None:
        while (due := self.plugger.next_wake(self.now)) is not None:
            self.now = max(self.now, due)
            self.plugger.step(self.now)


@pytest.fixture
def guest(tmp_path):
    guest = Guest(tmp_path)
    yield guest
    guest.plugger.close()


def blocks_of(first: int, count: int) -> tuple[int, int]:
    return first * BLOCK_BYTES, count * BLOCK_BYTES


def test_totals_tell_online_offline_and_movable_memory(guest):
    add_block(guest.root, 32, "online\n", "Movable\n")
    add_block(guest.root, 33, "offline\n", "Normal Movable\n")
    guest.start()
    assert guest.blocks.totals() == Blocks(5 * BLOCK_BYTES, BLOCK_BYTES, BLOCK_BYTES)


def test_the_kernel_is_told_the_zone_of_the_next_dimm(guest):
    assert guest.plugger.mode == "kernel"
    assert guest.ask(OnlineZone(1, "movable")).ok
    assert guest.blocks.policy() == "online_movable"
    assert guest.ask(OnlineZone(2, "kernel")).ok
    assert guest.blocks.policy() == "online_kernel"


def test_nothing_is_set_before_the_host_says_so(guest):
    guest.plugger.keep_policy()
    guest.plug(32)
    guest.settle()
    assert guest.blocks.policy() == "offline"
    assert guest.state(32) == "offline"


def test_a_policy_that_somebody_changed_is_set_again(guest):
    guest.ask(OnlineZone(1, "movable"))
    (guest.memory / "auto_online_blocks").write_text("offline\n")
    guest.plugger.keep_policy()
    assert guest.blocks.policy() == "online_movable"


def test_a_block_that_the_kernel_brings_online_is_left_alone(guest):
    guest.ask(OnlineZone(1, "movable"))
    guest.plug(32)
    add_block(guest.root, 32, "online\n")  # the kernel, a moment later
    assert guest.plugger.step(guest.now + KERNEL_GRACE_SECONDS) == (None, False)
    assert guest.state(32) == "online"


def test_a_block_that_the_kernel_left_offline_is_brought_online_after_a_grace(guest):
    guest.ask(OnlineZone(1, "movable"))
    guest.plug(32)
    guest.plugger.step(guest.now + KERNEL_GRACE_SECONDS / 2)
    assert guest.state(32) == "offline"
    guest.settle()
    assert guest.state(32) == "online_movable"


def test_without_a_policy_that_can_be_set_new_blocks_are_onlined_on_uevents(guest):
    (guest.memory / "auto_online_blocks").unlink()
    guest.start()
    assert guest.plugger.mode == "agent"
    guest.ask(OnlineZone(1, "kernel"))
    guest.plug(32, 33)
    guest.settle()
    assert [guest.state(32), guest.state(33)] == ["online_kernel"] * 2


def test_a_kernel_that_refuses_the_policy_makes_the_agent_do_it(guest):
    (guest.memory / "auto_online_blocks").unlink()
    (guest.memory / "auto_online_blocks").mkdir()  # there, and writing to it fails
    guest.start()
    ack = guest.ask(OnlineZone(1, "movable"))
    assert ack.ok
    assert guest.plugger.mode == "agent"
    guest.plug(32)
    guest.settle()
    assert guest.state(32) == "online_movable"


def test_memory_that_was_offline_when_the_agent_started_stays_so(guest):
    """After a reset the host unplugs surviving DIMMs, and they must still be offline then."""
    add_block(guest.root, 32, "offline\n")
    guest.start()
    guest.ask(OnlineZone(1, "movable"))
    guest.settle()
    assert guest.state(32) == "offline"


def test_a_block_that_cannot_go_online_is_tried_three_times_and_no_more(guest):
    (guest.memory / "auto_online_blocks").unlink()
    guest.start()
    guest.ask(OnlineZone(1, "movable"))
    writes = []
    guest.blocks.write_state = lambda number, word: writes.append(number) or refuse()
    guest.plug(32)
    guest.settle()
    assert writes == [32] * 3
    assert guest.plugger.next_wake(guest.now) is None


def refuse() -> None:
    raise OSError(16, os.strerror(16))


def test_a_range_goes_offline_and_the_bytes_are_counted(guest):
    guest.plug(32, 33, state="online\n")
    ack = guest.ask(Offline(7, *blocks_of(32, 2)))
    assert ack == Ack(7, True, "2 blocks offline", 2 * BLOCK_BYTES)
    assert guest.blocks.totals() == Blocks(4 * BLOCK_BYTES, 2 * BLOCK_BYTES)


def test_blocks_outside_of_the_range_are_not_touched(guest):
    guest.plug(32, 33, state="online\n")
    guest.ask(Offline(7, *blocks_of(33, 1)))
    assert [guest.state(number) for number in (0, 1, 2, 3, 32)] == ["online"] * 5


def test_a_refusal_says_how_far_it_went(guest):
    guest.plug(32, 33, state="online\n")
    write = guest.blocks.write_state
    guest.blocks.write_state = lambda number, word: refuse() if number == 32 else write(number, word)
    ack = guest.ask(Offline(7, *blocks_of(32, 2)))
    assert not ack.ok
    assert ack.changed_bytes == BLOCK_BYTES
    assert "busy" in ack.detail


def test_an_offlining_under_way_ends_when_the_host_wants_the_range_back(guest):
    guest.plug(32, 33, state="online\n")
    write = guest.blocks.write_state
    guest.blocks.write_state = lambda number, word: time.sleep(60) if number == 32 else write(number, word)
    assert guest.plugger.handle(Offline(7, *blocks_of(32, 2)), lambda: PLENTY, guest.now) is None
    guest.plugger.step(guest.now)
    until(lambda: guest.state(33) == "offline", lambda: guest.logged)
    assert guest.plugger.handle(Online(8, *blocks_of(32, 2), "movable"), lambda: PLENTY, guest.now) is None
    acks = guest.acks(2)
    assert [(ack.request_id, ack.ok) for ack in acks] == [(7, False), (8, True)]
    assert "called it off" in acks[0].detail
    assert [guest.state(number) for number in (32, 33)] == ["online", "online_movable"]


def test_a_half_offlined_range_is_put_back(guest):
    guest.plug(32, 33, state="online\n")
    guest.ask(Offline(7, *blocks_of(33, 1)))
    ack = guest.ask(Online(8, *blocks_of(32, 2), "movable"))
    assert ack == Ack(8, True, "1 blocks online", BLOCK_BYTES)
    assert guest.state(33) == "online_movable"


def hang(guest: Guest) -> None:
    """An offlining that does not end by itself."""
    guest.plug(32, state="online\n")
    guest.blocks.write_state = lambda number, word: os.read(os.pipe()[0], 1)
    assert guest.plugger.handle(Offline(7, *blocks_of(32, 1)), lambda: PLENTY, guest.now) is None
    guest.plugger.step(guest.now)


def look(guest: Guest, times: int) -> None:
    """The agent looks at its child, a second after the last look; its loop turns more often."""
    for _ in range(times):
        guest.now += LOOK_SECONDS
        for _ in range(3):
            assert guest.plugger.step(guest.now) == (None, False)


def assert_left_alone(guest: Guest) -> None:
    """Its child would have gone on, had the host not called it off now."""
    guest.plugger.handle(Online(8, *blocks_of(32, 1), "movable"), lambda: PLENTY, guest.now)
    assert "called it off" in guest.acks(2)[0].detail


def test_a_block_that_hangs_in_the_kernel_ends_once_nothing_moved_at_so_many_looks(guest):
    hang(guest)
    look(guest, MOST_IDLE_LOOKS - 1)
    guest.now += LOOK_SECONDS
    [ack] = guest.acks(1)
    assert (ack.ok, ack.changed_bytes) == (False, 0)
    assert "no page of a memory block moved" in ack.detail


def test_a_block_whose_pages_move_is_left_alone_however_long_that_takes(guest):
    hang(guest)
    for _ in range(20):
        guest.moved_pages += 1
        look(guest, MOST_IDLE_LOOKS)
    assert_left_alone(guest)


def test_a_block_that_went_is_progress_though_no_page_moved(guest):
    guest.plug(33, state="online\n")
    hang(guest)
    look(guest, MOST_IDLE_LOOKS - 1)
    (guest.memory / "memory33/state").write_text("offline\n")
    guest.plugger.uevents({33: "offline"}, guest.now)
    look(guest, MOST_IDLE_LOOKS)
    assert_left_alone(guest)


def test_a_guest_that_stood_still_itself_does_not_give_its_block_up(guest):
    hang(guest)
    guest.now += 3600.0  # its machine slept, or got no processor
    look(guest, MOST_IDLE_LOOKS - 1)
    assert_left_alone(guest)


def test_a_block_that_hangs_in_the_kernel_ends_by_the_alarm_though_nobody_looks(guest, monkeypatch):
    monkeypatch.setattr("agent.offlining.ALARM_SECONDS_PER_BLOCK", 1)
    hang(guest)
    [ack] = guest.acks(1)
    assert (ack.ok, ack.changed_bytes) == (False, 0)
    assert "within 1 s" in ack.detail


def test_the_loop_goes_on_while_a_block_hangs(guest):
    guest.plug(32, state="online\n")
    guest.blocks.write_state = lambda number, word: os.read(os.pipe()[0], 1)
    assert guest.plugger.handle(Offline(7, *blocks_of(32, 1)), lambda: PLENTY, guest.now) is None
    guest.plugger.step(guest.now)
    assert guest.plugger.child_fd() is not None
    assert guest.plugger.step(guest.now) == (None, False)
    assert guest.plugger.next_wake(guest.now) > guest.now
    guest.plugger.close()
    assert guest.plugger.child_fd() is None


def test_a_new_block_that_is_due_while_a_range_goes_offline_waits_and_keeps_nobody_awake(guest):
    guest.ask(OnlineZone(1, "movable"))
    guest.plug(32, state="online\n")
    write, (held, release) = guest.blocks.write_state, os.pipe()
    guest.blocks.write_state = lambda number, word: os.read(held, 1)
    guest.plugger.handle(Offline(2, *blocks_of(32, 1)), lambda: PLENTY, guest.now)
    guest.plugger.step(guest.now)
    guest.blocks.write_state = write
    guest.plug(34)
    guest.now += KERNEL_GRACE_SECONDS + 5.0
    for _ in range(3):
        assert guest.plugger.next_wake(guest.now) == guest.now + LOOK_SECONDS
        guest.plugger.step(guest.now)
    os.write(release, b"x")
    guest.acks(1)
    guest.settle()
    assert guest.state(34) == "online_movable"


def test_more_than_can_be_spared_is_not_taken_offline(guest):
    guest.plug(32, state="online\n")
    ack = guest.ask(Offline(7, *blocks_of(32, 1)), spare_bytes=100 << 20)
    assert not ack.ok
    assert "100 MiB" in ack.detail
    assert guest.state(32) == "online"


@pytest.mark.parametrize(
    ("start", "size"),
    [(0, 0), (1, BLOCK_BYTES), (0, BLOCK_BYTES + 1), (1 << 45, BLOCK_BYTES), (0, 1 << 50)],
)
def test_a_range_that_is_no_memory_is_refused(guest, start, size):
    ack = guest.ask(Offline(7, start, size))
    assert not ack.ok
    assert [guest.state(number) for number in range(4)] == ["online"] * 4


def test_a_flood_of_requests_is_bounded(guest):
    guest.plug(32, state="online\n")
    acks = [
        guest.plugger.handle(Online(n, *blocks_of(32, 1), "movable"), lambda: 0, guest.now)
        for n in range(100)
    ]
    assert sum(ack is None for ack in acks) == MOST_JOBS


def test_a_kernel_without_memory_hotplug_says_so(tmp_path):
    plugger = Hotplugger(MemoryBlocks(str(tmp_path)), lambda *_: None, lambda: 0)
    assert plugger.mode == "none"
    assert not plugger.handle(OnlineZone(1, "movable"), lambda: 0, 0.0).ok
    assert not plugger.handle(Offline(2, 0, BLOCK_BYTES), lambda: PLENTY, 0.0).ok


def test_a_block_that_was_unplugged_is_forgotten(guest):
    guest.plug(32)
    for path in (guest.memory / "memory32").iterdir():
        path.unlink()
    (guest.memory / "memory32").rmdir()
    guest.plugger.uevents({32: "remove"}, guest.now)
    assert guest.blocks.totals().offline_bytes == 0


def test_a_uevent_of_a_memory_block_is_understood():
    data = b"add@/devices/system/memory/memory32\0ACTION=add\0DEVPATH=/devices/system/memory/memory32\0"
    event = parse(data + b"SUBSYSTEM=memory\0SEQNUM=817\0")
    assert event == Uevent("add", "/devices/system/memory/memory32")
    assert memory_block_number(event) == 32


@pytest.mark.parametrize("data", [b"", b"libudev\0\xfe\xed\xca\xfe", b"\xff\xfe\0=\0==\0", b"a@b"])
def test_other_datagrams_are_no_memory_blocks(data):
    event = parse(data)
    assert event is None or memory_block_number(event) is None


def test_a_python_without_pidfd_looks_after_the_helper_by_the_clock(guest, monkeypatch):
    """Of one that was built for kernels before 5.3 `os` lacks the name."""
    monkeypatch.delattr(os, "pidfd_open")
    guest.plug(8, state="online\n")
    ack = guest.ask(Offline(1, 8 * BLOCK_BYTES, BLOCK_BYTES))
    assert ack.ok
    assert guest.state(8) == "offline"


@pytest.mark.parametrize("mode", ["agent", "kernel"])
def test_new_blocks_of_which_no_uevent_came_are_found_and_brought_online(guest, mode):
    """A DIMM of 64 GiB may have 512 blocks, and a socket holds 256 uevents."""
    if mode == "agent":
        (guest.memory / "auto_online_blocks").unlink()
    add_block(guest.root, 32, "offline\n")
    guest.start()
    guest.ask(OnlineZone(1, "movable"))
    for number in (40, 41):
        add_block(guest.root, number, "offline\n")
    guest.plugger.scan(guest.now)
    guest.settle()
    assert [guest.state(number) for number in (32, 40, 41)] == ["offline", "online_movable", "online_movable"]
    # Each once: what somebody takes offline later stays so.
    (guest.memory / "memory41/state").write_text("offline\n")
    guest.plugger.scan(guest.now)
    guest.settle()
    assert guest.state(41) == "offline"


def test_a_block_that_the_kernel_has_brought_online_is_not_looked_at_again(guest):
    guest.ask(OnlineZone(1, "movable"))
    guest.plug(32)
    assert guest.plugger.next_wake(guest.now) is not None
    (guest.memory / "memory32/state").write_text("online\n")
    assert guest.plugger.uevents({32: "online"}, guest.now)
    assert guest.plugger.next_wake(guest.now) is None


def test_blocks_that_appear_before_the_host_has_named_a_zone_are_left_alone(guest):
    add_block(guest.root, 40, "offline\n")
    guest.plugger.scan(guest.now)
    guest.settle()
    assert guest.state(40) == "offline"
