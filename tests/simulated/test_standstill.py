"""A VM that is reset while memory is short stands still until there is room, for a bounded time."""

from dataclasses import dataclass, replace

import pytest

from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Limits, RunState, Settings
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.hypervisor import Witness
from host_controller.simulator.memory import Speeds
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import MIB

LIMITS = Limits(512 * MIB, 192 * MIB, 1024 * MIB)
CAPACITY = 1280 * MIB
OVERHEAD = 64 * MIB
SLOW = 50 * MIB


@dataclass
class Host:
    """Two guests where there is room for the RAM of one and a half."""

    world: World
    taker: SimulatedVm
    other: SimulatedVm
    engines: list[Engine]

    @property
    def engine(self) -> Engine:
        return self.engines[-1]

    def notices(self) -> list[str]:
        return [one.text for one in self.engine.notices()]

    def until(self, what: str, condition: object, limit: float = 30.0) -> float:
        """Seconds until it held, at most 50 ms too many."""
        began = self.world.now
        while not condition():  # type: ignore[operator] # a lambda without arguments
            assert self.world.now - began < limit, what
            self.world.run(0.05)
        return self.world.now - began


def host(other_mib: int = 400, **settings: float) -> Host:
    """`web` is idle and squeezed; `db` has grown to what its work takes."""
    world = World(CAPACITY)
    engines: list[Engine] = []

    def make(capacity: int) -> Engine:
        timing = {"shrink_after_seconds": 5.0, "settle_seconds": 1.0, "keep_ready_bytes": 0} | settings
        engines.append(Engine(Settings(capacity, **timing)))  # type: ignore[arg-type] # as they come
        return engines[-1]

    world.control(make)
    for name in ("web", "db"):
        spec = GuestSpec(name, LIMITS, workload=Workload(steady(50 * MIB)), overhead_bytes=OVERHEAD)
        world.add(replace(spec, speeds=replace(Speeds(), inflate=SLOW)))
    world.run(60.0)
    world.work("db", Workload(steady(other_mib * MIB)))
    world.run(60.0)
    found = Host(world, world.vm("web"), world.vm("db"), engines)
    assert found.taker.actual_bytes < 300 * MIB
    found.notices()
    return found


def reset_where_room_can_be_made() -> Host:
    """`db` has just let go of what stands in the way, and has not been asked for it yet."""
    found = host(650, shrink_after_seconds=600.0)
    assert found.engine.headroom_bytes < 200 * MIB
    found.world.work("db", Workload(steady(100 * MIB)))
    found.world.run(5.0)
    found.world.reset("web")
    found.world.run(0.2)
    return found


def test_with_room_for_all_of_its_ram_a_reset_stops_nobody() -> None:
    one = host(100)
    one.world.reset("web")
    for _ in range(100):
        one.world.run(0.1)
        assert one.taker.state is RunState.RUNNING
    assert one.world.history.commands["Suspend"] == 0
    assert one.engine.ledger.overdraft is None


def test_without_room_it_stands_still_until_others_have_made_it() -> None:
    one = reset_where_room_can_be_made()
    assert one.taker.state is RunState.PAUSED
    held = one.taker.resident_bytes
    assert one.engine.ledger.overdraft is None, "what stands still takes nothing"
    assert one.engine.headroom_bytes < 0, "it is charged with all of its RAM all the same"
    took = one.until("web runs on", lambda: one.taker.state is RunState.RUNNING)
    assert took < 15.0
    assert one.taker.resident_bytes == held
    assert one.engine.headroom_bytes >= 0
    one.world.run(60.0)
    assert not one.engine.state.standstills
    assert any("runs on" in text for text in one.notices())
    assert one.world.violations == []


def test_what_cannot_be_found_in_time_is_an_overdraft_with_its_cause_and_its_end() -> None:
    one = host(700, reset_wait_seconds=6.0)
    one.world.reset("web")
    took = one.until("web stands still", lambda: one.taker.state is RunState.PAUSED)
    took += one.until("web runs on", lambda: one.taker.state is RunState.RUNNING)
    assert 5.5 < took < 7.0
    overdraft = one.engine.ledger.overdraft
    assert overdraft is not None
    assert overdraft.cause.startswith("web runs on")
    assert overdraft.peak_bytes > 20 * MIB
    one.world.work("db", Workload(steady(50 * MIB)))
    one.world.run(60.0)
    assert one.engine.ledger.overdraft is None
    assert any(text.startswith("overdraft ended") for text in one.notices())
    assert one.world.violations == []


def test_without_a_wait_nobody_stands_still() -> None:
    one = host(700, reset_wait_seconds=0.0)
    one.world.reset("web")
    one.world.run(1.0)
    assert one.world.history.commands["Suspend"] == 0
    assert one.engine.ledger.overdraft is not None


