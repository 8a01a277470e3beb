"""The lab's own truth: what the other tests with real guests stand on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from host_controller.units import MIB
from host_controller.verify.observer import Observer, describe
from host_controller.verify.processes import processes_of, start_time
from lab.code_disk import REPOSITORY
from lab.domain import GuestSpec
from lab.guest import Guest
from lab.lab import Lab
from tests.guests.conftest import GuestFactory

DIMM = "<memory model='dimm'><target><size unit='MiB'>{mib}</size><node>0</node></target></memory>"


@pytest.fixture(scope="module")
def guest(make_shared_guest: GuestFactory) -> Guest:
    spec = GuestSpec("plain", startup_mib=512, maximum_mib=2048, agent=None, raw_dynmem=True)
    guest = make_shared_guest(spec)
    guest.start()
    guest.wait_booted()
    return guest


@pytest.fixture
def watched(guest: Guest, observer: Observer) -> Observer:
    observer.start(guest)
    return observer


def test_a_guest_boots_and_reports_its_memory(guest: Guest) -> None:
    memory = guest.workload.memory()
    print(
        f"\nbooted in {guest.boot_seconds:.1f} s; MemTotal {memory.total_bytes / MIB:.0f} MiB, "
        f"available {memory.available_bytes / MIB:.0f} MiB of 512"
    )
    assert 380 * MIB < memory.total_bytes < 512 * MIB
    assert memory.online_blocks * memory.block_bytes == 512 * MIB


def test_two_comparisons_of_guest_and_host_clock_agree_within_the_errors_that_they_tell(guest: Guest) -> None:
    (first, error), (second, another) = guest.workload.clock_offset(), guest.workload.clock_offset()
    print(f"\nguest clock {first:.3f} s ± {error * 1000:.1f} ms, then {second:.3f} ± {another * 1000:.1f} ms")
    assert abs(first - second) <= error + another


def test_an_allocation_is_seen_in_resident_memory_and_goes_back(guest: Guest, watched: Observer) -> None:
    before = watched.latest().guests["plain"].resident
    guest.workload.allocate(150, rate=100)
    guest.workload.wait_event("started", "memory", 60)
    guest.workload.wait_event("done", "memory", 60)
    available = guest.workload.memory().available_bytes
    watched.wait_for(
        lambda sample: sample.guests["plain"].resident >= before + 100 * MIB,
        10,
        "100 MiB more resident memory",
    )
    guest.workload.free()
    assert guest.workload.memory().available_bytes > available + 140 * MIB


def test_an_allocation_can_be_held_where_it_is(guest: Guest) -> None:
    guest.workload.allocate(200, rate=20, name="slow")
    guest.workload.wait_event("progress", "slow", 60)
    guest.workload.hold("slow")
    done = guest.workload.wait_event("done", "slow", 60)
    guest.workload.free("slow")
    assert done.mib is not None
    assert 0 < done.mib < 150


def test_the_balloon_is_seen_by_the_observer_and_proves_that_it_lives(
    guest: Guest, watched: Observer
) -> None:
    assert not watched.latest().guests["plain"].balloon_alive
    with guest.qmp() as qmp:
        qmp.execute("balloon", value=400 * MIB)
        small = watched.wait_for(
            lambda sample: sample.guests["plain"].actual == 400 * MIB, 60, "the balloon at 400 MiB"
        ).guests["plain"]
        assert small.balloon_alive
        assert small.charge == max(small.actual, small.resident) + small.overhead
        qmp.execute("balloon", value=512 * MIB)
    watched.wait_for(
        lambda sample: sample.guests["plain"].actual == 512 * MIB, 60, "the balloon back at 512 MiB"
    )


def test_a_thrashing_file_cache_refaults_while_available_memory_stays_flat(guest: Guest) -> None:
    before = guest.workload.memory()
    guest.workload.thrash(600)
    for _ in range(2):
        guest.workload.wait_event("progress", "thrash", 120)
    after = guest.workload.memory()
    guest.workload.free()
    refaults = after.vmstat["workingset_refault_file"] - before.vmstat["workingset_refault_file"]
    print(f"\n{refaults} refaults, while available memory was {after.available_bytes / MIB:.0f} MiB")
    assert refaults > 1000
    assert after.available_bytes > before.available_bytes - 40 * MIB


def test_a_container_over_its_limit_raises_psi_in_an_idle_guest(guest: Guest) -> None:
    guest.workload.thrash_cgroup(60, high_mib=30)
    guest.workload.wait_event("started", "container", 60)
    deadline = time.monotonic() + 60
    stalled = 0.0
    while stalled < 10 and time.monotonic() < deadline:
        memory = guest.workload.memory()
        stalled = float(memory.psi.split("avg10=", 1)[1].split()[0])
    guest.workload.free()
    assert stalled >= 10, f"PSI some avg10 was {stalled} at the end"
    assert memory.available_bytes > 250 * MIB


def test_a_guest_is_charged_all_its_ram_from_a_reset_until_its_balloon_moves(
    guest: Guest, watched: Observer
) -> None:
    with guest.qmp() as qmp:
        qmp.execute("balloon", value=300 * MIB)
        watched.wait_for(
            lambda sample: sample.guests["plain"].actual == 300 * MIB, 60, "the balloon at 300 MiB"
        )
        boot_id = guest.workload.boot_id()
        since = time.monotonic()
        guest.reset()
        watched.wait_event(guest, "RESET", 60, since)
        sample = watched.wait_for(lambda sample: sample.at > since + 0.3, 60, "a sample after the reset")
        booting = sample.guests["plain"]
        assert booting.actual == 300 * MIB, "the old figure stands"
        assert booting.charge == 512 * MIB + booting.overhead
        guest.wait_booted()
        assert guest.workload.boot_id() != boot_id
        qmp.execute("balloon", value=512 * MIB)
    watched.wait_for(
        lambda sample: sample.guests["plain"].actual == 512 * MIB, 60, "the balloon back at 512 MiB"
    )


def test_a_dimm_is_charged_when_plugged_and_is_in_memtotal_when_online(
    guest: Guest, watched: Observer
) -> None:
    before = guest.workload.memory()
    guest.domain().attachDevice(DIMM.format(mib=256))
    plugged = watched.wait_for(lambda sample: sample.guests["plain"].dimms == 256 * MIB, 60, "the DIMM")
    assert plugged.guests["plain"].charge >= 768 * MIB
    assert guest.workload.memory().total_bytes == before.total_bytes, "Debian leaves it offline"
    guest.workload.exec(
        "for block in /sys/devices/system/memory/memory*; do "
        "[ $(cat $block/state) = online ] || echo online_movable > $block/state; done"
    )
    after = guest.workload.memory()
    assert after.total_bytes == before.total_bytes + 256 * MIB
    assert sum(zones == "Movable" for _, zones in after.blocks.values()) == 2


def test_a_stopped_qemu_delays_no_sample_of_the_others(
    guest: Guest, watched: Observer, make_guest: GuestFactory
) -> None:
    other = make_guest(GuestSpec("other", agent=None))
    other.start()
    watched.start(other)
    # What a busy machine hides is looked at again.
    for attempt in range(3):
        since = watched.latest().at
        _stop_for_a_while(other.qemu_pid(), watched)
        sight = watched.sight(since)
        print(f"\nattempt {attempt}: {sight}; {describe(watched.latest())}")
        if sight.clear:
            return
    sight.demand_clear()


def _stop_for_a_while(pid: int, watched: Observer) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        sample = watched.wait_for(lambda sample: sample.guests["other"].answer_age > 1.5, 60, "an old answer")
        assert sample.guests["plain"].answer_age == 0
    finally:
        os.kill(pid, signal.SIGCONT)
    watched.wait_for(lambda sample: sample.guests["other"].answer_age == 0, 60, "an answer again")


def test_an_agent_is_started_killed_and_started_again(make_guest: GuestFactory) -> None:
    guest = make_guest(GuestSpec("supervised", agent="sleep 1000", respawn_agent=True))
    guest.start()
    guest.wait_booted()
    first = guest.workload.wait_agent(60)
    guest.workload.signal_agent(signal.SIGKILL)
    assert guest.workload.wait_agent(60, other_than=first) != first
    guest.workload.signal_agent(signal.SIGKILL, respawn=False)
    guest.workload.wait_no_agent(60)
    deadline = time.monotonic() + 60
    while len(guest.workload.agent().ends) < 2 and time.monotonic() < deadline:
        pass  # the supervisor writes an end down after the process is gone
    assert guest.workload.agent().ends == [137, 137]
    guest.workload.start_agent()
    guest.workload.wait_agent(60)


PROGRAM = """
import sys
from lab.domain import GuestSpec
from lab.lab import Lab
with Lab() as lab:
    guest = lab.guest(GuestSpec("doomed", agent=None))
    guest.start()
    print(lab.directory, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_of_a_lab_that_is_ended_nothing_is_left(lab: Lab, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().strip())
        pids = processes_of(directory)
        assert len(pids) == 2, "one libvirtd, one QEMU"
        process.send_signal(number)
        process.wait(60)
    if number == signal.SIGKILL:
        with Lab():  # the next lab cleans up after one that could not
            pass
    assert [pid for pid in pids if start_time(pid) is not None] == []
    assert not directory.exists()
    assert lab.session.connection().isAlive(), "another lab is not touched"
