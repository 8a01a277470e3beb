"""What a pass may say while there is nothing to give."""

from host_controller.grants import Pass
from host_controller.hypervisor.interface import SetTarget
from host_controller.intake import State
from host_controller.ledger import Ledger
from host_controller.units import MIB
from tests.unit import build


def test_a_target_that_is_sent_again_in_an_overdraft_raises_no_charge() -> None:
    settings = build.settings()
    # The kernel's word is older than the balloon's: it has a little less by now.
    vm = build.vm(440, facts=build.facts(441, 430), resend=True)
    _, sent = Pass(State(settings, Ledger(settings)), {}, {}, -MIB, waiting=True, now=1.0).run([vm])
    assert [one.target_bytes for one in sent if isinstance(one, SetTarget)] == [440 * MIB]
