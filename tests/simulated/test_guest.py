"""The simulated guest does what real ones were seen to do: QEMU's traps, and the kernel's ways."""

from dataclasses import replace

import pytest

from agent import codec, wire
from host_controller.core import interface as hv
from host_controller.core.model import Growth, Limits
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.memory import min_free_bytes, reserved_bytes
from host_controller.simulator.workload import Workload, ramp, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB
from lab.memory_script import read_recording

LIMITS = Limits(startup_bytes=512 * MIB, minimum_bytes=128 * MIB, maximum_bytes=4 * GIB)
QUIET = Workload(steady(8 * MIB))
SPEC = GuestSpec("a", LIMITS, workload=QUIET)


class Desk:
    """A world with one guest and a person who gives commands."""

    def __init__(self, spec: GuestSpec = SPEC, seconds: float = 20.0) -> None:
        self.world = World(64 * GIB, check=False)
        self.events: list[hv.HypervisorEvent] = []
        self.world.hypervisor.connect(self.events.append)
        self.vm: SimulatedVm = self.world.add(spec)
        self.tickets = 0
        self.run(seconds)

    def run(self, seconds: float) -> None:
        self.world.run(seconds)
        self.world.vm(self.vm.spec.name)

    def submit(self, kind: type, **fields: object) -> None:
        self.tickets += 1
        self.world.hypervisor.submit(kind(vm=self.vm.uuid, ticket=self.tickets, **fields))

    def target(self, mib: int, seconds: float = 10.0) -> None:
        self.submit(hv.SetTarget, target_bytes=mib * MIB)
        self.run(seconds)

    def say(self, message: wire.HostMessage) -> None:
        self.world.hypervisor.submit(hv.SendToGuest(self.vm.uuid, message))

    def plug(self, mib: int, zone: wire.Zone | None = "movable") -> None:
        if zone is not None:
            self.say(wire.OnlineZone(1, zone))
        self.submit(hv.AttachDimm, size_bytes=mib * MIB)
        self.run(1.0)

    def seen(self, kind: type) -> list:
        return [e for e in self.events if isinstance(e, kind)]

    def reports(self) -> list[wire.Report]:
        messages = [e.untrusted_message for e in self.seen(hv.GuestSpoke)]
        return [m for m in messages if isinstance(m, wire.Report)]

    def mib(self, name: str) -> float:
        return getattr(self.vm.memory, name) / MIB


def test_a_512_mib_guest_shows_404_and_has_about_369_available() -> None:
    desk = Desk()
    assert desk.mib("total") == pytest.approx(404, abs=1)
    assert desk.mib("available") == pytest.approx(369, rel=0.05)


def test_demand_is_usable_less_available_whatever_the_balloon_does() -> None:
    desk = Desk()
    before = desk.mib("usable") - desk.mib("available")
    desk.target(300)
    assert desk.mib("usable") == pytest.approx(300, abs=0.1)
    assert desk.mib("usable") - desk.mib("available") == pytest.approx(before, rel=0.1)


def test_an_offline_dimm_counts_as_given_by_the_balloon_and_starves_the_guest() -> None:
    desk = Desk()
    desk.plug(256, zone=None)
    assert desk.vm.offline_bytes == 256 * MIB
    desk.target(300)
    assert desk.mib("free") < 25  # fact: dimm-counts-at-once: 21 MiB were left


def test_unplugging_keeps_the_ballooned_amount() -> None:
    desk = Desk()
    desk.plug(256)
    assert desk.vm.actual_bytes == 768 * MIB
    desk.target(600)
    desk.submit(hv.DetachDimm, alias="dimm0")
    desk.run(5.0)
    assert desk.vm.ram_bytes == 512 * MIB
    assert desk.vm.actual_bytes == pytest.approx(344 * MIB, abs=MIB)  # fact: unplug-shrinks-the-guest


def test_after_a_reset_actual_is_stale_until_the_driver_is_up_and_the_guest_holds_its_ram() -> None:
    desk = Desk()
    desk.target(256)
    assert desk.vm.resident_bytes <= 256 * MIB
    desk.world.reset("a")
    desk.run(4.0)
    assert desk.vm.actual_bytes == pytest.approx(256 * MIB, abs=MIB)  # fact: actual-survives-reset
    assert desk.vm.resident_bytes >= 400 * MIB
    desk.run(30.0)
    assert desk.vm.actual_bytes == pytest.approx(256 * MIB, abs=MIB)
    assert desk.vm.resident_bytes <= 257 * MIB
    risen = [e.actual_bytes for e in desk.seen(hv.BalloonChanged) if e.actual_bytes > 400 * MIB]
    assert risen, "the new driver started from nothing ballooned, and said so"


def test_dimms_survive_a_reset_and_are_offline_then() -> None:
    desk = Desk()
    desk.plug(256)
    desk.world.reset("a")
    desk.run(20.0)
    assert desk.vm.ram_bytes == 768 * MIB
    assert desk.vm.offline_bytes == 256 * MIB


