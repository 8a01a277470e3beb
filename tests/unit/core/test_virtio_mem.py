"""What a virtio-mem device is charged with, while QEMU tells late and its guest takes its time."""

import math
import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from host_controller.core.vm import phases
from host_controller.core.vm.virtio_mem import LATE_SECONDS, VirtioMem
from host_controller.units import MIB
from tests.support import build

TICK = 0.1
EVENT_SECONDS = 1.0
"""QEMU tells of a device once in so long."""


def asked(device: VirtioMem, size_mib: int, now: float, error: str | None = None) -> None:
    """Asked for and answered at once."""
    device.ask("web", 1, size_mib * MIB, now)
    device.answered(1, error, now)


def settled(size_mib: int) -> VirtioMem:
    return VirtioMem(size_mib * MIB, size_mib * MIB, size_mib * MIB)


def charged_mib(device: VirtioMem, now: float) -> int:
    device.catch_up(now)
    return device.may_hold_bytes // MIB


def test_what_has_left_costs_nothing_as_soon_as_it_is_told_however_soon_the_next_step_follows() -> None:
    device = settled(1024)
    for step in range(1, 5):
        now, size = 10.0 + step, 1024 - 128 * step
        asked(device, size, now)
        assert charged_mib(device, now) == size + 128, "it has not left yet"
        device.observe(size * MIB, None, now + 0.5)
        assert charged_mib(device, now + 0.5) == size


def test_a_device_that_still_falls_towards_an_older_size_has_no_more_than_was_told() -> None:
    device = settled(1024)
    asked(device, 768, 10.0)
    device.observe(900 * MIB, None, 10.9)
    asked(device, 512, 11.0)
    device.observe(600 * MIB, None, 12.0)
    assert charged_mib(device, 12.0) == 600


def test_where_it_was_asked_for_more_a_moment_ago_that_is_charged_until_qemu_has_surely_told() -> None:
    """It fell from 1024 to 512 MiB, rose to 768, and of all that only 512 is told."""
    device = settled(1024)
    asked(device, 512, 10.0)
    asked(device, 768, 10.4)
    asked(device, 512, 10.4 + LATE_SECONDS)
    device.observe(512 * MIB, None, 12.5)
    assert charged_mib(device, 12.5) == 768
    assert charged_mib(device, 12.4 + LATE_SECONDS) == 768
    assert charged_mib(device, 12.5 + LATE_SECONDS) == 512


def test_what_it_has_not_come_to_yet_it_may_have_come_to_untold() -> None:
    device = VirtioMem(0, 256 * MIB, 256 * MIB)
    asked(device, 0, 10.0)
    assert charged_mib(device, 10.0 + LATE_SECONDS) == 256
    assert charged_mib(device, 10.1 + LATE_SECONDS) == 0


def test_further_steps_down_do_not_keep_that_charged_for_longer() -> None:
    device = VirtioMem(256 * MIB, 512 * MIB, 512 * MIB)
    asked(device, 256, 10.0)
    asked(device, 128, 11.5)
    assert charged_mib(device, 10.1 + LATE_SECONDS) == 256


def test_the_time_in_which_qemu_tells_begins_when_the_smaller_size_is_in_force() -> None:
    device = VirtioMem(0, 256 * MIB, 256 * MIB)
    device.ask("web", 1, 0, 10.0)
    assert charged_mib(device, 19.0) == 256
    device.answered(1, None, 20.0)
    assert charged_mib(device, 20.0 + LATE_SECONDS) == 256
    assert charged_mib(device, 20.1 + LATE_SECONDS) == 0


def test_what_a_slow_command_let_it_come_to_may_be_untold_when_it_is_taken_back() -> None:
    """It still fell, had 400 MiB untold, and rose to 768 as soon as the command was carried out."""
    device = VirtioMem(900 * MIB, 512 * MIB, 512 * MIB)
    device.ask("web", 1, 768 * MIB, 10.0)
    device.answered(1, None, 13.0)
    asked(device, 512, 13.1)
    device.observe(400 * MIB, None, 13.4)
    assert charged_mib(device, 13.4) == 768
    assert charged_mib(device, 13.2 + LATE_SECONDS) == 512