def test_whoever_lets_it_run_is_not_contradicted() -> None:
    one = reset_where_room_can_be_made()
    one.taker.resume()
    one.world.run(0.3)
    assert one.taker.state is RunState.RUNNING
    assert not one.engine.state.standstills
    assert one.engine.ledger.overdraft is not None
    assert one.world.history.commands["Suspend"] == 1
    one.world.run(60.0)
    assert one.world.violations == []


def test_a_vm_that_its_user_has_paused_and_reset_is_left_to_its_user() -> None:
    one = host(700)
    one.taker.suspend()
    one.world.run(1.0)
    one.world.reset("web")
    one.world.run(60.0)
    assert one.taker.state is RunState.PAUSED
    assert one.world.history.commands["Suspend"] == one.world.history.commands["Resume"] == 0


def test_an_operator_who_takes_our_hands_off_gets_a_running_vm() -> None:
    one = reset_where_room_can_be_made()
    [vm] = [vm for vm in one.engine.vms.values() if vm.name == "web"]
    vm.pauses.by_operator(True)
    took = one.until("web runs on", lambda: one.taker.state is RunState.RUNNING)
    assert took < 1.5


def test_an_heir_lets_run_what_the_controller_before_has_stopped() -> None:
    one = reset_where_room_can_be_made()
    one.world.kill_controller()
    one.world.run(3.0)
    assert one.taker.state is RunState.PAUSED
    one.world.restart_controller()
    took = one.until("web runs on", lambda: one.taker.state is RunState.RUNNING)
    assert took < 20.0
    one.world.run(60.0)
    assert one.world.violations == []


@pytest.mark.parametrize("heir_after", [0.1, 4.0])
def test_an_heir_lets_run_what_stops_for_the_controller_before_only_when_the_heir_is_there(
    heir_after: float,
) -> None:
    one = host(700)
    one.world.behave("web", replace(BEHAVIOURS["late QEMU"], command_seconds=3.0))
    one.world.reset("web")
    one.until("web is told to stop", lambda: one.world.history.commands["Suspend"])
    one.world.kill_controller()
    one.world.run(heir_after)
    one.world.restart_controller()
    one.until("web stands still", lambda: one.taker.state is RunState.PAUSED)
    one.until("web runs on", lambda: one.taker.state is RunState.RUNNING)
    one.world.run(60.0)
    assert not one.engine.state.standstills
    assert not [one for one in one.world.violations if one.rule == "standstill"]


def test_an_heir_waits_for_a_stop_as_long_as_qemu_hangs_and_has_it_run_on_then() -> None:
    """A QEMU that hung for two minutes stopped its VM after that, and nobody let it run again."""
    one = host(700)
    one.world.behave("web", BEHAVIOURS["dead QEMU"])
    one.world.reset("web")
    one.until("web is told to stop", lambda: one.world.history.commands["Suspend"])
    one.world.kill_controller()
    one.world.restart_controller()
    one.world.run(100.0)
    [(_, standstill)] = one.engine.state.standstills.items()
    assert "not known yet" in standstill.describe(one.world.now)
    assert one.taker.state is RunState.RUNNING
    one.until("web stands still", lambda: one.taker.state is RunState.PAUSED)
    one.until("web is told to run on", lambda: one.world.history.commands["Resume"])


def test_an_heir_does_not_let_run_what_its_user_has_paused_since() -> None:
    one = reset_where_room_can_be_made()
    one.world.run(0.5)
    one.world.kill_controller()
    one.taker.resume()
    one.world.run(5.0)
    one.taker.suspend()
    one.world.restart_controller()
    one.world.run(60.0)
    assert one.taker.state is RunState.PAUSED
    assert any("ran after we had stopped it" in text for text in one.notices())


def test_a_vm_that_is_reset_again_while_it_stands_still_gets_no_second_wait() -> None:
    one = host(700, reset_wait_seconds=6.0)
    one.world.reset("web")
    one.world.run(4.0)
    one.world.reset("web")
    took = one.until("web runs on", lambda: one.taker.state is RunState.RUNNING)
    assert took < 3.0


def test_a_vm_that_is_stopped_too_late_is_an_overdraft_until_then_and_runs_again_in_any_case() -> None:
    one = host(700)
    one.world.behave("web", replace(BEHAVIOURS["late QEMU"], command_seconds=15.0))
    one.world.reset("web")
    one.world.run(12.0)
    assert one.engine.ledger.overdraft is not None
    one.world.run(4.0)
    assert one.taker.state is RunState.PAUSED, "late"
    one.world.run(60.0)
    assert one.taker.state is RunState.RUNNING
    assert not one.engine.state.standstills


