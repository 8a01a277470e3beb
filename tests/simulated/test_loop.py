"""The whole loop, engine and guests: it comes to rest where it should, from anywhere, and then is silent."""

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.core.policy.plan import grow_dead_band, shrink_dead_band
from host_controller.core.vm.demand import margin_bytes
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

MOVES = (hv.SetTarget, hv.AttachDimm, hv.DetachDimm, hv.ResizeVirtioMem, hv.SendToGuest)


@st.composite
def guests(draw: st.DrawFn) -> list[GuestSpec]:
    found = []
    for i in range(draw(st.integers(1, 6))):
        minimum = draw(st.sampled_from((256, 384, 512))) * MIB
        startup = minimum + draw(st.integers(0, 8)) * 128 * MIB
        maximum = startup + draw(st.integers(0, 16)) * 128 * MIB
        uses = draw(st.integers(16, max(17, maximum // MIB - 300))) * MIB
        found.append(
            GuestSpec(
                f"vm{i}",
                Limits(startup, minimum, maximum, weight=draw(st.sampled_from((10, 100, 1000)))),
                growth=draw(st.sampled_from(Growth)),
                workload=Workload(steady(uses)),
            )
        )
    return found


def host(specs: list[GuestSpec], share: float) -> World:
    whole = sum(spec.limits.maximum_bytes + 128 * MIB for spec in specs)
    largest = max(spec.config().boot_ram_bytes for spec in specs) + 256 * MIB
    world = World(int(max(whole * share, largest)), check=False)
    for spec in specs:
        world.define(spec)
    return world


class Counter:
    """Counts commands that move memory."""

    def __init__(self) -> None:
        self.said: list[hv.Command] = []

    def submitted(self, command: hv.Command) -> None:
        if isinstance(command, MOVES):
            self.said.append(command)

    def delivered(self, event: hv.HypervisorEvent) -> None:
        pass

    def happened(self, kind: str, vm: str) -> None:
        pass


@settings(max_examples=12, deadline=None)
@given(guests())
def test_a_steady_system_issues_no_command_in_an_hour(specs: list[GuestSpec]) -> None:
    world = host(specs, 1.0)
    world.control(lambda capacity: Engine(Settings(capacity)))
    for spec in specs:
        world.start(spec.name)
    world.run(1800.0)
    counter = Counter()
    world.hypervisor.witnesses.append(counter)
    world.run(3600.0)
    assert counter.said == []


@settings(max_examples=12, deadline=None)
@given(guests(), st.data())
def test_from_any_state_everybody_comes_to_have_what_it_needs(
    specs: list[GuestSpec], data: st.DataObject
) -> None:
    world = host(specs, 1.0)
    for spec in specs:
        world.start(spec.name)
    world.run(30.0)
    for spec in specs:
        vm = world.vm(spec.name)
        low = int(vm.memory.usable - vm.memory.available) + 32 * MIB
        vm.set_target(data.draw(st.integers(min(low, vm.ram_bytes), vm.ram_bytes)))
    world.run(10.0)
    # Who had nothing left before anybody came cannot place a DIMM's page structures
    # (fact: page-structures-need-memory).
    assume(all(world.vm(spec.name).memory.available > 8 * MIB for spec in specs))
    world.control(lambda capacity: Engine(Settings(capacity)))
    world.run(400.0)
    for spec in specs:
        vm = world.vm(spec.name)
        usable, limits = vm.memory.usable, spec.limits
        demand = usable - vm.memory.available
        desired = min(
            limits.maximum_bytes, max(limits.minimum_bytes, 1.2 * demand + margin_bytes(int(usable)))
        )
        assert vm.memory.unmet < MIB
        assert usable >= desired - grow_dead_band(int(desired)) - 130 * MIB
        assert usable <= limits.maximum_bytes + MIB


def test_an_excess_is_given_back_within_two_minutes() -> None:
    spec = GuestSpec(
        "a", Limits(512 * MIB, 256 * MIB, 4 * GIB), growth=Growth.BALLOON, workload=Workload(steady(2 * GIB))
    )
    world = World(8 * GIB, check=False)
    world.control(lambda capacity: Engine(Settings(capacity)))
    world.add(spec)
    world.run(120.0)
    assert world.vm("a").memory.usable > 2.4 * GIB
    world.work("a", replace(spec.workload, anonymous=steady(64 * MIB)))
    world.run(150.0)
    vm = world.vm("a")
    desired = max(256 * MIB, 1.2 * (vm.memory.usable - vm.memory.available) + 24 * MIB)
    assert vm.memory.usable <= desired + shrink_dead_band(int(vm.memory.usable)) + 16 * MIB


def test_equal_guests_that_both_want_all_come_to_have_the_same_within_a_block() -> None:
    world = World(4 * GIB, check=False)
    world.control(lambda capacity: Engine(Settings(capacity, overhead_floor_bytes=0)))
    limits = Limits(512 * MIB, 256 * MIB, 3584 * MIB)
    for name in "ab":
        world.add(GuestSpec(name, limits, workload=Workload(steady(3400 * MIB)), overhead_bytes=0))
    world.run(240.0)
    a, b = (world.vm(name).memory.usable for name in "ab")
    assert abs(a - b) <= 128 * MIB