def test_however_seldom_it_is_looked_at_the_time_in_which_qemu_tells_begins_with_the_answer() -> None:
    device = VirtioMem(0, 256 * MIB, 256 * MIB)
    device.ask("web", 1, 0, 10.0)
    device.answered(1, None, 13.0)
    assert charged_mib(device, 13.0 + LATE_SECONDS) == 256
    assert charged_mib(device, 13.1 + LATE_SECONDS) == 0


def test_what_somebody_else_takes_back_from_a_device_that_rises_it_may_have_come_to_untold() -> None:
    device = settled(512)
    asked(device, 1024, 10.0)
    device.observe(600 * MIB, None, 10.4)
    assert device.observe(600 * MIB, 512 * MIB, 10.6)
    device.release()
    assert charged_mib(device, 10.6 + LATE_SECONDS) == 1024
    assert charged_mib(device, 10.7 + LATE_SECONDS) == 600


def test_what_it_may_have_come_to_untold_stays_charged_when_the_connection_is_lost_and_found_again() -> None:
    before = settled(512)
    asked(before, 1024, 10.0)
    asked(before, 512, 10.5)
    again = VirtioMem(512 * MIB, 512 * MIB, 512 * MIB, raised_at=11.0)
    again.go_on_from(before)
    assert charged_mib(again, 11.0) == 1024
    asked(again, 512, 11.1)
    assert charged_mib(again, 11.1 + LATE_SECONDS) == 1024
    assert charged_mib(again, 11.2 + LATE_SECONDS) == 512


def test_after_a_command_that_failed_it_may_have_come_to_the_larger_size_whatever_is_asked_next() -> None:
    device = settled(1024)
    asked(device, 512, 10.0, error="no answer in time")
    device.observe(768 * MIB, None, 11.0)
    asked(device, 896, 20.0)
    assert charged_mib(device, 20.0 + LATE_SECONDS) == 1024
    assert charged_mib(device, 20.1 + LATE_SECONDS) == 896


def test_while_an_older_command_is_unanswered_its_size_stays_charged_beyond_the_next() -> None:
    device = settled(256)
    device.ask("web", 1, 512 * MIB, 10.0)
    device.ask("web", 2, 384 * MIB, 20.0)
    device.answered(1, None, 20.0)
    device.answered(2, None, 20.0)
    assert charged_mib(device, 20.0 + LATE_SECONDS) == 512
    assert charged_mib(device, 20.1 + LATE_SECONDS) == 384


def test_a_size_that_somebody_else_asked_for_may_have_been_reached_untold() -> None:
    device = settled(512)
    device.observe(1024 * MIB, 512 * MIB, 9.0)  # its guest has not given back what somebody took
    assert device.observe(1024 * MIB, 768 * MIB, 10.0)
    device.release()
    asked(device, 512, 10.5)
    device.observe(512 * MIB, None, 11.0)
    assert charged_mib(device, 11.0) == 768


def test_what_somebody_else_asks_for_while_a_command_of_ours_is_unanswered_is_charged_at_once() -> None:
    device = settled(256)
    device.ask("web", 1, 128 * MIB, 10.0)
    assert not device.observe(256 * MIB, 256 * MIB, 10.1), "that is what was asked for before"
    assert charged_mib(device, 10.1) == 256
    assert device.observe(256 * MIB, 512 * MIB, 10.2)
    assert charged_mib(device, 10.2) == 512
    device.answered(1, None, 10.3)
    assert device.unsure, "nobody knows whose came last"
    assert device.confirmed_bytes == 128 * MIB, "what was asked for before is over"
    assert charged_mib(device, 10.3 + 2 * LATE_SECONDS) == 512
    asked(device, 128, 15.0)
    assert not device.unsure
    assert charged_mib(device, 15.0) == 512
    device.observe(128 * MIB, None, 15.5)
    assert charged_mib(device, 15.1 + LATE_SECONDS) == 128


def test_what_qemu_tells_to_be_asked_for_was_surely_asked_for_though_the_answer_does_not_come() -> None:
    device = settled(512)
    device.confirmed_bytes = 512 * MIB
    device.ask("web", 1, 128 * MIB, 10.0)
    device.observe(512 * MIB, None, 10.1)
    assert device.confirmed_bytes == 512 * MIB
    device.observe(384 * MIB, 128 * MIB, 11.0)
    device.answered(1, "timed out", 20.0)
    assert (device.unsure, device.confirmed_bytes) == (True, 128 * MIB)