def test_a_dimm_is_online_a_sixth_of_a_second_after_it_was_plugged() -> None:
    desk = Desk()
    desk.plug(256)
    assert desk.mib("total") == pytest.approx(404 + 256, abs=1)
    assert desk.mib("memmap") == 4
    assert desk.reports()[-1].movable_bytes == 256 * MIB
    assert "hotplug" in [r.reason for r in desk.reports()[-3:]]


def test_an_agent_counts_memory_blocks_whole_of_which_a_part_is_there() -> None:
    """Linux makes a block for each section of boot RAM, however little of it there is."""
    limits = Limits(startup_bytes=576 * MIB, minimum_bytes=192 * MIB, maximum_bytes=2048 * MIB)
    desk = Desk(GuestSpec("a", limits, workload=QUIET))
    assert desk.reports()[-1].online_bytes == 640 * MIB
    desk.plug(256)
    assert desk.reports()[-1].online_bytes == (640 + 256) * MIB


def test_without_a_zone_named_new_memory_stays_offline() -> None:
    desk = Desk()
    desk.plug(256, zone=None)
    desk.run(10.0)
    assert desk.mib("total") == pytest.approx(404, abs=1)


def test_a_big_dimm_for_a_guest_with_nothing_free_hangs_it_for_25_seconds() -> None:
    desk = Desk(replace(SPEC, workload=Workload(steady(355 * MIB))))
    desk.plug(2048)
    assert not desk.vm.up  # fact: page-structures-need-memory
    said = len(desk.seen(hv.GuestSpoke))
    desk.run(20.0)
    assert len(desk.seen(hv.GuestSpoke)) == said
    desk.run(10.0)
    assert desk.vm.up


def test_a_starving_guest_keeps_two_thirds_of_its_floor_free_and_takes_one_block() -> None:
    desk = Desk(replace(SPEC, workload=Workload(steady(600 * MIB))))
    assert desk.mib("unmet") > 0
    assert desk.mib("free") == pytest.approx(desk.mib("high_mark") * 2 / 3, rel=0.01)
    before = desk.mib("unmet")
    desk.plug(128)
    assert desk.vm.up, "as a real 512 MiB guest with 7 MiB available did"
    assert desk.mib("unmet") < before - 100


def test_the_floor_is_that_of_a_debian_guest() -> None:
    desk = Desk()
    assert desk.reports()[-1].floor_bytes == pytest.approx(read_recording()[0].report.floor_bytes, rel=0.02)


@pytest.mark.parametrize(("ram_mib", "min_free_kib"), [(512, 2539), (1024, 45056), (5120, 67584)])
def test_a_kernel_keeps_free_what_debians_does(ram_mib: int, min_free_kib: int) -> None:
    # vm.min_free_kbytes of three Debian 12 guests: from 512 MiB on it keeps huge pages free in every zone.
    managed = ram_mib * MIB - reserved_bytes(ram_mib * MIB, grows=ram_mib == 512)
    assert min_free_bytes(ram_mib * MIB, managed) / 1024 == pytest.approx(min_free_kib, rel=0.02)


def test_a_dimm_that_was_plugged_as_the_guest_was_reset_leaves_at_the_second_request() -> None:
    desk = Desk()
    desk.submit(hv.AttachDimm, size_bytes=256 * MIB)
    desk.run(0.01)
    desk.world.reset("a")
    desk.run(20.0)
    desk.submit(hv.DetachDimm, alias="dimm0")
    desk.run(20.0)
    assert desk.vm.dimm_list(), "taken for the plug"
    desk.submit(hv.DetachDimm, alias="dimm0")
    desk.run(1.0)
    assert not desk.vm.dimm_list()


def test_a_dimm_in_the_kernel_zone_does_not_leave() -> None:
    desk = Desk()
    desk.plug(256, zone="kernel")
    desk.submit(hv.DetachDimm, alias="dimm0")
    desk.run(5.0)
    assert desk.vm.ram_bytes == 768 * MIB
    assert desk.seen(hv.DimmRefused)


def test_a_dimm_whose_memory_is_needed_does_not_leave() -> None:
    desk = Desk()
    desk.plug(256)
    desk.world.work("a", Workload(steady(500 * MIB)))
    desk.run(5.0)
    desk.submit(hv.DetachDimm, alias="dimm0")
    desk.run(5.0)
    assert desk.seen(hv.DimmRefused)


def test_an_unreachable_target_leaves_the_driver_out_of_puff_and_the_guest_alive() -> None:
    desk = Desk(replace(SPEC, workload=Workload(steady(200 * MIB))))
    desk.target(130)
    assert desk.vm.actual_bytes > 250 * MIB
    assert desk.mib("free") > 0
    assert desk.mib("unmet") == 0


def test_a_booting_balloon_guest_goes_to_its_startup_by_itself() -> None:
    spec = replace(SPEC, growth=Growth.BALLOON)
    desk = Desk(spec)
    assert desk.vm.ram_bytes == 4 * GIB
    assert desk.vm.actual_bytes == pytest.approx(512 * MIB, abs=MIB)


