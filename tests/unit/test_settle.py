"""Who moves when what is fair has changed, as tables: what each VM holds and needs, and its goal; in MiB."""

import random

import pytest

from host_controller.core.policy.balance import Claims, balance, settle
from host_controller.units import MIB

ROOM = 4000


def vm(held: int, need: int, *, weight: int = 100, lower: int | None = None, raised: int = 0) -> Claims:
    """With a buffer of a fifth. raised: what its stalls ask for beyond its need."""
    lower = need if lower is None else lower
    eased, desired = need + raised, max(need + raised, need * 6 // 5)
    sizes = [size * MIB for size in (lower, need, desired, max(held, desired), eased, held)]
    return Claims(weight, *sizes)


def goals(*vms: Claims, room: int = ROOM, slack: int = 0) -> list[int]:
    fair = balance(vms, room * MIB)
    return [round(goal / MIB) for goal in settle(vms, fair, room * MIB, slack * MIB)]


@pytest.mark.parametrize(
    ("vms", "expected"),
    [
        # All have what is fair.
        ((vm(2000, 1800), vm(2000, 1800)), [2000, 2000]),
        # One has a little less buffer than is fair: not worth a command.
        ((vm(1930, 1800), vm(2070, 1800)), [1930, 2070]),
        # One has less than half of the buffer that is fair: it gets all of it.
        ((vm(1820, 1800), vm(2180, 1800)), [2000, 2000]),
        # One needs more than it has: only who has more than is fair gives.
        ((vm(1000, 1300), vm(1900, 1000), vm(1100, 1000)), [1560, 1340, 1100]),
        # What another has just freed goes to who needs it, however long it had it.
        ((vm(3000, 800), vm(1000, 2500)), [1000, 3000]),
        # It does not reach for the needs, and what cannot be taken stays: two who can bear less give.
        ((vm(2500, 2500, lower=1000), vm(1500, 2500, lower=1000)), [2000, 2000]),
    ],
)
def test_who_moves(vms: tuple[Claims, ...], expected: list[int]) -> None:
    assert goals(*vms) == pytest.approx(expected, abs=70)


def test_a_heavier_one_takes_what_a_light_one_can_do_without() -> None:
    light, heavy = vm(3000, 3000, weight=1, lower=900), vm(1000, 3000, weight=10000)
    assert goals(light, heavy) == [1000, 3000]


def test_a_host_whose_demands_breathe_is_at_rest() -> None:
    """Needs fit, buffers do not; each VM's need is another one each second, by up to 3 %."""
    rng = random.Random(1)
    held = [1000] * 4
    for _ in range(1000):
        vms = [vm(size, round(905 * rng.uniform(0.97, 1.03))) for size in held]
        assert goals(*vms) == held


def test_stalls_ask_before_buffers_and_after_needs() -> None:
    stalls, calm = vm(1000, 1000, raised=250), vm(3000, 1000)
    assert goals(stalls, calm, room=2300)[0] >= 1150
    short = vm(1500, 1800)
    assert goals(vm(1200, 1000, raised=250), short, room=2800) == [1000, 1800]


def test_slack_is_for_who_is_comfortable_and_not_for_more() -> None:
    both = vm(2050, 1800), vm(2050, 1800)
    assert goals(*both, slack=100) == [2050, 2050]
    assert goals(*both, slack=50) == [2000, 2000]


def test_what_flutters_is_not_chased_where_it_does_not_fit() -> None:
    restless = vm(1900, 2000)._replace(flutter=200 * MIB)
    assert goals(restless, vm(2100, 2050)) == [1900, 2100]
    assert goals(restless, vm(2100, 1500))[0] >= 2000, "where it fits it is given"
