"""The libvirt adapter against real libvirt and QEMU: machines that boot nothing, and one with its agent."""

import asyncio
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from agent import wire
from host_controller.adoption.carry_out import Clock, carry_out
from host_controller.adoption.steps import SetBalloon
from host_controller.core.interface import (
    AttachDimm,
    BalloonChanged,
    BalloonSampled,
    CommandDone,
    ConnectionChanged,
    DetachDimm,
    DimmsChanged,
    GuestGone,
    GuestNoise,
    GuestSpoke,
    HostSampled,
    JobChanged,
    ResidentSampled,
    Resume,
    SendToGuest,
    SetPace,
    SetTarget,
    Suspend,
    VmAppeared,
    VmConfigChanged,
    VmGone,
    VmReset,
    VmStateChanged,
)
from host_controller.core.model import Growth, Limits, RunState, Trust
from host_controller.domain_xml.ours import NAMESPACE, PREFIX, metadata_element
from host_controller.host.identity import Identity
from host_controller.hypervisor.definitions import Definitions
from host_controller.hypervisor.memory_devices import dimm_xml
from host_controller.hypervisor.running import RunningDomain
from host_controller.units import MIB
from lab.domain import GuestSpec
from lab.guest import Guest
from lab.lab import Lab
from lab.migration import migrate
from lab.session import Session
from tests.guests.watch import LIMITS, Watch, bare_xml, destroy_all, start_bare, watching
from tests.support.waiting import until


@pytest.fixture(scope="module")
def shared_session(lab: Lab) -> Session:
    return lab.new_session()


@pytest.fixture
def session(shared_session: Session) -> Iterator[Session]:
    yield shared_session
    destroy_all(shared_session)


async def test_a_vm_that_runs_already_appears_and_was_not_seen_to_boot(session: Session) -> None:
    start_bare(session, "early")
    async with watching(session.uri) as watch:
        early = await watch.vm("early")
        assert not early.booted
        assert early.state is RunState.RUNNING
        assert early.config.limits == LIMITS
        assert (early.config.boot_ram_bytes, early.config.slots) == (160 * MIB, 16)
        assert early.actual_bytes == 160 * MIB


async def test_a_vm_that_is_started_stopped_reset_and_paused_says_so(session: Session) -> None:
    async with watching(session.uri) as watch:
        (domain,) = start_bare(session, "late")
        late = await watch.vm("late")
        assert late.booted
        domain.suspend()
        await watch.until(VmStateChanged, lambda event: event.state is RunState.PAUSED)
        domain.resume()
        await watch.until(VmStateChanged, lambda event: event.state is RunState.RUNNING)
        domain.reset()
        await watch.until(VmReset)
        domain.destroy()
        assert (await watch.until(VmGone)).reason == "destroyed"
        start_bare(session, "late")
        await watch.until(VmAppeared, lambda event: event.vm != late.vm)


@pytest.fixture
def save_file() -> Iterator[Path]:
    """Where the guests' account can write; pytest's own directories are closed to it."""
    directory = Path(tempfile.mkdtemp(prefix="dynmem-save-", dir="/tmp"))
    directory.chmod(0o777)
    yield directory / "vm"
    shutil.rmtree(directory)


async def test_a_save_is_a_job_and_a_restored_vm_has_not_booted(session: Session, save_file: Path) -> None:
    (domain,) = start_bare(session, "vm")
    async with watching(session.uri) as watch:
        vm = (await watch.vm("vm")).vm
        await asyncio.to_thread(domain.save, str(save_file))
        assert (await watch.until(VmGone)).reason == "saved"
        jobs = [event.job for _, event in watch.all(JobChanged)]
        assert jobs[0] in ("save", "migration"), "which is what QEMU calls it until libvirt has been asked"
        saved = time.monotonic()
        await asyncio.to_thread(session.connection().restore, str(save_file))
        again = await watch.vm("vm", since=saved)
        assert (again.vm, again.booted) == (vm, False)
        await watch.until(BalloonSampled, since=saved)


