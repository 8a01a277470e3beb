"""Who runs and is in no book yet: nobody is admitted meanwhile, nobody grows, and operators can read why."""

from dataclasses import replace

from host_controller.core import interface as hv
from host_controller.core.books.awaited import LASTING_SECONDS, Awaited
from host_controller.core.intake import apply
from host_controller.core.model import HostFacts, Unmanaged
from host_controller.core.operator_events import Reserve
from host_controller.core.policy.plan import PLUG, WAIT
from host_controller.core.state import State
from host_controller.units import GIB
from tests.support import build
from tests.unit.core.test_engine import Host
from tests.unit.core.test_intake_events import state_of, told

FACTS = HostFacts(100.0, 8 * GIB, 4 * GIB)


def awaiting(*names: str) -> State:
    state = state_of(build.vm())
    apply(state, hv.VmsAwaited(names), 100.0)
    return state


def test_before_the_hypervisor_has_said_who_runs_nobody_may_be_admitted() -> None:
    assert state_of().why_nobody() == "nobody knows yet which VMs run here"
    assert state_of().in_no_book() == []


def test_once_it_has_told_of_everybody_somebody_may_be() -> None:
    assert awaiting().why_nobody() == ""


def test_who_is_in_any_of_the_books_is_awaited_no_more() -> None:
    state = awaiting("web", "starts", "plain", "db")
    assert state.in_no_book() == ["starts", "plain", "db"], "web is managed"
    apply(state, Reserve("starts", GIB, 500.0), 101.0)
    plain = replace(FACTS, unmanaged=(Unmanaged("u-plain", "plain", GIB),))
    apply(state, hv.HostSampled(plain), 102.0)
    assert state.why_nobody() == "libvirt has not told yet of a VM that runs (db)"
    apply(state, hv.VmsAwaited(("web", "starts", "plain")), 103.0)
    assert state.why_nobody() == "", "db has ended"


def test_of_many_a_few_are_named() -> None:
    state = awaiting(*"abcdefgh")
    assert state.why_nobody() == "libvirt has not told yet of 8 VMs that run (a, b, c, d, e, …)"
    assert awaiting(*"abcde").why_nobody().endswith("5 VMs that run (a, b, c, d, e)")


def test_an_operator_is_told_once_when_it_lasts() -> None:
    state = awaiting("db")
    apply(state, hv.Tick(), 99.9 + LASTING_SECONDS)
    assert told(state) == []
    for now in (100.0, 101.0):
        apply(state, hv.Tick(), now + LASTING_SECONDS)
    text = "until libvirt has told of a VM that runs (db), no other VM is admitted here, and none grows"
    assert told(state) == [("connection", None, text)]


def test_an_operator_is_not_told_of_what_is_over() -> None:
    state = awaiting("db")
    apply(state, hv.VmsAwaited(()), 101.0)
    apply(state, hv.Tick(), 100.0 + 2 * LASTING_SECONDS)
    assert told(state) == []
    assert Awaited().lasts(["db"], 1e9) == "", "nobody was named"


def test_nobody_is_given_what_may_be_that_of_a_vm_that_is_in_no_book() -> None:
    host = Host()
    for names, action in ((("web", "db"), WAIT), (("web",), PLUG)):
        host.engine.handle(hv.VmsAwaited(names), host.now)
        host.hear(500)
        host.decide()
        assert host.engine.decisions[host.vm.config.uuid].action is action
        host.now += 1.0
