"""Agents are told that somebody listens, and what their guest may come to have."""

from dataclasses import replace

from agent import wire
from host_controller.control.greeting import AGAIN_SECONDS, Greeter
from host_controller.core.interface import GuestSpoke, SendToGuest, VmAppeared, VmConfigChanged, VmGone
from host_controller.core.model import RunState, VmConfig
from host_controller.units import GIB
from tests.support import build
from tests.support.words import REPORT

HELLO = wire.Hello("0123abcd" * 4 + "0123", "0.2.0", "6.1", 128 << 20, True, "offline", "kernel")


def appeared(maximum: int) -> VmAppeared:
    return VmAppeared("a", with_maximum(maximum), RunState.RUNNING, (), GIB, booted=True)


def with_maximum(maximum: int) -> VmConfig:
    config = build.config()
    return replace(config, limits=replace(config.limits, maximum_bytes=maximum))


def maximum_of(command: SendToGuest | None) -> int:
    assert command is not None
    assert isinstance(command.message, wire.Welcome)
    return command.message.maximum_bytes


def test_a_welcome_tells_the_maximum_and_another_one_follows_when_it_changes() -> None:
    greeter = Greeter()
    assert maximum_of(greeter.hear(appeared(4 * GIB), 0.0)) == 4 * GIB
    assert maximum_of(greeter.hear(GuestSpoke("a", HELLO), 1.0)) == 4 * GIB
    assert greeter.hear(VmConfigChanged("a", with_maximum(4 * GIB)), 2.0) is None
    assert maximum_of(greeter.hear(VmConfigChanged("a", with_maximum(8 * GIB)), 3.0)) == 8 * GIB


def test_an_agent_that_talks_ungreeted_is_greeted_again_but_not_at_every_word() -> None:
    greeter = Greeter()
    greeter.hear(appeared(4 * GIB), 0.0)
    assert greeter.hear(GuestSpoke("a", REPORT), AGAIN_SECONDS - 1) is None
    assert maximum_of(greeter.hear(GuestSpoke("a", REPORT), AGAIN_SECONDS)) == 4 * GIB
    greeter.hear(GuestSpoke("a", HELLO._replace(welcomed=True)), AGAIN_SECONDS + 1)
    assert greeter.hear(GuestSpoke("a", REPORT), 10 * AGAIN_SECONDS) is None


def test_nothing_is_kept_of_a_vm_that_is_gone() -> None:
    greeter = Greeter()
    greeter.hear(appeared(4 * GIB), 0.0)
    greeter.hear(VmGone("a", "shutdown"), 1.0)
    assert greeter.hear(GuestSpoke("a", REPORT), 100.0) is None
    assert maximum_of(greeter.hear(GuestSpoke("a", HELLO), 101.0)) == 0