@pytest.fixture(scope="module")
def second_session(lab: Lab) -> Session:
    return lab.new_session()


async def test_a_vm_that_arrives_is_announced_at_once_and_asked_nothing_until_it_is_there(
    session: Session, second_session: Session
) -> None:
    (domain,) = start_bare(session, "vm")
    async with watching(session.uri) as source, watching(second_session.uri) as destination:
        vm = (await source.vm("vm")).vm
        moving = asyncio.create_task(asyncio.to_thread(migrate, domain, second_session, 1))
        job = await source.until(JobChanged)
        assert job.job == "migration"
        refused = await source.do(SetTarget, vm, 100 * MIB)
        assert refused.error == "not while this job runs: migration"
        assert not refused.timed_out
        arriving = await destination.vm("vm")
        assert (arriving.booted, arriving.state, arriving.config.limits) == (False, RunState.PAUSED, LIMITS)
        destination.hypervisor.submit(SetPace(vm, 0.1))
        incoming = await destination.until(JobChanged)
        assert incoming.job == "incoming migration"
        refused = await destination.do(SetTarget, vm, 100 * MIB)
        assert refused.error == "not while this job runs: incoming migration"
        await moving
        await destination.until(JobChanged, lambda event: event.job is None)
        assert (await source.until(VmGone)).reason == "migrated away"
        (first, _), *_ = destination.all(BalloonSampled)
        (runs, _), *_ = destination.all(VmStateChanged)
        assert first > runs
        assert (await destination.do(SetTarget, vm, 100 * MIB)).error is None
    destroy_all(second_session)


async def test_a_migration_that_is_called_off_holds_the_vm_until_libvirt_has_tidied_up(
    session: Session, second_session: Session
) -> None:
    (domain,) = start_bare(session, "vm")
    async with watching(session.uri) as source, watching(second_session.uri) as destination:
        vm = (await source.vm("vm")).vm
        source.hypervisor.submit(SetPace(vm, 0.05))
        moving = asyncio.create_task(asyncio.to_thread(migrate, domain, second_session, 1))
        await destination.vm("vm")
        called_off = time.monotonic()
        await asyncio.to_thread(domain.abortJob)
        with pytest.raises(libvirt.libvirtError, match="canceled"):
            await moving
        await source.until(JobChanged, lambda event: event.job is None, since=called_off)
        assert (await source.do(SetTarget, vm, 100 * MIB)).error is None
        assert (await destination.until(VmGone)).reason == "failed"
        assert not any(answered.timed_out for _, answered in source.all(CommandDone))


async def test_a_vm_of_somebody_else_is_only_charged(session: Session) -> None:
    start_bare(session, "foreign", managed=False)
    start_bare(session, "ours")
    async with watching(session.uri) as watch:
        await watch.vm("ours")
        await watch.until(HostSampled, lambda event: event.facts.unmanaged_bytes == 160 * MIB)
        assert [event.config.name for _, event in watch.all(VmAppeared)] == ["ours"]


