"""Our policy over slots: demand's formula and the production `balance`, on many hosts at once."""

from typing import Any, Final

import numpy as np

from bench.bulk_laws import Hosts
from host_controller.core.policy.balance import Claims, balance
from host_controller.core.policy.ready import LEAST_SHARE
from host_controller.core.policy.spare import AGENTLESS_EXTRA
from host_controller.core.vm.demand import LEAST_MARGIN_BYTES
from host_controller.units import MIB

CHECK_EVERY: Final = 997
Array = Any


def claims_mib(
    demand: Array, usable: Array, minimum: Array, maximum: Array, buffer: float = 0.20
) -> tuple[Array, Array]:
    """`lower` and `desired` of policy.demand for guests without swap, refaults and stalls.

    `lower` equals `need` for those. tests/simulated/test_density.py holds this to Demand.estimate().
    """
    margin = np.maximum(LEAST_MARGIN_BYTES / MIB, usable / 64)
    lower = np.maximum(minimum, np.minimum(maximum, demand + margin))
    desired = np.maximum(minimum, np.minimum(maximum, demand * (1 + buffer) + margin))
    return lower, desired


def budgets_mib(total: Array, needed: Array) -> Array:
    """`policy.ready.budget_bytes` for many hosts: 1/64 is kept ready, and yields to what is needed."""
    return np.maximum(total - total / LEAST_SHARE, np.minimum(total, needed))


class OurLaw:
    """A Step that counts how often the production balance decided, and that the shortcut is none.

    agentless: guests are judged by their balloon's statistics, so 1/16 of what each has stays free in it.
    """

    def __init__(self, *, agentless: bool = False) -> None:
        self.agentless = agentless
        self.balanced = 0
        self.checked = 0
        self._calls = 0

    def __call__(self, hosts: Hosts, demand: Array) -> None:
        """Where desired fits into the budget, everybody has it and more: balance need not be asked."""
        self._calls += 1
        usable = np.maximum(hosts.current, hosts.minimum)
        lower, desired = claims_mib(demand, usable, hosts.minimum, hosts.maximum)
        if self.agentless:
            lower = np.minimum(hosts.maximum, lower * AGENTLESS_EXTRA / (AGENTLESS_EXTRA - 1))
            desired = np.maximum(desired, lower)
        budget = budgets_mib(hosts.total, lower.sum(axis=1))
        current = desired.copy()
        over = desired.sum(axis=1) > budget
        ask = np.flatnonzero(over)
        if self._calls % CHECK_EVERY == 0:
            ask = np.arange(len(over))
        for row in ask:
            present = np.flatnonzero(hosts.maximum[row])
            shares = self._balance(lower[row, present], desired[row, present], float(budget[row]))
            self.balanced += 1
            if over[row]:
                current[row, present] = shares
            else:
                self.checked += 1
                assert (shares >= desired[row, present] - 1e-3).all()
        hosts.current = current

    @staticmethod
    def _balance(lower: Array, desired: Array, budget: float) -> Array:
        low, high = (lower * MIB).astype(np.int64).tolist(), (desired * MIB).astype(np.int64).tolist()
        claims = [Claims(100, lo, lo, lo, lo, hi, hi) for lo, hi in zip(low, high, strict=True)]
        return np.array(balance(claims, int(budget * MIB))) / MIB
