"""What a pass may say while there is nothing to give."""

from host_controller.core.accounts import Account
from host_controller.core.books.ledger import Ledger
from host_controller.core.grants import GrantRound, Purse
from host_controller.core.interface import SetTarget
from host_controller.core.state import State
from host_controller.units import MIB
from tests.support import build


def test_a_target_that_is_sent_again_in_an_overdraft_raises_no_charge() -> None:
    settings = build.settings()
    # The kernel's word is older than the balloon's: it has a little less by now.
    vm = build.vm(440, facts=build.facts(441, 430), resend=True)
    account = Account(440 * MIB, fixed=0, growth=0, next_dimm=0, granted_bytes=440 * MIB, claims=None)
    accounts = {vm.config.uuid: account}
    purse = Purse(State(settings, Ledger(settings)), accounts, -MIB, waiting=True, now=1.0)
    GrantRound(purse, {}).run([vm])
    assert [sent.target_bytes for sent in purse.commands if isinstance(sent, SetTarget)] == [440 * MIB]
