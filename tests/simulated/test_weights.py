"""Weights that are changed while memory is short count from that moment on, and break no rule."""

from dataclasses import replace

import pytest

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

LIMITS = Limits(1 * GIB, 512 * MIB, 3 * GIB, 100, weight=100)
"""Each wants a buffer of all that it uses, and the host has half of that."""


@pytest.mark.parametrize("growth", list(Growth))
def test_weights_changed_while_buffers_do_not_fit_are_followed_and_changed_back(growth: Growth) -> None:
    world = World(3 * GIB)
    engine = world.control(lambda capacity: Engine(Settings(capacity)))
    assert isinstance(engine, Engine)
    for name in ("a", "b"):
        world.add(GuestSpec(name, LIMITS, growth, workload=Workload(steady(700 * MIB))))
    world.run(120.0)
    first, second = engine.state.vms.values()
    for heavy, light in (("a", "b"), ("b", "a"), ("a", "b")):
        world.limit(heavy, replace(LIMITS, weight=10_000))
        world.limit(light, replace(LIMITS, weight=1))
        world.run(60.0)
        by_name = {vm.name: vm.assigned_bytes for vm in (first, second)}
        assert by_name[heavy] > by_name[light] + 128 * MIB
        assert not world.violations
