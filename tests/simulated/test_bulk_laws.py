"""The laws that the density benchmark runs in bulk are the simulator's laws, figure by figure."""

import random

import numpy as np
import pytest

from bench.bulk_laws import Hosts, mom_policy, qmemman_balance, step_clairvoyant, step_hyperv, step_squeezed
from bench.bulk_laws import step_proxmox as bulk_proxmox
from bench.our_law import OurLaw, budgets_mib, claims_mib
from host_controller.core.model import GuestFacts, Limits
from host_controller.core.policy.ready import LEAST_SHARE, budget_bytes
from host_controller.core.vm.demand import Demand
from host_controller.simulator.laws import mom, qmemman
from host_controller.simulator.laws.clairvoyant import Clairvoyant
from host_controller.simulator.laws.hyperv import equal_pressure
from host_controller.simulator.laws.proxmox import share_out
from host_controller.simulator.laws.squeezed import Squeezed
from host_controller.simulator.laws.views import GuestSight, HostSight
from host_controller.units import MIB

SEEDS = range(30)


class Case:
    """A random host in MiB, both ways."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.n = rng.randint(1, 12)
        self.maximum = np.array([rng.choice((512, 2048, 8192)) * 1.0 for _ in range(self.n)])
        self.minimum = np.full(self.n, 256.0)
        self.current = np.array([rng.uniform(256, top) for top in self.maximum])
        self.demand = np.array([rng.uniform(50, top) for top in self.maximum])
        self.total = float(self.current.sum() * rng.uniform(0.9, 1.6))
        self.used = np.minimum(self.demand, self.current)

    def hosts(self) -> Hosts:
        rows = [np.array([value]) for value in (self.minimum, self.maximum, self.current)]
        return Hosts(np.array([self.total]), *rows)

    def host(self) -> HostSight:
        free = self.total - self.current.sum()
        return HostSight(self.total * MIB, max(0.0, free) * MIB, free * MIB)

    def guests(self) -> list[GuestSight]:
        return [
            GuestSight(
                f"v{i}", self.minimum[i] * MIB, self.maximum[i] * MIB, self.current[i] * MIB,
                self.current[i] * MIB, self.current[i] * MIB, (self.current[i] - self.used[i]) * MIB,
                (self.current[i] - self.used[i]) * MIB,
            )
            for i in range(self.n)
        ]  # fmt: skip

    def after(self, targets: dict[str, float]) -> list[float]:
        return [targets.get(f"v{i}", self.current[i] * MIB) / MIB for i in range(self.n)]


def close(bulk: Hosts, plain: list[float]) -> None:
    assert bulk.current[0] == pytest.approx(plain, rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_moms_law_in_bulk_is_the_law_of_one_host(seed: int) -> None:
    case = Case(seed)
    hosts = case.hosts()
    mom_policy(hosts, case.used[None, :], np.array([case.host().available / case.host().total]))
    law = mom.Mom()
    close(hosts, case.after(law.targets(case.host(), case.guests(), 10.0)))


@pytest.mark.parametrize("seed", SEEDS)
def test_proxmoxs_share_in_bulk_is_that_of_one_host(seed: int) -> None:
    case = Case(seed)
    guests = case.guests()
    sizes = {g.name: g.current for g in guests}
    from bench.bulk_laws import _proxmox_share

    goal = (case.total - case.current.sum()) - 0.2 * case.total
    rest = share_out(guests, sizes, goal * MIB)
    everybody = np.ones((1, case.n), bool)
    bulk, bulk_rest = _proxmox_share(case.hosts(), case.current[None, :], everybody, np.array([goal]))
    assert bulk[0] == pytest.approx(case.after(sizes), abs=1e-3)
    assert bulk_rest[0] == pytest.approx(rest / MIB, abs=1e-3)


def test_proxmox_stands_still_once_a_fifth_of_the_host_is_free() -> None:
    case = Case(3)
    hosts = case.hosts()
    hosts.total = np.array([case.current.sum() / 0.8])
    bulk_proxmox(hosts, case.demand[None, :])
    close(hosts, case.current.tolist())


@pytest.mark.parametrize("seed", SEEDS)
def test_qmemmans_law_in_bulk_is_the_law_of_one_host(seed: int) -> None:
    case = Case(seed)
    law = qmemman.Qmemman()
    guests = case.guests()
    law.heard(guests)
    free = case.total - case.current.sum()
    plain = law.balance(free * MIB, guests)
    pref = np.array([[law.pref(g) / MIB for g in guests]])
    bulk = qmemman_balance(case.hosts(), pref, np.array([free]))
    assert bulk[0] == pytest.approx(case.after(dict(plain)), rel=1e-6, abs=1.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_squeezeds_law_in_bulk_is_the_law_of_one_host(seed: int) -> None:
    case = Case(seed)
    hosts = case.hosts()
    step_squeezed(hosts, case.demand[None, :])
    first = Squeezed().targets(case.host(), case.guests(), 0.0)
    for i in range(case.n):
        if f"v{i}" in first:
            assert hosts.current[0, i] == pytest.approx(first[f"v{i}"] / MIB, abs=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_hyperv_like_law_in_bulk_is_equal_pressure(seed: int) -> None:
    case = Case(seed)
    hosts = case.hosts()
    step_hyperv(hosts, case.demand[None, :])
    wanted = [d * 1.2 * MIB for d in case.demand]
    plain = equal_pressure(case.guests(), wanted, case.total * MIB)
    close(hosts, [size / MIB for size in plain])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_clairvoyant_in_bulk_is_that_of_one_host(seed: int) -> None:
    case = Case(seed)
    hosts = case.hosts()
    step_clairvoyant(hosts, case.demand[None, :])
    law = Clairvoyant(lambda name, _: float(case.demand[int(name[1:])]) * MIB)
    close(hosts, case.after(law.targets(case.host(), case.guests(), 0.0)))


@pytest.mark.parametrize("seed", SEEDS)
def test_our_claims_are_those_of_demand(seed: int) -> None:
    rng = random.Random(seed)
    usable, top = rng.uniform(300, 9000), 16384.0
    held = rng.uniform(100, usable)
    facts = GuestFacts(
        0.0, "b", 1, True, int(usable * MIB), int((usable - held) * MIB), 0, 0, int(usable * MIB), 0, 0, 0,
        64 * MIB,
    )  # fmt: skip
    demand = Demand()
    demand.observe(facts)
    found = demand.estimate(Limits(512 * MIB, 256 * MIB, int(top) * MIB), 0.0)
    assert found is not None
    lower, desired = claims_mib(np.array(held), np.array(usable), np.array(256.0), np.array(top))
    assert float(lower) * MIB == pytest.approx(found.irreducible_bytes, abs=8)
    assert float(lower) * MIB == pytest.approx(found.need_bytes, abs=8)
    assert float(desired) * MIB == pytest.approx(found.desired_bytes, abs=8)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_kept_ready_yields_to_need_as_in_the_engine(seed: int) -> None:
    rng = random.Random(seed)
    total, needed = rng.randrange(1, 1 << 18), rng.randrange(1, 1 << 18)
    plain = budget_bytes(total * MIB, total * MIB // LEAST_SHARE, needed * MIB) / MIB
    assert float(budgets_mib(np.array(total), np.array(needed))) == pytest.approx(plain)


def test_the_host_sees_as_free_what_is_not_given_or_what_is_not_touched() -> None:
    hosts = Hosts(np.array([1000.0]), np.zeros((1, 2)), np.full((1, 2), 900.0), np.array([[300.0, 500.0]]))
    demand = np.array([[100.0, 800.0]])
    assert hosts.free(demand) == 200
    hosts.touched = True
    assert hosts.free(demand) == 400


def test_our_law_asks_the_production_balance_whenever_it_is_tight() -> None:
    case = Case(5)
    hosts, law = case.hosts(), OurLaw()
    hosts.total = np.array([case.demand.sum() * 1.05])
    law(hosts, case.demand[None, :])
    assert law.balanced == 1
    assert hosts.current.sum() <= hosts.total[0]
