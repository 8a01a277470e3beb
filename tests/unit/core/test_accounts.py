"""What every VM costs and asks for in sum, and how that is laid out."""

import pytest

from host_controller.core.accounts import Account, Accounts
from host_controller.core.books.ledger import LASTING_SECONDS, Ledger
from host_controller.core.budget import Budget
from host_controller.core.model import HostFacts
from host_controller.core.operator_events import Reserve
from host_controller.core.policy.balance import Claims
from host_controller.core.state import State
from host_controller.units import MIB
from tests.support import build


def claims(need_mib: int, desired_mib: int | None = None) -> Claims:
    desired = need_mib if desired_mib is None else desired_mib
    return Claims(100, *(size * MIB for size in (need_mib, need_mib, need_mib, need_mib, desired, desired)))


def account(need_mib: int | None = None, **changes: int) -> Account:
    sizes = {"guest_charge": 0, "fixed": 0, "growth": 0, "next_dimm": 0, "granted_bytes": 0}
    sizes |= {name: mib * MIB for name, mib in changes.items()}
    return Account(**sizes, claims=None if need_mib is None else claims(need_mib))


def test_a_changed_account_corrects_the_sums_by_its_difference() -> None:
    books = Accounts()
    books.charge("web", 500 * MIB)
    books.charge("db", 300 * MIB)
    books.enter("web", account(200, fixed=10, growth=5, next_dimm=128))
    books.enter("db", account(100, fixed=20, growth=7))
    assert (books.charged_bytes, books.fixed_bytes, books.growth_bytes) == (800 * MIB, 30 * MIB, 12 * MIB)
    assert (books.needed_bytes, books.next_dimm_bytes) == (300 * MIB, 128 * MIB)
    books.charge("web", 600 * MIB)
    books.enter("web", account(250, fixed=15, growth=1, next_dimm=256))
    assert (books.charged_bytes, books.fixed_bytes, books.growth_bytes) == (900 * MIB, 35 * MIB, 8 * MIB)
    assert (books.needed_bytes, books.next_dimm_bytes) == (350 * MIB, 256 * MIB)


def test_what_is_owed_is_summed() -> None:
    books = Accounts()
    for vm, owed_mib, sum_mib in (("web", 30, 30), ("db", 50, 80), ("web", 10, 60), ("db", 0, 10)):
        books.enter(vm, account(owed=owed_mib))
        assert books.owed_bytes == sum_mib * MIB
    books.close("web")
    assert books.owed_bytes == 0


def test_what_noise_asks_for_is_summed_and_what_is_kept_for_bursts_yields_to_it() -> None:
    books = Accounts()
    for vm, peaks_mib, sum_mib in (("web", 30, 30), ("db", 50, 80), ("web", 10, 60)):
        books.enter(vm, account(100, peaks=peaks_mib))
        assert books.peaks_bytes == sum_mib * MIB
    books.close("web")
    assert books.peaks_bytes == 50 * MIB
    loud, _ = laid_out(1000, keep_ready_mib=500, web=(400, entry(400, 900, peaks=450)))
    quiet, _ = laid_out(1000, keep_ready_mib=500, web=(400, entry(400, 900)))
    assert (quiet.budget_bytes, loud.budget_bytes) == (500 * MIB, 550 * MIB)


def test_the_largest_next_dimm_is_kept_and_goes_when_nobody_wants_it() -> None:
    books = Accounts()
    books.enter("web", account(next_dimm=128))
    books.enter("db", account(next_dimm=256))
    assert books.next_dimm_bytes == 256 * MIB
    books.enter("db", account())
    assert books.next_dimm_bytes == 128 * MIB
    books.enter("web", account())
    books.enter("web", account())
    assert books.next_dimm_bytes == 0


def test_a_vm_that_cannot_be_moved_has_no_claims_and_each_change_of_claims_is_counted() -> None:
    books = Accounts()
    books.enter("web", account())
    assert (books.changes, books.claims) == (0, {})
    books.enter("web", account(200))
    books.enter("web", account(200, fixed=10))
    assert (books.changes, books.claims) == (1, {"web": claims(200)})
    books.enter("web", account(fixed=10))
    assert (books.changes, books.claims, books.needed_bytes) == (2, {}, 0)


def test_weights_are_summed_of_what_can_be_moved() -> None:
    books = Accounts()
    assert books.weights == 0
    books.enter("web", account(200))
    books.enter("db", account(200)._replace(claims=claims(200)._replace(weight=50)))
    books.enter("frozen", account())
    assert books.weights == 150
    books.enter("db", account(200)._replace(claims=claims(200)._replace(weight=70)))
    assert books.weights == 170
    books.enter("web", account())
    assert books.weights == 70
    books.close("db")
    assert books.weights == 0


