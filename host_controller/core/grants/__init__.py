"""Who is given what, now: donors give before takers are given to, and nothing is given on credit.

A raise is paid from headroom, and headroom is what the ledger leaves after everybody's charge: a donor's
memory counts only once it is observed to be free. What a round cannot pay, a later one will.

round.py      one round over the VMs
purse.py      what it has to give, and what came of it
affirm.py     a target that is said again
give_back.py  less: by the balloon, a DIMM, virtio-mem
grow.py       more: by the balloon, a DIMM, virtio-mem
"""

from host_controller.core.grants.purse import Purse
from host_controller.core.grants.round import GrantRound

__all__ = ["GrantRound", "Purse"]
