"""A squeezed guest's kernel grants at once what the guest's maximum allows, whatever its overcommit mode."""

import signal
from collections.abc import Iterator

import pytest

from host_controller.units import MIB
from lab.controller import Limits
from lab.guest import Guest
from tests.guests.conftest import Rig, RigFactory

CAPACITY = 2000
LIMITS = Limits(startup=400, minimum=200, maximum=1536, growth="balloon")
SQUEEZED_BYTES = 260 * MIB

SHARED = "mmap.mmap(-1, size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)"
"""As PostgreSQL asks for its shared_buffers."""
PRIVATE = "mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)"
"""As a JVM commits its heap."""


@pytest.fixture(scope="module")
def rig(make_shared_rig: RigFactory) -> Iterator[Rig]:
    rig = make_shared_rig(CAPACITY, shrink_after=2)
    rig.add("strict", LIMITS, swap_mib=256)
    yield rig
    rig.assert_within()


@pytest.fixture
def guest(rig: Rig) -> Guest:
    guest = rig.guests["strict"]
    guest.workload.free()
    rig.controller.wait_vm(guest, lambda vm: vm["assigned_bytes"] < SQUEEZED_BYTES, 90, "squeezed")
    return guest


def setting(guest: Guest, name: str) -> int:
    return int(guest.workload.exec(f"cat /proc/sys/vm/{name}").strip())


def map_and_touch(guest: Guest, how: str, mib: int = 400) -> str:
    code = (
        f"import mmap, time; size = {mib} << 20; area = {how}; print('granted', flush=True)\n"
        "for at in range(0, size, 4096):\n"
        "    area[at] = 1\n"
        "    if at % (1 << 20) == 0: time.sleep(0.02)\n"
        "print('touched')"
    )
    return guest.workload.exec(f'python3 -c "{code}"', limit=90)


@pytest.mark.parametrize("how", [SHARED, PRIVATE], ids=["shared-buffers", "heap"])
def test_one_mapping_above_what_a_squeezed_guest_has_is_granted(guest: Guest, how: str) -> None:
    assert setting(guest, "overcommit_memory") == 1
    # Without swap it is MemTotal alone that a kernel goes by.
    guest.workload.exec("swapoff -a")
    try:
        assert map_and_touch(guest, how).split() == ["granted", "touched"]
    finally:
        guest.workload.exec("swapon /swapfile")
    assert guest.workload.memory().vmstat["oom_kill"] == 0


def test_all_that_the_maximum_leaves_is_granted_in_one_mapping(guest: Guest) -> None:
    memory = guest.workload.memory()
    size = LIMITS.maximum - (memory.total_bytes - memory.available_bytes) // MIB
    code = f"import mmap; size = {size} << 20; {PRIVATE}; print('granted')"
    assert guest.workload.exec(f'python3 -c "{code}"').strip() == "granted"


def test_a_program_can_read_what_the_guest_may_come_to_have(guest: Guest) -> None:
    assert int(guest.workload.exec("cat /run/dynmem-agent/maximum")) == LIMITS.maximum * MIB


def test_a_strict_kernel_promises_what_it_would_at_the_maximum_and_gets_its_ratio_back(
    rig: Rig, guest: Guest
) -> None:
    guest.workload.exec("echo 80 > /proc/sys/vm/overcommit_ratio; echo 2 > /proc/sys/vm/overcommit_memory")
    guest.workload.wait_agent(30)
    try:
        rig.observer.wait_for(
            lambda _: setting(guest, "overcommit_kbytes") > 0, 60, "the agent keeps the commit limit"
        )
        limit = int(guest.workload.exec("awk '/CommitLimit/ {print $2}' /proc/meminfo")) << 10
        assert limit > (LIMITS.maximum - 140) * MIB * 0.8
        assert map_and_touch(guest, PRIVATE).split() == ["granted", "touched"]
        assert guest.workload.memory().vmstat["oom_kill"] == 0
    finally:
        guest.workload.signal_agent(signal.SIGTERM, False)
        guest.workload.wait_no_agent(30)
    assert (setting(guest, "overcommit_memory"), setting(guest, "overcommit_ratio")) == (2, 80)