def test_what_somebody_else_asked_for_is_in_force_once_our_command_is_refused() -> None:
    device = settled(512)
    device.confirmed_bytes = 512 * MIB
    device.ask("web", 1, 768 * MIB, 10.0)
    device.observe(384 * MIB, 0, 11.0)
    device.answered(1, "refused", 11.1)
    assert (device.unsure, device.confirmed_bytes) == (True, 0)


def test_it_is_charged_on_where_it_lies_between_what_ours_was_and_what_it_is_to_be() -> None:
    device = settled(512)
    device.ask("web", 1, 128 * MIB, 10.0)
    assert device.observe(512 * MIB, 384 * MIB, 10.1)
    device.answered(1, None, 10.2)
    device.observe(300 * MIB, None, 10.2 + 2 * LATE_SECONDS)
    assert charged_mib(device, 10.2 + 2 * LATE_SECONDS) >= 384


def test_a_smaller_size_that_somebody_else_asked_for_raises_nothing() -> None:
    device = settled(1024)
    assert device.observe(1024 * MIB, 768 * MIB, 10.0)
    device.release()
    asked(device, 512, 10.5)
    device.observe(512 * MIB, None, 11.0)
    assert charged_mib(device, 11.0) == 512


def test_a_new_kernel_may_have_plugged_all_of_it_once_more() -> None:
    device = settled(512)
    device.starts_anew(10.0)
    asked(device, 256, 10.0 + LATE_SECONDS)
    device.observe(0, None, 12.1)
    assert charged_mib(device, 12.1 + LATE_SECONDS - 0.1) == 512
    assert charged_mib(device, 12.1 + LATE_SECONDS) == 256


def test_a_new_kernel_may_plug_what_an_unanswered_command_is_about_to_take_back() -> None:
    device = settled(512)
    device.ask("web", 1, 256 * MIB, 10.0)
    device.starts_anew(11.0)
    device.observe(0, None, 11.0)
    device.answered(1, None, 11.0)
    assert charged_mib(device, 11.0 + LATE_SECONDS) == 512
    assert charged_mib(device, 11.1 + LATE_SECONDS) == 256


def test_a_reset_of_its_vm_is_told_to_it() -> None:
    vm = build.vm(512, virtio_mem=settled(512))
    phases.reset(vm, 10.0)
    asked(vm.virtio_mem, 256, 11.9)
    vm.virtio_mem.observe(0, None, 12.0)
    assert charged_mib(vm.virtio_mem, 13.9) == 512
    assert charged_mib(vm.virtio_mem, 14.0) == 256


# --- when nothing of it is on its way ---


def test_what_came_down_to_its_size_rests_at_once() -> None:
    device = settled(512)
    assert device.rests(10.0)
    asked(device, 256, 10.0)
    device.observe(300 * MIB, None, 10.5)
    assert not device.rests(10.5)
    device.observe(256 * MIB, None, 11.0)
    assert (device.rests(11.0), device.steady(11.0)) == (True, False)


def test_what_was_told_may_be_of_before_it_was_asked_for_more_a_moment_ago() -> None:
    device = settled(512)
    asked(device, 256, 10.0)
    asked(device, 512, 10.2)
    asked(device, 256, 10.4)
    device.observe(256 * MIB, None, 10.5)
    assert not device.rests(10.5), "it may be rising to 512 MiB"
    assert device.rests(10.6 + LATE_SECONDS)


# --- whatever is asked, and whenever it is told ---


