"""Hosts from the field, from their /proc to what the engine makes of them."""

from pathlib import Path

import pytest

from host_controller.config import parse
from host_controller.core.books.capacity import default_spare_bytes
from host_controller.core.engine import Engine
from host_controller.core.interface import HostSampled
from host_controller.host.watch import STEP_BYTES, VmMemory
from host_controller.units import GIB, MIB
from tests.support.fake_host import UUID, FakeHost

VM = {UUID: VmMemory(managed=True, ordinary_bytes=48 * GIB)}


class Machine:
    """A host with a controller that looks at it once a second."""

    def __init__(self, host: FakeHost, text: str = "") -> None:
        self.host = host
        self.now = 0.0
        self._watch = host.watch()
        self.engine = Engine(parse(text.encode()).settings(self._watch.read(0.0, {})))

    def restart(self) -> None:
        """Another controller, that knows nothing of the one before."""
        self._watch = self.host.watch()
        self.engine = Engine(parse(b"").settings(self._watch.read(self.now, {})))

    def look(self, seconds: float = 1.0, vms: dict[str, VmMemory] | None = None) -> int:
        """The capacity after so long, looked at all the while."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + max(1.0, seconds / 50))
            facts = self._watch.read(self.now, VM if vms is None else vms)
            self.engine.handle(HostSampled(facts), self.now)
            self.engine.decide(self.now)
        return self.engine.ledger.capacity()

    @property
    def emergency(self) -> str | None:
        return self.engine.state.emergency.cause


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.mark.parametrize("share", [75, 60, 49, 10])
def test_most_of_a_host_in_huge_pages_is_no_emergency_and_no_capacity(host: FakeHost, share: int) -> None:
    huge = 128 * GIB * share // 100 // (2 * MIB) * 2 * MIB
    ordinary = 128 * GIB - huge
    host.meminfo(MemTotal=128 * GIB, Hugetlb=huge, MemAvailable=ordinary - 2 * GIB)
    host.huge_pages(2 * MIB, huge // (2 * MIB), free=0)
    machine = Machine(host)
    assert abs(machine.look(5) - (ordinary - 2 * GIB - default_spare_bytes(ordinary))) <= STEP_BYTES
    assert machine.emergency is None


def test_a_cache_that_goes_on_demand_is_no_emergency_and_no_use_of_others(host: FakeHost) -> None:
    """64 GiB: 30 GiB of a VM, 31 GiB of ZFS's cache, 1 GiB of programs."""
    host.meminfo(MemAvailable=2 * GIB)
    host.arc(31 * GIB, 3 * GIB)
    host.qemu(40, UUID, 30 * GIB)
    machine = Machine(host)
    before = machine.look(5)
    assert before == 64 * GIB - 4 * GIB - default_spare_bytes(64 * GIB)
    assert machine.emergency is None
    machine.restart()
    assert machine.look(5) == before, "a restart looks at the same host"
    host.write("proc/spl/kstat/zfs/arcstats", "garbled\0\xff")
    assert machine.look(1) == before - 28 * GIB, "what does not say that it goes counts as in use"


def test_one_sample_is_no_lasting_setting(host: FakeHost) -> None:
    machine = Machine(host)
    empty = machine.look(5)
    assert empty == 62 * GIB - default_spare_bytes(64 * GIB)
    host.use(20 * GIB)
    crowded = machine.look(1)
    assert crowded == empty - 20 * GIB, "containers count at once"
    machine.restart()
    assert machine.look(1) == crowded, "a restart finds the same"
    host.use(-20 * GIB)
    assert machine.look(60) < crowded + 4 * GIB
    assert machine.look(600) == empty, "and what they have given back is found, after ten minutes"


def test_memory_that_is_added_or_taken_from_a_nested_host_is_followed(host: FakeHost) -> None:
    machine = Machine(host)
    for total in (96, 48, 80):
        host.meminfo(MemTotal=total * GIB, MemAvailable=(total - 2) * GIB)
        assert machine.look(2) == (total - 2) * GIB - default_spare_bytes(total * GIB)


def test_a_balloon_that_leaves_the_hosts_total_is_somebody_elses_use(host: FakeHost) -> None:
    """As with deflate-on-oom in the host below: MemTotal stays, and the memory is gone."""
    machine = Machine(host)
    before = machine.look(2)
    host.meminfo(Balloon=16 * GIB)
    host.use(16 * GIB)
    assert machine.look(2) == before - 16 * GIB


def test_huge_pages_that_are_reserved_while_it_runs_are_seen(host: FakeHost) -> None:
    machine = Machine(host)
    before = machine.look(2)
    host.meminfo(Hugetlb=32 * GIB)
    host.huge_pages(GIB, 32)
    host.use(32 * GIB)
    after = machine.look(2)
    assert before - after == 32 * GIB - (default_spare_bytes(64 * GIB) - default_spare_bytes(32 * GIB))
    assert machine.emergency is None


def test_memory_for_cma_is_ordinary_and_what_devices_hold_was_never_counted(host: FakeHost) -> None:
    machine = Machine(host)
    before = machine.look(2)
    host.meminfo(CmaTotal=8 * GIB, CmaFree=8 * GIB, DirectMap1G=64 * GIB, VmallocTotal=1 << 45)
    assert machine.look(2) == before


def test_a_host_full_of_vms_by_the_books_is_no_emergency(host: FakeHost) -> None:
    """Others use 20 GiB, and VMs all that they may: what is left is the spare."""
    host.use(18 * GIB)
    machine = Machine(host)
    capacity = machine.look(2)
    host.qemu(40, UUID, capacity)
    host.use(capacity)
    machine.look(2)
    assert machine.emergency is None


@pytest.mark.parametrize("text", ["", '[host]\ncapacity = "60GiB"', '[host]\nreserve = "1GiB"'])
def test_a_host_that_runs_out_is_an_emergency_whatever_is_configured(host: FakeHost, text: str) -> None:
    machine = Machine(host, text)
    machine.look(2)
    assert machine.emergency is None
    host.meminfo(MemAvailable=64 * MIB)
    machine.look(2)
    assert machine.emergency is not None


def test_a_growing_vm_is_not_taken_for_a_growing_host(host: FakeHost) -> None:
    host.qemu(40, UUID, GIB)
    host.use(GIB)
    machine = Machine(host)
    before = machine.look(2)
    for held in range(2, 40):
        host.holds(40, held * GIB)
        host.use(GIB)
        assert machine.look(1) == before