def test_a_vm_that_is_gone_leaves_nothing_behind_also_one_that_was_never_there() -> None:
    books = Accounts()
    books.charge("web", 500 * MIB)
    books.enter("web", account(200, fixed=10, growth=5, next_dimm=128, granted_bytes=300))
    books.close("web")
    books.close("stranger")
    assert (books.of, books.charges, books.claims) == ({}, {}, {})
    assert (books.charged_bytes, books.fixed_bytes, books.growth_bytes, books.needed_bytes) == (0, 0, 0, 0)
    assert books.next_dimm_bytes == 0


@pytest.mark.parametrize(
    ("granted_mib", "goal_kib", "missing_kib", "found"),
    [
        (400, 400 << 10, 0, None),
        (400, (404 << 10) + 1, 4097, "far"),  # 1/128 is less than 4 MiB
        (400, 404 << 10, 4096, None),
        (400, 396 << 10, 0, None),
        (400, (396 << 10) - 1, 0, "near"),
        (400, (400 << 10) - (400 << 10) // 24 - 1, 0, "far"),
        (400, (400 << 10) - (400 << 10) // 24 + 1, 0, "near"),
        (2560, (2560 << 10) + (20 << 10), 20 << 10, None),
        (2560, (2560 << 10) + (20 << 10) + 1, (20 << 10) + 1, "far"),
        (2560, (2560 << 10) - (20 << 10), 0, "little"),
        (2560, (2556 << 10) - 1, 0, "little"),
        (2560, 2556 << 10, 0, None),
        (2560, (2560 << 10) - (20 << 10) - 1, 0, "near"),
    ],
)
def test_who_is_away_from_its_goal_is_found_beyond_a_dead_band(
    granted_mib: int, goal_kib: int, missing_kib: int, found: str | None
) -> None:
    books = Accounts()
    books.enter("web", account(granted_bytes=granted_mib))
    away = books.away_from({"web": goal_kib << 10})
    assert (away.missing, away.lacking) == (missing_kib << 10, 0)
    assert (away.far, away.near, away.little) == tuple(
        ["web"] * (found == kind) for kind in ("far", "near", "little")
    )


@pytest.mark.parametrize(
    ("need_mib", "goal_mib", "lacking_mib"),
    [(450, 420, 20), (410, 420, 10), (400, 420, 0), (450, 404, 0)],  # what is worth no command lacks nobody
)
def test_of_what_is_missing_a_vm_lacks_what_it_needs(need_mib: int, goal_mib: int, lacking_mib: int) -> None:
    books = Accounts()
    books.enter("web", account(need_mib, granted_bytes=400))
    assert books.away_from({"web": goal_mib * MIB}).lacking == lacking_mib * MIB


def test_one_that_is_where_it_should_be_hides_nobody_after_it() -> None:
    books = Accounts()
    for name in ("calm", "web", "db"):
        books.enter(name, account(granted_bytes=400))
    goals = {"calm": 400 * MIB, "web": 500 * MIB, "db": 520 * MIB}
    assert books.away_from(goals) == (220 * MIB, 0, ["web", "db"], [], [])


# --- the budget ---


def laid_out(
    capacity_mib: int = 2000,
    *,
    keep_ready_mib: int = 0,
    prepare: object = None,
    **accounts: tuple[int, Account],
) -> tuple[Budget, State]:
    settings = build.settings(capacity_mib, keep_ready_bytes=keep_ready_mib * MIB)
    state, budget = State(settings, Ledger(settings)), Budget(settings.capacity_bytes)
    for name, (charge_mib, entry) in accounts.items():
        budget.accounts.charge(name, charge_mib * MIB)
        budget.accounts.enter(name, entry)
    if callable(prepare):
        prepare(state)
    budget.allot(state, 10.0)
    return budget, state


def entry(granted_mib: int, desired_mib: int, **more: int) -> Account:
    return account(0, granted_bytes=granted_mib, **more)._replace(claims=claims(100, desired_mib))


def test_before_anything_is_known_all_of_the_capacity_is_free() -> None:
    budget = Budget(500 * MIB)
    assert (budget.headroom_bytes, budget.goals, budget.budget_bytes) == (500 * MIB, {}, 0)
    assert (budget.ready_bytes, budget.waiting_bytes, budget.too_far) == (0, 0, set())
    assert not budget.scarce


def test_what_is_fixed_promised_wanted_and_kept_is_not_laid_out() -> None:
    def promise(state: State) -> None:
        state.ledger.reservations["new"] = Reserve("new", 300 * MIB, 100.0)
        state.ledger.room_wanted["other"] = 150 * MIB

    web = entry(400, 3000, fixed=64, next_dimm=128)
    budget, _ = laid_out(keep_ready_mib=50, prepare=promise, web=(464, web))
    assert budget.ready_bytes == 50 * MIB
    assert budget.budget_bytes == (2000 - 300 - 150 - 64 - 128 - 50) * MIB
    assert budget.goals == {"web": pytest.approx(budget.budget_bytes, abs=1)}
    assert budget.headroom_bytes == (2000 - 300 - 464) * MIB, "who waits to start has been promised nothing"


def test_others_are_shrunk_for_a_vm_that_waits_to_start() -> None:
    def want(state: State) -> None:
        state.ledger.room_wanted["new"] = 700 * MIB

    budget, _ = laid_out(prepare=want, web=(1500, entry(1500, 1500)))
    assert budget.goals == {"web": 1300 * MIB}
    assert budget.waiting_bytes == 200 * MIB
    assert budget.scarce
    assert budget.too_far == {"web"}


def test_growth_waits_for_what_is_missing_beyond_what_is_free() -> None:
    budget, _ = laid_out(web=(1000, entry(1000, 1300)), db=(900, entry(900, 700)))
    assert budget.goals == {"web": 1300 * MIB, "db": 700 * MIB}
    assert budget.waiting_bytes == (300 - 100) * MIB
    budget, _ = laid_out(3000, web=(1000, entry(1000, 1300)))
    assert (budget.waiting_bytes, budget.scarce) == (0, False)


@pytest.mark.parametrize(
    ("stalls", "goals_mib", "starved"),
    [
        (("web",), (1300, 700), True),
        (("db",), (1300, 700), False),  # it is to have less
        (("web",), (1000, 700), False),  # it has what it is to have
        ((), (1300, 700), False),
    ],
)
def test_somebody_starves_who_stalls_and_is_to_have_more(
    stalls: tuple[str, ...], goals_mib: tuple[int, int], starved: bool
) -> None:
    entries = {"web": entry(1000, goals_mib[0]), "db": entry(900, goals_mib[1])}
    told = {name: (1000, one._replace(stalls=name in stalls)) for name, one in entries.items()}
    budget, _ = laid_out(**told)
    assert budget.starved is starved


def test_in_an_overdraft_memory_is_scarce_though_nobody_waits() -> None:
    budget, _ = laid_out(1000, web=(1001, entry(900, 900)))
    assert budget.headroom_bytes == -MIB
    assert budget.scarce
    exactly, _ = laid_out(1000, web=(1000, entry(900, 900)))
    assert (exactly.headroom_bytes, exactly.scarce) == (0, False)


def test_who_has_a_little_too_much_is_looked_at_only_while_memory_is_scarce() -> None:
    web = entry(400, 390)
    assert laid_out(web=(400, web))[0].too_far == set()
    assert laid_out(1000, web=(1100, web))[0].too_far == {"web"}


def test_in_an_emergency_nobody_is_given_more_than_all_need() -> None:
    def alarm(state: State) -> None:
        facts = HostFacts(1.0, 4000 * MIB, 10 * MIB)
        assert state.emergency.observe(facts, 500 * MIB)

    budget, _ = laid_out(prepare=alarm, web=(400, entry(400, 900)))
    assert budget.budget_bytes == 100 * MIB
    assert budget.goals == {"web": 100 * MIB}


def test_a_capacity_that_is_used_up_lays_out_nothing_and_no_less() -> None:
    def nothing(state: State) -> None:
        state.ledger.unmanaged_bytes = 5000 * MIB

    budget, _ = laid_out(prepare=nothing, web=(400, entry(400, 900)))
    assert budget.budget_bytes == 0


def test_goals_are_worked_out_anew_when_claims_or_the_budget_change() -> None:
    budget, state = laid_out(web=(400, entry(400, 500)))
    assert budget.goals == {"web": 500 * MIB}
    budget.accounts.enter("web", entry(400, 600))
    budget.allot(state, 11.0)
    assert budget.goals == {"web": 600 * MIB}
    state.ledger.unmanaged_bytes = 1500 * MIB
    budget.allot(state, 12.0)
    assert budget.goals == {"web": 500 * MIB}


@pytest.mark.parametrize(
    ("needs_mib", "size_mib", "goals_mib"),
    [
        (1040, 128, (1128, 864)),  # 8 MiB beyond it are left, as what others cost changes a little
        (1000, 128, (1000, 1000)),  # it lacks nothing
        (1128, 128, (1128, 872)),  # it lacks all of it by itself
        (1040, 250, (1250, 742)),
        (1040, 251, (1040, 960)),  # too much is asked of others for so little
    ],
)
def test_who_lacks_a_part_of_a_dimm_for_long_needs_all_of_it(
    needs_mib: int, size_mib: int, goals_mib: tuple[int, int]
) -> None:
    """Nobody has any memory to spare, and the other one, which has 1000 MiB, too, can put 500 MiB away."""
    swaps = Claims(1, 500 * MIB, *(1000 * MIB for _ in range(5)))
    heavy = account(needs_mib, granted_bytes=1000)
    light = account(granted_bytes=1000)._replace(claims=swaps)
    budget, state = laid_out(web=(1000, heavy), db=(1000, light))
    state.vms.update(web=build.vm(), db=build.vm())
    budget.dimms_wanted.note({"web": size_mib * MIB, "gone": 128 * MIB}, 8.0)
    budget.allot(state, 10.0)
    assert tuple(round(budget.goals[name] / MIB) for name in ("web", "db")) == goals_mib
    budget.dimms_wanted.note({}, 10.0)
    budget.allot(state, 11.0)
    assert tuple(round(budget.goals[name] / MIB) for name in ("web", "db")) == (needs_mib, 2000 - needs_mib)


def test_in_an_emergency_nobody_is_squeezed_for_a_dimm() -> None:
    """Nothing is plugged then."""
    budget, state = laid_out(1900, web=(1000, account(1040, granted_bytes=1000)))
    state.vms["web"] = build.vm()
    budget.dimms_wanted.note({"web": 128 * MIB}, 8.0)
    assert state.emergency.observe(HostFacts(1.0, 4000 * MIB, 10 * MIB), 500 * MIB)
    budget.allot(state, 10.0)
    assert budget.goals == {"web": 1040 * MIB}


def test_growth_of_all_is_kept_ready_for_unless_the_operator_said_how_much() -> None:
    settings = build.settings(2048)
    state, budget = State(settings, Ledger(settings)), Budget(settings.capacity_bytes)
    budget.accounts.enter("web", entry(400, 500, growth=100))
    budget.allot(state, 10.0)
    assert budget.ready_bytes == 100 * MIB


@pytest.mark.parametrize(
    ("needed_mib", "said_mib", "ready_mib"),
    [
        (500, None, 100),  # a second of growth
        (1848, None, 100),
        (1908, None, 70),  # the needs leave 140: half for bursts, half for buffers
        (2048, None, 0),
        (3000, None, 0),
        (1908, 100, 100),  # the operator has said it
        (3000, 100, 100),
    ],
)
def test_bursts_have_no_more_than_half_of_what_the_needs_leave_unless_the_operator_says_so(
    needed_mib: int, said_mib: int | None, ready_mib: int
) -> None:
    settings = build.settings(2048, keep_ready_bytes=None if said_mib is None else said_mib * MIB)
    state, budget = State(settings, Ledger(settings)), Budget(settings.capacity_bytes)
    budget.accounts.enter("web", account(needed_mib, granted_bytes=400, growth=100))
    budget.allot(state, 10.0)
    assert budget.ready_bytes == ready_mib * MIB


def test_after_grants_and_for_a_vm_that_is_gone_the_budget_is_looked_at_again() -> None:
    budget, state = laid_out(web=(400, entry(400, 500)), db=(400, entry(400, 500)))
    budget.accounts.charge("web", 700 * MIB)
    budget.look_again(state.ledger)
    assert budget.headroom_bytes == 900 * MIB
    budget.forget("web")
    budget.forget("stranger")
    assert set(budget.goals) == {"db"}
    assert set(budget.accounts.of) == {"db"}


@pytest.mark.parametrize(("began", "too_far"), [(10.0 - LASTING_SECONDS, {"web"}), (9.9, set())])
def test_in_an_overdraft_that_lasts_a_mib_too_much_is_too_much(began: float, too_far: set[str]) -> None:
    def overdraw(state: State) -> None:
        state.ledger.record(-MIB, "web was reset", began)

    budget, _ = laid_out(1000, prepare=overdraw, web=(1001, entry(391, 390)))
    assert budget.too_far == too_far


@pytest.mark.parametrize(("charge_mib", "headroom_mib"), [(500, 1100), (1700, 0), (2000, 0), (2100, -100)])
def test_what_is_owed_is_neither_laid_out_nor_granted_and_is_no_overdraft(
    charge_mib: int, headroom_mib: int
) -> None:
    budget, _ = laid_out(2000, web=(charge_mib, account(300, owed=400)))
    assert budget.budget_bytes == 1600 * MIB
    assert budget.headroom_bytes == headroom_mib * MIB
