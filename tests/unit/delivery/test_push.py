"""The agent brought into a guest by its guest agent, with a guest agent that fails in every way."""

import shlex
from collections.abc import Callable
from contextlib import suppress

import pytest

from host_controller.delivery import push as delivery
from host_controller.delivery.agent_file import agent_file
from host_controller.delivery.push import DROP, INSTALLED, PushFailed, PushNotAllowed
from host_controller.guest_agent.conversation import PIECE_BYTES, GuestAgent
from host_controller.guest_agent.errors import (
    GuestAgentError,
    GuestAgentNonsense,
    GuestAgentRefused,
    GuestAgentSilent,
)
from tests.support.fake_guest_agent import FakeGuestAgent

CONTENT = agent_file()
PIECES = -(-len(CONTENT) // PIECE_BYTES)
REQUESTS = 9 + PIECES
"""So many make up a push: the file grows as the agent does."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def talk_to(guest: FakeGuestAgent) -> GuestAgent:
    clock = Clock()
    return GuestAgent(guest, clock, clock.wait)


def push(guest: FakeGuestAgent, progress: Callable[[int], None] = lambda done: None) -> list[str]:
    return list(delivery.push(talk_to(guest), CONTENT, progress))


def remove(guest: FakeGuestAgent) -> list[str]:
    return list(delivery.remove(talk_to(guest)))


def test_a_push_brings_the_file_whole_and_has_it_install_itself() -> None:
    guest = FakeGuestAgent()
    seen: list[int] = []
    said = push(guest, seen.append)
    assert guest.files == {INSTALLED: CONTENT}
    assert guest.running
    assert said[-1] == "In the guest: The agent runs."
    assert seen == [*range(PIECE_BYTES, len(CONTENT), PIECE_BYTES), len(CONTENT)]


def test_what_is_there_is_not_brought_again() -> None:
    guest = FakeGuestAgent()
    push(guest)
    guest.asked.clear()
    push(guest)
    assert "guest-file-write" not in guest.asked


def test_an_older_file_is_replaced() -> None:
    guest = FakeGuestAgent(files={INSTALLED: b"of yesterday"})
    push(guest)
    assert guest.files == {INSTALLED: CONTENT}


@pytest.mark.parametrize("answer_lost", [False, True])
@pytest.mark.parametrize("after", range(REQUESTS))
@pytest.mark.parametrize("then", ["push", "remove"])
def test_cut_off_at_any_request_a_push_is_finished_by_a_push_and_undone_by_a_removal(
    after: int, answer_lost: bool, then: str
) -> None:
    guest = FakeGuestAgent()
    guest.cut_after, guest.answer_lost = after, answer_lost
    with pytest.raises(GuestAgentSilent):
        push(guest)
    guest.cut_after = None
    if then == "push":
        push(guest)
        assert guest.files == {INSTALLED: CONTENT}
        assert guest.running
    else:
        remove(guest)
        assert guest.files == {}
        assert not guest.running


def test_that_a_push_has_so_many_requests() -> None:
    guest = FakeGuestAgent()
    push(guest)
    assert len(guest.asked) == REQUESTS


@pytest.mark.parametrize("room_bytes", [0, 1000, PIECE_BYTES, len(CONTENT) - 1])
def test_a_full_disk_is_a_sentence_and_what_was_written_goes(room_bytes: int) -> None:
    guest = FakeGuestAgent(room_bytes=room_bytes)
    with pytest.raises(GuestAgentRefused, match="No space left") as error:
        push(guest)
    assert guest.files == {}
    assert "/run" in (error.value.hint or "")


@pytest.mark.parametrize("command", ["guest-exec", "guest-exec-status", "guest-file-write"])
def test_what_is_not_allowed_is_named_and_nothing_is_done(command: str) -> None:
    guest = FakeGuestAgent(forbidden=frozenset({command}))
    with pytest.raises(PushNotAllowed, match=command):
        push(guest)
    assert guest.asked == ["guest-info", "guest-fsfreeze-status"]


@pytest.mark.parametrize("act", [push, remove])
def test_while_a_backup_has_frozen_its_file_systems_that_is_said_and_nothing_is_done(
    act: Callable[[FakeGuestAgent], list[str]],
) -> None:
    guest = FakeGuestAgent()
    guest.frozen = True
    with pytest.raises(PushFailed, match="frozen, by a backup") as error:
        act(guest)
    assert not isinstance(error.value, PushNotAllowed), "nobody is to do it by hand"
    assert "domfsthaw" in (error.value.hint or "")
    guest.frozen = False
    act(guest)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "null",
        "{}",
        "[]",
        '{"return": null}',
        '{"return": -1}',
        '{"return": true}',
        '{"return": {"count": 99999999}}',
        '{"return": {"count": 0}}',
        '{"return": {"pid": -4}}',
        '{"return": {"pid": "1"}}',
        '{"return": {"exited": "yes"}}',
        '{"return": {"exited": true, "exitcode": "well"}}',
        '{"return": {"exited": true, "exitcode": 0, "out-data": "%%%"}}',
        '{"return": {"exited": true, "exitcode": 0, "out-data": "Z"}}',
        '{"return": {"exited": true, "signal": 1e9}}',
        '{"return": {"supported_commands": [1, {"name": 2}]}}',
        "[" * 100_000,
        '{"return": "' + "x" * (1 << 21) + '"}',
    ],
)
def test_nonsense_to_any_request_ends_the_push_with_a_sentence(answer: str) -> None:
    known = FakeGuestAgent()
    push(known)
    for at in range(len(known.asked)):
        guest = FakeGuestAgent()

        def twist(_command: str, honest: str, at: int = at, guest: FakeGuestAgent = guest) -> str:
            return answer if len(guest.asked) == at + 1 else honest

        guest.twist = twist
        with suppress(PushFailed, GuestAgentError):  # some of it is true somewhere
            push(guest)
        guest.twist = lambda command, honest: honest
        push(guest)
        assert guest.files == {INSTALLED: CONTENT}


def test_nonsense_is_called_nonsense() -> None:
    guest = FakeGuestAgent()
    guest.twist = lambda command, answer: "never"
    with pytest.raises(GuestAgentNonsense, match="no JSON"):
        push(guest)


def test_a_program_that_takes_its_time_is_waited_for_and_one_that_hangs_is_not() -> None:
    guest = FakeGuestAgent()
    guest.slow_looks = 5
    push(guest)
    guest.slow_looks = 10**9
    with pytest.raises(GuestAgentSilent, match="still runs after"):
        push(guest)


def test_what_the_guests_own_installation_says_is_passed_on_without_its_tricks() -> None:
    guest = FakeGuestAgent()
    guest.install_fails = "the disk is full\x1b[2J"
    with pytest.raises(PushFailed, match=r"in the guest: the disk is full\?\[2J"):
        push(guest)
    assert guest.files == {}


@pytest.mark.parametrize("where", ["install", "guest-file-open"])
def test_what_selinux_denies_a_guest_agent_people_do_by_hand(where: str) -> None:
    """Fedora's policy has it write below /run, and nowhere that the agent is to lie."""
    guest = FakeGuestAgent()
    if where == "install":
        guest.install_fails = f"{INSTALLED}: Permission denied. Run it from a shell of root's"
    else:
        guest.denied = True
    with pytest.raises(PushNotAllowed, match="Permission denied") as refused:
        push(guest)
    assert "by hand" in (refused.value.hint or "")
    assert guest.files == {}


def test_a_guest_with_the_package_is_left_alone() -> None:
    guest = FakeGuestAgent(files={"/usr/bin/dynmem-agent": b""})
    with pytest.raises(PushFailed, match="package dynmem-agent is installed"):
        push(guest)
    with pytest.raises(PushFailed, match="came by the package"):
        remove(guest)


def test_a_guest_without_a_python_is_told_so() -> None:
    with pytest.raises(PushFailed, match=r"no Python 3\.9"):
        push(FakeGuestAgent(python=""))


def test_removed_twice_is_removed_once() -> None:
    guest = FakeGuestAgent()
    push(guest)
    assert remove(guest) == ["In the guest: 3 files are removed."]
    assert guest.files == {}
    assert remove(guest) == ["There is nothing of a push in it."]


def test_a_damaged_file_is_not_installed() -> None:
    guest = FakeGuestAgent()
    real = guest._guest_file_write

    def damaged(handle: int, buf_b64: str) -> object:
        answer = real(handle, buf_b64)
        guest.files[DROP] = b"x" + guest.files[DROP][1:]
        return answer

    guest._guest_file_write = damaged  # type: ignore[method-assign]
    with pytest.raises(PushFailed, match="did not arrive"):
        push(guest)
    assert guest.files == {}


def test_a_guest_agent_that_takes_a_byte_at_a_time_is_left_in_bounded_time() -> None:
    guest, clock = FakeGuestAgent(), Clock()

    def a_byte(command: str, answer: str) -> str:
        clock.wait(5)
        assert clock.now < 200
        return '{"return": {"count": 1, "eof": false}}' if command == "guest-file-write" else answer

    guest.twist = a_byte
    with pytest.raises(GuestAgentSilent, match=f"of {len(CONTENT)} bytes"):
        list(delivery.push(GuestAgent(guest, clock, clock.wait), CONTENT, lambda done: None))


def test_the_commands_to_type_run_nothing_that_a_vm_is_named_after() -> None:
    name = "a; reboot `id` $(id)"
    copy, _ = delivery.by_hand(name, "/usr/share/dynmem/dynmem-agent.pyz")
    assert shlex.split(copy) == ["scp", "/usr/share/dynmem/dynmem-agent.pyz", f"root@{name}:/root/"]