async def test_a_vm_without_a_balloon_is_managed_measured_and_no_cause_for_complaint(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    head, _, devices = bare_xml("mute").rpartition("<memballoon")
    _, _, tail = devices.partition("</memballoon>")
    session.connection().createXML(f"{head}<memballoon model='none'/>{tail}", 0)
    async with watching(session.uri) as watch:
        vm = await watch.vm("mute")
        assert vm.config.pinned == "no balloon"
        watch.hypervisor.submit(SetPace(vm.vm, 0.05))
        for _ in range(3):
            await watch.until(ResidentSampled, since=time.monotonic())
        assert watch.all(BalloonSampled) == []
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert (said.out + said.err).count("there is no memory balloon") == 1


async def test_commands_are_carried_out_in_order_and_dimms_are_told_before_the_plug_is_done(
    session: Session,
) -> None:
    start_bare(session, "vm")
    async with watching(session.uri) as watch:
        vm = (await watch.vm("vm")).vm
        tickets = [
            watch.submit(SetTarget, vm, 100 * MIB),
            watch.submit(AttachDimm, vm, 128 * MIB),
            watch.submit(Suspend, vm),
            watch.submit(Resume, vm),
        ]
        done = [await watch.until(CommandDone, _ticket(ticket)) for ticket in tickets]
        assert [(one.error, one.timed_out) for one in done] == [(None, False)] * 4
        assert [watch.position(one) for one in done] == sorted(watch.position(one) for one in done)
        changed = await watch.until(DimmsChanged)
        assert watch.position(changed) < watch.position(done[1])
        (dimm,) = changed.dimms
        assert dimm.size_bytes == 128 * MIB
        assert dimm.base_bytes == 4 << 30
        print(f"\nplugging took {1e3 * done[1].seconds:.0f} ms, a target {1e3 * done[0].seconds:.1f} ms")


async def test_what_cannot_be_done_is_an_outcome_and_harms_nothing(session: Session) -> None:
    start_bare(session, "vm")
    async with watching(session.uri) as watch:
        vm = (await watch.vm("vm")).vm
        for make, argument in ((SetTarget, 1 << 50), (AttachDimm, 1 << 50), (DetachDimm, "dimm7")):
            done = await watch.do(make, vm, argument)
            assert done.error is not None
            assert not done.timed_out
        gone = await watch.do(SetTarget, "00000000-0000-0000-0000-000000000000", MIB)
        assert gone.error == "the VM is not running"
        assert (await watch.do(SetTarget, vm, 100 * MIB)).error is None


async def test_each_balloon_sample_is_followed_by_a_newer_resident_sample(session: Session) -> None:
    start_bare(session, "vm")
    async with watching(session.uri) as watch:
        vm = (await watch.vm("vm")).vm
        watch.hypervisor.submit(SetPace(vm, 0.1))
        begun = time.monotonic()
        while len(watch.all(BalloonSampled)) < 21:
            await watch.until(BalloonSampled, since=watch.events[-1][0])
        took = time.monotonic() - begun
        kinds = [
            type(event) for _, event in watch.events if isinstance(event, BalloonSampled | ResidentSampled)
        ]
        assert kinds[0::2] == [BalloonSampled] * len(kinds[0::2])
        assert kinds[1::2] == [ResidentSampled] * len(kinds[1::2])
        (_, resident), *_ = watch.all(ResidentSampled)
        assert 0 < resident.guest_bytes < 160 * MIB
        assert resident.overhead_bytes > MIB
        print(f"\n20 samples in {took:.2f} s")


async def test_changed_limits_of_a_running_vm_are_seen(session: Session) -> None:
    (domain,) = start_bare(session, "vm")
    wanted = Limits(160 * MIB, 32 * MIB, 1184 * MIB, buffer_percent=50, weight=7)
    async with watching(session.uri) as watch:
        await watch.vm("vm")
        domain.setMetadata(2, metadata_element(wanted, Growth.HOTADD, Trust.NONE), PREFIX, NAMESPACE, 1)
        changed = await watch.until(VmConfigChanged)
        assert changed.config.limits == wanted
        assert changed.config.trust is Trust.NONE
        domain.setMetadata(2, None, PREFIX, NAMESPACE, 1)
        assert (await watch.until(VmGone)).reason == "no longer managed"


async def test_six_stopped_qemus_do_not_hold_up_a_healthy_vm(session: Session) -> None:
    names = [f"s{number}" for number in range(6)]
    start_bare(session, *names, "healthy")
    async with watching(session.uri) as watch:
        vms = {name: (await watch.vm(name)).vm for name in (*names, "healthy")}
        for vm in vms.values():
            watch.hypervisor.submit(SetPace(vm, 0.1))
        for vm in vms.values():
            await watch.until(ResidentSampled, _of(vm))
        pids = [_pid(session, vms[name]) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            stopped = time.monotonic()
            tickets = [watch.submit(SetTarget, vms[name], 120 * MIB) for name in names]
            done = await watch.do(SetTarget, vms["healthy"], 120 * MIB)
            waited = time.monotonic() - stopped
            assert done.error is None
            answered = {event.ticket for _, event in watch.all(CommandDone)}
            assert not answered & set(tickets), "it had to wait for those that hang"
            for ticket in tickets:
                late = await watch.until(CommandDone, _ticket(ticket))
                # Where a sample hung first, it was not even sent.
                assert late.timed_out or "does not answer" in (late.error or "")
            refused = await watch.do(SetTarget, vms["s0"], 120 * MIB)
            assert refused.error is not None
            assert not refused.timed_out, "it is certain that this one was not sent"
            times = [at for at, event in watch.all(BalloonSampled, _of(vms["healthy"])) if at > stopped]
            print(f"\nsix stopped: the healthy VM's command took {waited:.2f} s; {len(times)} samples")
            assert len(times) >= 5, "the healthy VM was watched all the while"
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        resumed = time.monotonic()
        for name in names:
            await watch.until(BalloonSampled, _of(vms[name]), since=resumed)
            assert (await watch.do(SetTarget, vms[name], 110 * MIB)).error is None


async def test_the_adapter_stops_though_a_vm_hangs_and_leaves_nothing_behind(session: Session) -> None:
    start_bare(session, "vm", "other")
    session.connection()
    threads, pid = _threads(), None
    try:
        for attempt in range(2):
            async with watching(session.uri) as watch:
                vm = (await watch.vm("vm")).vm
                await watch.until(ResidentSampled, _of(vm))
                pid = _pid(session, vm)
                os.kill(pid, signal.SIGSTOP)
                watch.submit(SetTarget, vm, 120 * MIB)
                await watch.until(CommandDone, _ticket(1))
            # Here it has stopped, though its VM still hangs.
            os.kill(pid, signal.SIGCONT)
            if attempt == 0:
                descriptors = _sockets()
        await _settled(lambda: _sockets() <= descriptors, "sockets")
        await _settled(lambda: _threads() <= threads, "threads")
    finally:
        if pid is not None:
            os.kill(pid, signal.SIGCONT)


async def test_a_libvirtd_that_goes_away_is_told_and_found_again(lab: Lab) -> None:
    session = lab.new_session()
    start_bare(session, "stays", "leaves")
    try:
        async with watching(session.uri) as watch:
            stays, leaves = (await watch.vm("stays")).vm, (await watch.vm("leaves")).vm
            pid = _pid(session, leaves)
            await asyncio.to_thread(session.stop)
            lost = time.monotonic()
            await watch.until(ConnectionChanged, lambda event: not event.up)
            refused = await watch.do(SetTarget, stays, 100 * MIB)
            assert refused.error is not None
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(session.start)
            await watch.until(ConnectionChanged, lambda event: event.up, since=lost)
            again = await watch.vm("stays", since=lost)
            assert not again.booted
            assert (await watch.until(VmGone)).vm == leaves
            assert (await watch.do(SetTarget, stays, 100 * MIB)).error is None
    finally:
        destroy_all(session)


async def test_without_libvirtd_it_waits_and_connects_when_there_is_one(lab: Lab) -> None:
    session = lab.new_session()
    session.stop()
    async with watching(session.uri) as watch:
        down = await watch.until(ConnectionChanged)
        assert not down.up
        assert "socket" in down.detail
        await asyncio.to_thread(session.start)
        await watch.until(ConnectionChanged, lambda event: event.up)


# --- with an agent inside ---


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[Guest]:
    guest = lab.guest(GuestSpec("adapter", startup_mib=256, maximum_mib=512, raw_dynmem=True))
    limits = Limits(256 * MIB, 128 * MIB, 512 * MIB)
    domain = guest.domain()
    domain.setMetadata(2, metadata_element(limits, Growth.HOTADD, Trust.GUEST), PREFIX, NAMESPACE, 2)
    guest.start()
    guest.wait_booted()
    yield guest
    guest.remove()


async def _hello(watch: Watch, guest: Guest) -> str:
    vm = (await watch.vm(guest.name)).vm
    await asyncio.to_thread(guest.workload.wait_agent, 30)
    watch.hypervisor.submit(SendToGuest(vm, wire.Welcome("test", heartbeat_seconds=1.0)))
    await watch.until(GuestSpoke, lambda event: isinstance(event.untrusted_message, wire.Hello))
    return vm


async def test_the_agent_answers_and_reports_through_the_channel(lab: Lab, guest: Guest) -> None:
    async with watching(lab.session.uri) as watch:
        vm = await _hello(watch, guest)
        report = await watch.until(GuestSpoke, lambda event: isinstance(event.untrusted_message, wire.Report))
        assert report.vm == vm
        begun = time.monotonic()
        watch.hypervisor.submit(SendToGuest(vm, wire.Ping(42)))
        await watch.until(
            GuestSpoke,
            lambda event: (
                isinstance(event.untrusted_message, wire.Ack) and event.untrusted_message.request_id == 42
            ),
        )
        print(f"\na ping took {1e3 * (time.monotonic() - begun):.0f} ms")


async def test_an_agent_that_leaves_its_port_is_gone(lab: Lab, guest: Guest) -> None:
    async with watching(lab.session.uri) as watch:
        vm = await _hello(watch, guest)
        await asyncio.to_thread(guest.workload.signal_agent, signal.SIGKILL, False)
        assert (await watch.until(GuestGone)).vm == vm
        back = time.monotonic()
        await asyncio.to_thread(_start_agent, guest)
        await watch.until(
            GuestSpoke, lambda event: isinstance(event.untrusted_message, wire.Hello), since=back
        )


async def test_a_target_is_followed_by_balloon_events_down_to_it(lab: Lab, guest: Guest) -> None:
    async with watching(lab.session.uri) as watch:
        vm = (await watch.vm(guest.name)).vm
        assert (await watch.do(SetTarget, vm, 200 * MIB)).error is None
        await watch.until(BalloonChanged, lambda event: event.actual_bytes == 200 * MIB)
        sampled = await watch.until(BalloonSampled, lambda event: event.stats is not None)
        assert sampled.stats is not None
        assert 0 < sampled.stats.available_bytes < sampled.stats.total_bytes < 256 * MIB
        assert (await watch.do(SetTarget, vm, 256 * MIB)).error is None
        await watch.until(BalloonChanged, lambda event: event.actual_bytes == 256 * MIB)


async def test_a_dimm_comes_and_goes(lab: Lab, guest: Guest) -> None:
    async with watching(lab.session.uri) as watch:
        vm = await _hello(watch, guest)
        watch.hypervisor.submit(SendToGuest(vm, wire.OnlineZone(1, "movable")))
        assert (await watch.do(AttachDimm, vm, 128 * MIB)).error is None
        await watch.until(
            GuestSpoke,
            lambda event: (
                isinstance(event.untrusted_message, wire.Report)
                and event.untrusted_message.online_bytes == 384 * MIB
            ),
            limit=60,
        )
        (dimm,) = (await watch.until(DimmsChanged)).dimms
        assert (await watch.do(DetachDimm, vm, dimm.alias)).error is None
        await watch.until(DimmsChanged, lambda event: event.dimms == (), limit=60)


OFFLINE = """
cd /sys/devices/system/memory
until grep -q -x Movable memory*/valid_zones; do sleep 0.1; done
for block in $(grep -l -x Movable memory*/valid_zones); do echo offline > ${block%/*}/state; done
"""


def test_a_released_balloon_is_shown_where_it_is_though_a_dimm_left_in_the_second_of_its_last_move(
    lab: Lab, guest: Guest
) -> None:
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE
    with Definitions(lab.session.uri) as definitions:
        domain = RunningDomain(definitions, guest.name)

        def reached(size_mib: int, devices: int) -> None:
            has = (domain.actual_bytes, domain.memory_devices)
            until(lambda: (has[0](), has[1]()) == (size_mib * MIB, devices), lambda: (has[0](), has[1]()), 60)

        guest.domain().attachDeviceFlags(dimm_xml(128 * MIB), live)
        guest.workload.exec(OFFLINE)
        domain.set_balloon(340 * MIB)
        reached(340, 1)
        domain.set_balloon(384 * MIB)
        reached(384, 1)
        device = ElementTree.fromstring(guest.domain().XMLDesc(0)).find("./devices/memory")
        guest.domain().detachDeviceFlags(ElementTree.tostring(device, encoding="unicode"), live)
        reached(256, 0)
        clock = Clock(time.monotonic, time.sleep, 30.0)
        carry_out(guest.name, (SetBalloon(256 * MIB),), domain, print, clock, "again")
        assert (domain.shown_bytes(), domain.actual_bytes()) == (256 * MIB, 256 * MIB)
        assert "<currentMemory unit='KiB'>262144<" in guest.domain().XMLDesc(0)


async def test_a_flooded_port_is_drained_and_disturbs_nobody(lab: Lab, guest: Guest) -> None:
    async with watching(lab.session.uri) as watch:
        vm = await _hello(watch, guest)
        watch.hypervisor.submit(SetPace(vm, 0.1))
        await asyncio.to_thread(guest.workload.signal_agent, signal.SIGKILL, False)
        await watch.until(GuestGone)
        begun = time.monotonic()
        port = f"timeout -s INT 3 dd bs=32k of=/dev/virtio-ports/{wire.PORT_NAME}"
        command = f"(yes '{{\"v\":1}}' | {port}; {port} if=/dev/zero) 2>&1; true"
        flood = asyncio.create_task(asyncio.to_thread(guest.workload.exec, command, 20.0))
        late = 0.0
        while not flood.done():
            at = time.monotonic()
            await asyncio.sleep(0.01)
            late = max(late, time.monotonic() - at - 0.01)
        said = [line for line in (await flood).splitlines() if "copied" in line]
        print(f"\nflood: {said}; the loop was {1e3 * late:.0f} ms late at most")
        noise = watch.all(GuestNoise)
        assert {event.kind for _, event in noise} >= {"not-a-message", "too-fast"}
        assert len(noise) < 100, "noise must not become a flood of events"
        times = [at for at, _ in watch.all(BalloonSampled, _of(vm)) if at > begun]
        assert len(times) >= 5, "the others were watched all the while"
        back = time.monotonic()
        await asyncio.to_thread(_start_agent, guest)
        await watch.until(
            GuestSpoke, lambda event: isinstance(event.untrusted_message, wire.Hello), since=back
        )


# --- helpers ---


def _start_agent(guest: Guest) -> None:
    guest.workload.wait_no_agent(60)
    guest.workload.start_agent()


def _of(vm: str) -> Callable[[object], bool]:
    return lambda event: getattr(event, "vm", None) == vm


def _ticket(number: int) -> Callable[[CommandDone], bool]:
    return lambda done: done.ticket == number


def _pid(session: Session, vm: str) -> int:
    pid = Identity(session.uri).find(vm)
    assert pid is not None
    return pid


def _threads() -> int:
    """Not those of asyncio's own executor, which keeps them until the loop closes."""
    return sum(not one.name.startswith("asyncio_") for one in threading.enumerate())


def _sockets() -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return found


async def _settled(test: Callable[[], bool], what: str, limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while not test():
        assert time.monotonic() < deadline, f"{what} are left: {[one.name for one in threading.enumerate()]}"
        await asyncio.sleep(0.02)