def test_dimms_that_survived_a_reset_go_while_they_are_offline_and_before_any_smaller_target() -> None:
    one = host(100)
    one.world.work("web", Workload(steady(600 * MIB)))
    one.world.run(60.0)
    assert one.taker.dimm_list()
    one.world.work("web", Workload(steady(50 * MIB)))
    said: list[hv.Command] = []
    one.world.reset("web")

    class Watch(Witness):
        def submitted(self, command: hv.Command) -> None:
            if command.vm == one.taker.uuid:
                said.append(command)

    one.world.hypervisor.witnesses.append(Watch())
    one.world.run(60.0)
    assert not one.taker.dimm_list()
    gone = max(i for i, command in enumerate(said) if isinstance(command, hv.DetachDimm))
    first = next(i for i, c in enumerate(said) if isinstance(c, hv.SetTarget) and c.target_bytes < 512 * MIB)
    assert gone < first
    assert one.world.violations == []


def test_a_dimm_that_came_as_its_guest_was_reset_leaves_though_the_first_request_is_not_heard() -> None:
    one = host(100)
    one.world.work("web", Workload(steady(600 * MIB)))

    class Watch(Witness):
        """Resets the guest before its kernel has heard of the DIMM that was plugged."""

        def delivered(self, event: hv.HypervisorEvent) -> None:
            if isinstance(event, hv.DimmsChanged) and event.dimms and one.taker.boots == 1:
                one.world.work("web", Workload(steady(50 * MIB)))
                one.world.reset("web")

    one.world.hypervisor.witnesses.append(Watch())
    one.world.run(10.0)
    assert one.taker.boots == 2
    assert one.taker.dimm_list()
    one.world.run(50.0)
    assert not one.taker.dimm_list()
    assert one.world.violations == []


def arriving(from_host: Host, to_host: Host) -> None:
    """Somebody migrates `web` while it stands still, and the other host hears the mark that it has."""
    if from_host.taker.state is RunState.PAUSED and from_host.engine.state.standstills:
        told_with_its_mark(to_host)
    to_host.world.hypervisor.bring_back(to_host.taker, arriving=True)
    from_host.world.hypervisor.put_away(from_host.taker, "migrated away")


def told_with_its_mark(one: Host) -> None:
    """From now on `web` appears as one that a controller has stopped."""
    hypervisor = one.world.hypervisor
    deliver = hypervisor._deliver

    def with_the_mark(event: hv.HypervisorEvent) -> None:
        if isinstance(event, hv.VmAppeared) and event.vm == one.taker.uuid:
            event = replace(event, stopped_after_reset=True)
        deliver(event)

    hypervisor._deliver = with_the_mark  # type: ignore[method-assign]


def is_there(to_host: Host) -> None:
    """Its migration is over; libvirt leaves it as paused as it was."""
    to_host.taker.set_job(None)


def test_one_that_is_migrated_while_it_stands_still_is_let_run_where_it_arrives_once_it_is_there() -> None:
    here, there = reset_where_room_can_be_made(), host(100)
    there.world.hypervisor.put_away(there.taker, "it is not here yet")
    there.world.run(5.0)
    arriving(here, there)
    there.world.run(10.0)
    assert there.taker.state is RunState.PAUSED
    assert there.world.history.commands["Resume"] == 0, "libvirt would hold that until it is there"
    is_there(there)
    there.until("web runs on", lambda: there.taker.state is RunState.RUNNING, 2.0)
    here.world.run(30.0)
    there.world.run(60.0)
    assert (here.world.violations, there.world.violations) == ([], [])
    assert not here.engine.state.standstills
    assert there.engine.ledger.overdraft is None


def test_where_it_does_not_fit_either_it_stands_still_there_for_as_long_as_a_reset_may_take() -> None:
    here, there = reset_where_room_can_be_made(), host(700, reset_wait_seconds=6.0)
    there.world.hypervisor.put_away(there.taker, "it is not here yet")
    there.world.run(5.0)
    there.world.work("db", Workload(steady(800 * MIB)))
    there.world.run(30.0)
    arriving(here, there)
    is_there(there)
    took = there.until("web runs on", lambda: there.taker.state is RunState.RUNNING)
    assert 5.0 < took < 7.0
    assert there.engine.ledger.overdraft is not None


def test_what_a_controller_left_behind_here_of_a_qemu_that_is_gone_does_not_keep_it_from_running() -> None:
    """It is saved while no controller is there, and restored before the next one is."""
    one = reset_where_room_can_be_made()
    one.world.kill_controller()
    hypervisor = one.world.hypervisor
    hypervisor.put_away(one.taker, "saved")
    hypervisor.bring_back(one.taker, arriving=True)
    is_there(one)
    told_with_its_mark(one)
    one.world.restart_controller()
    one.until("web runs on", lambda: one.taker.state is RunState.RUNNING)


def test_one_that_its_user_has_paused_is_paused_where_it_arrives() -> None:
    here, there = host(100), host(100)
    there.world.hypervisor.put_away(there.taker, "it is not here yet")
    there.world.run(5.0)
    here.taker.suspend()
    here.world.run(1.0)
    arriving(here, there)
    is_there(there)
    there.world.run(60.0)
    assert there.taker.state is RunState.PAUSED
