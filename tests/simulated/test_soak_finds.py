"""What the soak is for: a law that breaks a rule is found on a host that nobody chose."""

import pytest

from host_controller.core.model import Settings
from host_controller.core.policy import virtio_mem_plan
from host_controller.core.policy.spare import spare_bytes, untaken_bytes
from host_controller.core.vm.record import Vm
from host_controller.simulator.scenario import Scenario
from host_controller.units import round_down
from tests.simulated.generator import swing_scenario
from tests.simulated.soak import soak


def short(seed: int) -> Scenario:
    return swing_scenario(seed, 150.0)


def test_a_law_that_takes_all_that_a_guest_can_spare_of_its_virtio_mem_at_once_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1.14 and 1.31 GiB were once taken by one command, on hosts whose demands swing by GiB."""
    careful = virtio_mem_plan.smaller_still

    def hasty(vm: Vm, excess: int, settings: Settings, now: float, squeezed: int = 0) -> int | None:
        size = careful(vm, excess, settings, now, squeezed)
        if size is None:
            return None
        spare = spare_bytes(vm) - untaken_bytes(vm) + squeezed
        step = round_down(min(excess, spare), vm.config.virtio_mem_block_bytes)
        return min(size, max(0, vm.virtio_mem.requested_bytes - step))

    monkeypatch.setattr(virtio_mem_plan, "smaller_still", hasty)
    played = (soak(1, seed, scenarios=short).violations.values() for seed in range(8))
    assert any("more than a second's inflation" in found for violations in played for found in violations)