def test_the_balloon_moves_at_its_speed() -> None:
    desk = Desk(replace(SPEC, limits=replace(LIMITS, startup_bytes=4 * GIB), workload=QUIET))
    desk.submit(hv.SetTarget, target_bytes=2 * GIB)
    desk.run(1.0)
    moved = 4 * GIB - desk.vm.actual_bytes
    assert moved == pytest.approx(0.95 * GIB, rel=0.15)
    assert moved % 4096 == 0, "QEMU counts pages of 4 KiB"


def test_reclaim_takes_cache_before_it_swaps() -> None:
    spec = replace(
        SPEC, swap_bytes=256 * MIB, workload=Workload(steady(200 * MIB), stream_bytes_per_second=64 * MIB)
    )
    desk = Desk(spec, 40.0)
    assert desk.mib("cache") > 100
    desk.world.work("a", Workload(ramp(200 * MIB, 340 * MIB, desk.world.now, 2.0)))
    desk.run(5.0)
    assert desk.mib("cache") < 40
    assert desk.mib("swapped") == 0
    desk.world.work("a", Workload(ramp(340 * MIB, 480 * MIB, desk.world.now, 2.0)))
    desk.run(10.0)
    assert desk.mib("swapped") > 90


def test_a_working_set_that_does_not_fit_refaults_and_stalls_while_available_is_flat() -> None:
    desk = Desk(replace(SPEC, workload=Workload(steady(64 * MIB), steady(250 * MIB))))
    assert desk.mib("refaulted") == 0
    desk.target(330)
    desk.run(5.0)
    first, available = desk.mib("refaulted"), desk.mib("available")
    desk.run(5.0)
    assert desk.mib("refaulted") - first > 50
    assert desk.vm.memory.stall_share > 0.02
    assert abs(desk.mib("available") - available) < 2


def test_programs_that_get_nothing_are_counted_as_unmet() -> None:
    desk = Desk(replace(SPEC, workload=Workload(steady(1000 * MIB))))
    usable_for_programs = desk.mib("anon")
    assert desk.mib("unmet") == pytest.approx(1000 - usable_for_programs, abs=1)
    assert desk.vm.memory.stall_share == 1.0


def test_a_calm_agent_says_something_every_five_seconds() -> None:
    desk = Desk(seconds=40.0)
    before = len(desk.reports())
    desk.run(50.0)
    assert len(desk.reports()) - before == 10
    assert {r.reason for r in desk.reports()[before:]} == {"heartbeat"}


def test_an_agent_reports_a_growing_guest_ten_times_a_second() -> None:
    desk = Desk(seconds=40.0)
    desk.world.work("a", Workload(ramp(8 * MIB, 308 * MIB, desk.world.now, 3.0)))
    before = len(desk.reports())
    desk.run(3.0)
    assert 24 <= len(desk.reports()) - before <= 32


def test_what_an_agent_says_passes_the_wire() -> None:
    desk = Desk(replace(SPEC, swap_bytes=64 * MIB, workload=Workload(ramp(0, 420 * MIB, 20, 30))), 60.0)
    for report in desk.reports():
        assert codec.decode_from_guest(codec.encode(report)).sequence == report.sequence


def test_free_page_reporting_lowers_resident_memory_and_nothing_else() -> None:
    desk = Desk()
    desk.world.work("a", Workload(steady(300 * MIB)))
    desk.run(5.0)
    desk.world.work("a", QUIET)
    desk.run(20.0)
    assert desk.vm.resident_bytes < 220 * MIB
    assert desk.vm.actual_bytes == 512 * MIB


@pytest.mark.parametrize("name", sorted(BEHAVIOURS))
def test_a_guest_of_any_behaviour_lives_through_being_driven(name: str) -> None:
    desk = Desk(replace(SPEC, behaviour=BEHAVIOURS[name]))
    for mib in (400, 300, 450):
        desk.target(mib, 15.0)
        desk.plug(256)
        desk.submit(hv.DetachDimm, alias="dimm0")
        desk.run(20.0)
    desk.run(1500.0)
    answered = [e.ticket for e in desk.seen(hv.CommandDone)]
    assert sorted(answered) == list(range(1, desk.tickets + 1)), "each command is answered exactly once"
    assert desk.vm.memory.free >= 0


def test_the_same_seed_gives_the_same_run() -> None:
    def run() -> list:
        desk = Desk(replace(SPEC, behaviour=BEHAVIOURS["reboots"]), 200.0)
        return desk.events

    assert run() == run()


def test_balloon_statistics_are_asked_for_once_a_second_and_stand_still_in_between() -> None:
    desk = Desk(seconds=20.1)
    before = desk.vm.statistics(desk.world.now)
    desk.world.work("a", Workload(steady(100 * MIB)))
    desk.run(0.5)
    assert desk.vm.statistics(desk.world.now) == before
    desk.run(0.5)
    after = desk.vm.statistics(desk.world.now)
    assert before is not None
    assert after is not None
    assert after.updated == before.updated + 1
    assert after.available_bytes < before.available_bytes - 80 * MIB