@dataclass
class Qemu:
    """A device and its guest, tick by tick. What it tells takes up to EVENT_SECONDS and half a second."""

    rng: random.Random
    device: VirtioMem
    size: int = 0
    requested: int = 0
    now: float = 0.0
    untold: int | None = None
    told_at: float = -math.inf
    commands: deque[tuple[float, int, int]] = field(default_factory=deque)
    answers: deque[tuple[float, int, str | None]] = field(default_factory=deque)
    events: deque[tuple[float, int]] = field(default_factory=deque)

    def ask(self, size: int) -> None:
        ticket = int(self.now / TICK)
        self.device.promise(size)
        self.device.ask("web", ticket, size, self.now)
        self.commands.append((self.now + self.rng.choice((0.0, 0.0, 0.3, 3.0)), ticket, size))

    def changed(self, size: int) -> None:
        if size != self.size:
            self.size = self.untold = size

    def tick(self) -> None:
        self.now += TICK
        rng, gap = self.rng, self.requested - self.size
        self.changed(self.size + round(gap * rng.choice((0.0, 0.2, 0.5, 1.0, 1.0))))
        while self.commands and self.commands[0][0] <= self.now:
            _, ticket, size = self.commands.popleft()
            failed = rng.random() < 0.1
            if not failed or rng.random() < 0.5:
                self.requested = size
            error = "no answer in time" if failed else None
            self.answers.append((self.now + rng.choice((0.0, 0.0, 0.5)), ticket, error))
        if rng.random() < 0.01:
            self.changed(0)
            self.device.starts_anew(self.now)
        if rng.random() < 0.01 and not self.device.unsure:
            self.asked_by_somebody(rng.randrange(9) * 128 * MIB)
        if rng.random() < 0.005:
            self.met_again()
        if self.untold is not None and self.now - self.told_at >= EVENT_SECONDS:
            self.events.append((self.now + rng.choice((0.0, 0.2, 0.5)), self.untold))
            self.untold, self.told_at = None, self.now
        while self.answers and self.answers[0][0] <= self.now:
            _, ticket, error = self.answers.popleft()
            self.device.answered(ticket, error, self.now)
        while self.events and self.events[0][0] <= self.now:
            self.device.observe(self.events.popleft()[1], None, self.now)
        if rng.random() < 0.3:  # a VM is not looked at in every step
            self.device.catch_up(self.now)

    def asked_by_somebody(self, size: int) -> None:
        """And seen at once."""
        self.requested = size
        if self.device.observe(self.device.current_bytes, size, self.now):
            self.device.release()

    def met_again(self) -> None:
        """The connection was lost: what is known anew is what QEMU last told and what is requested."""
        before, asked = self.device, self.requested
        self.device = VirtioMem(
            before.current_bytes, asked, asked, confirmed_bytes=asked, moved_at=self.now, raised_at=self.now
        )
        self.device.go_on_from(before)


@pytest.mark.parametrize("seed", range(40))
def test_it_is_never_charged_with_less_than_its_guest_has_or_may_take(seed: int) -> None:
    rng = random.Random(seed)
    qemu = Qemu(rng, VirtioMem())
    busy = rng.choice((0.05, 0.2, 0.5))
    for _ in range(1500):
        qemu.tick()
        assert qemu.device.may_hold_bytes >= max(qemu.size, qemu.requested), f"at {qemu.now:.1f} s"
        if not qemu.device.unanswered and rng.random() < busy:
            qemu.ask(rng.randrange(9) * 128 * MIB)
            assert qemu.device.may_hold_bytes >= max(qemu.size, qemu.requested)


@pytest.mark.parametrize("seed", range(40))
def test_what_rests_has_what_was_told(seed: int) -> None:
    """A new kernel, or a lost connection, says that by itself: it is not asked within four seconds of one."""
    rng = random.Random(seed)
    qemu = Qemu(rng, VirtioMem())
    busy, anew_at = rng.choice((0.05, 0.2, 0.5)), -math.inf
    for _ in range(1500):
        known, size = qemu.device, qemu.size
        qemu.tick()
        device = qemu.device
        if device is not known or (size and not qemu.size):
            anew_at = qemu.now
        if qemu.now - anew_at > 4.0 and device.rests(qemu.now) and not device.steady(qemu.now):
            assert qemu.size == device.current_bytes, f"at {qemu.now:.1f} s"
        if not device.unanswered and rng.random() < busy:
            qemu.ask(rng.choice((device.current_bytes, rng.randrange(9) * 128 * MIB)))


def test_a_smaller_size_that_is_asked_for_before_the_last_was_answered_may_rise_as_well() -> None:
    device = VirtioMem(512 * MIB, 512 * MIB, 512 * MIB, confirmed_bytes=512 * MIB)
    device.ask("web", 1, 256 * MIB, 10.0)
    device.ask("web", 2, 128 * MIB, 11.0)
    assert device.raised_at == 11.0
    device.answered(1, None, 12.0)
    device.answered(2, None, 12.0)
    assert device.raised_at == 12.0
