"""Differences that are not worth a command are given where they make the DIMM that somebody waits for."""

from typing import Any

import pytest

from host_controller.core.accounts import Accounts
from host_controller.core.books.ledger import Ledger
from host_controller.core.policy.givers import PATIENCE_SECONDS, WHOLE_SECONDS, Candidate, DimmsWanted
from host_controller.core.state import State
from host_controller.core.upkeep import weigh
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.record import Vm
from host_controller.units import MIB
from tests.support import build

NOW = 10.0


def guest(name: str, usable_mib: int = 300, spare_mib: int = 100, **changes: Any) -> Vm:
    """With so much available beyond its margin, and heard just now."""
    facts = build.facts(usable_mib, usable_mib - spare_mib - 16, at=changes.pop("heard_at", NOW))
    told = {"facts": facts, "demand": Demand(last=facts), "reported_at": NOW, "booted_at": -1000.0}
    actual = changes.pop("actual_mib", usable_mib)
    vm = build.vm(actual, config={"name": name, "uuid": f"uuid-of-{name}"}, **told | changes)
    vm.guest.work_out(vm.config.limits, NOW)
    return vm


def candidates(*found: tuple[Vm, int]) -> list[Candidate]:
    """VMs, and how much more than it has the balance gives each."""
    settings = build.settings()
    state = State(settings, Ledger(settings), {vm.config.uuid: vm for vm, _ in found})
    accounts = Accounts()
    for vm, _ in found:
        weigh(vm, state, accounts, NOW)
    made = []
    for vm, more in found:
        one = accounts.of[vm.config.uuid]
        made.append(Candidate(vm, one.guest_charge, one.granted_bytes, one.granted_bytes + more * MIB))
    return made


def waited(seconds: float = PATIENCE_SECONDS, **wanted_mib: int) -> DimmsWanted:
    wanted = DimmsWanted()
    wanted.note({build.config(name).uuid: size * MIB for name, size in wanted_mib.items()}, NOW - seconds)
    return wanted


def named(*names: str) -> frozenset[str]:
    return frozenset(build.config(name).uuid for name in names)


@pytest.mark.parametrize(
    ("free_mib", "excesses_mib", "gives"),
    [
        (90, (20, 30), ("a", "b")),
        (108, (20, 30), ("b",)),  # as few as will do
        (77, (20, 30), ()),  # 127 MiB are no DIMM
        (-500, (20, 30), ()),
        (128, (20, 30), ()),
        (125, (3, 3), ()),  # less than is worth asking for
    ],
)
def test_those_give_who_together_make_a_dimm_and_else_nobody(
    free_mib: int, excesses_mib: tuple[int, int], gives: tuple[str, ...]
) -> None:
    taker = guest("web", spare_mib=0)
    others = [(guest(name), -excess) for name, excess in zip("ab", excesses_mib, strict=True)]
    found = waited(web=128).givers(candidates((taker, 60), *others), free_mib * MIB, NOW)
    assert found == named(*gives)


def test_a_wait_that_has_just_begun_or_is_over_is_no_reason() -> None:
    two = candidates((guest("web"), 60), (guest("a"), -50))
    headroom = 90 * MIB
    assert waited(web=128).givers(two, headroom, NOW) == named("a")
    assert not waited(PATIENCE_SECONDS - 0.1, web=128).givers(two, headroom, NOW)
    assert not waited(db=128).givers(two, headroom, NOW), "db is not there any more, or cannot be moved"
    again = waited(web=128)
    again.note({build.config("web").uuid: 128 * MIB}, NOW)
    assert again.givers(two, headroom, NOW) == named("a"), "it goes on waiting"
    again.note({}, NOW)
    assert not again
    has_enough = candidates((guest("web"), 0), (guest("a"), -50))
    assert not waited(web=128).givers(has_enough, headroom, NOW), "it does not give to itself either"


def test_the_smallest_dimm_that_somebody_waits_for_comes_first() -> None:
    three = candidates((guest("web"), 60), (guest("db"), 300), (guest("a"), -50))
    assert waited(web=128, db=256).givers(three, 90 * MIB, NOW) == named("a")


@pytest.mark.parametrize("changes", [{"spare_mib": 30}, {"stuck_until": NOW + 1}, {"heard_at": NOW - 60}])
def test_what_a_guest_cannot_give_now_makes_no_dimm(changes: dict[str, Any]) -> None:
    two = candidates((guest("web"), 60), (guest("a", **changes), -50))
    assert not waited(web=128).givers(two, 90 * MIB, NOW)


def test_who_has_waited_for_long_is_named_with_its_dimm() -> None:
    found = waited(WHOLE_SECONDS, web=128, db=256).lasting(NOW)
    assert found == {"uuid-of-web": 128 * MIB, "uuid-of-db": 256 * MIB}
    assert waited(WHOLE_SECONDS - 0.1, web=128).lasting(NOW) == {}


def test_what_has_been_asked_for_already_is_not_asked_of_others_again() -> None:
    leaving = guest("a", target_bytes=260 * MIB)
    three = candidates((guest("web"), 60), (leaving, 0), (guest("b"), -50))
    assert waited(web=128).givers(three, 60 * MIB, NOW) == named("b")
    assert not waited(web=128).givers(three, 88 * MIB, NOW), "40 MiB are on their way"
