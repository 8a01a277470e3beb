"""What the soak is for: a law that breaks a rule is found on a host that nobody chose."""

from functools import partial

import pytest

from host_controller.core.accounts import Account
from host_controller.core.grants import round as grant_round
from host_controller.core.grants.purse import Purse
from host_controller.core.model import Settings
from host_controller.core.policy import virtio_mem_plan
from host_controller.core.policy.spare import spare_bytes, untaken_bytes
from host_controller.core.vm.record import Vm
from host_controller.units import round_down
from tests.simulated.generator import swing_scenario
from tests.simulated.soak import soak


def is_found(what: str, seeds: range, seconds: float) -> bool:
    """On one of these hosts, whose demands swing by GiB. It ends with the first."""
    hosts = partial(swing_scenario, seconds=seconds)
    played = (soak(1, seed, scenarios=hosts).violations.values() for seed in seeds)
    return any(what in found for violations in played for found in violations)


def test_a_law_that_takes_all_that_a_guest_can_spare_of_its_virtio_mem_at_once_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1.14 and 1.31 GiB were once taken by one command."""
    careful = virtio_mem_plan.smaller_still

    def hasty(
        vm: Vm, excess: int, settings: Settings, now: float, squeezed: int = 0, least_bytes: int = 0
    ) -> int | None:
        size = careful(vm, excess, settings, now, squeezed, least_bytes)
        if size is None:
            return None
        spare = spare_bytes(vm) - untaken_bytes(vm) + squeezed
        step = round_down(min(excess, spare), vm.config.virtio_mem_block_bytes)
        return min(size, max(0, vm.virtio_mem.requested_bytes - step))

    monkeypatch.setattr(virtio_mem_plan, "smaller_still", hasty)
    assert is_found("more than a second's inflation", range(8), 150.0)


def test_a_law_that_works_no_overdraft_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of 4.9 and 1.2 GiB once lasted for 181 and 200 s."""
    works_off = grant_round.shrink

    def idle(vm: Vm, purse: Purse, account: Account, goal: int) -> None:
        if purse.headroom_bytes >= 0:
            works_off(vm, purse, account, goal)
        else:
            purse.wait(vm, goal, "others need it", "nothing")

    monkeypatch.setattr(grant_round, "shrink", idle)
    assert is_found("guests could spare it", range(5, 10), 420.0)
