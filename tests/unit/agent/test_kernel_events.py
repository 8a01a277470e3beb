"""What the guest's kernel tells by itself, over pipes in place of a PSI trigger and a netlink socket."""

import os
import select

import pytest

from agent.kernel_events import KernelEvents
from agent.system import Log
from agent.uevents import Uevent


@pytest.fixture
def events() -> KernelEvents:
    return KernelEvents("/nowhere", Log(), has_psi=True, opened=False)


class Waiting:
    """A socket in which these uevents wait."""

    def __init__(self, found: list[Uevent], lost: bool = False) -> None:
        self.found, self.lost = found, lost

    def read(self) -> tuple[list[Uevent], bool]:
        return self.found, self.lost


def test_a_trigger_of_which_the_kernel_says_that_it_fires_and_is_gone_is_let_go(events: KernelEvents) -> None:
    reading, events.psi_fd = os.pipe()
    assert events.stalls(select.POLLPRI)
    assert not events.stalls(select.POLLPRI | select.POLLERR)
    assert events.psi_fd is None
    os.close(reading)


def test_of_a_block_the_last_action_counts_and_of_other_devices_none(events: KernelEvents) -> None:
    memory = "/devices/system/memory/memory"
    events.uevents = Waiting(  # type: ignore[assignment] # all that is asked of it
        [Uevent("add", f"{memory}32"), Uevent("add", "/devices/cpu"), Uevent("online", f"{memory}32")]
    )
    assert events.of_blocks() == ({32: "online"}, False)
    assert events.tells_of_blocks


@pytest.mark.parametrize("lost", [True, False])
def test_uevents_that_were_lost_may_have_been_of_blocks(events: KernelEvents, lost: bool) -> None:
    events.uevents = Waiting([Uevent("add", "/devices/cpu")], lost)  # type: ignore[assignment] # as above
    assert events.of_blocks() == ({}, lost)
    assert events.tells_of_blocks is lost


def test_where_a_kernel_has_neither_nothing_is_told_and_that_is_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    nothing = KernelEvents("/nowhere", Log(), has_psi=False)
    assert nothing.psi_fd is None
    assert "boot with psi=1" in capfd.readouterr().err
    nothing.close()
