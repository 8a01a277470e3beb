"""Each byte in use is counted once: as a VM's of ours, as another QEMU's, or as the host's own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from host_controller.core.books.capacity import capacity_of
from host_controller.core.model import Settings
from host_controller.doctor.kernel import read_kernel
from host_controller.host.peak import FadingPeak
from host_controller.host.proc import PAGE_BYTES
from host_controller.host.watch import STEP_BYTES, VmMemory
from host_controller.units import GIB, MIB
from tests.support.fake_host import OTHER_UUID, UUID, FakeHost

OURS = {UUID: VmMemory(managed=True, ordinary_bytes=4 * GIB)}
FOREIGN = {UUID: VmMemory(managed=False, ordinary_bytes=4 * GIB)}


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def test_what_no_vm_holds_the_host_holds(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB)
    host.use(3 * GIB)
    facts = host.watch().read(0.0, OURS)
    assert (facts.others_bytes, facts.unmanaged_bytes) == (2 * GIB, 0)


def test_what_others_use_is_followed_at_once_upwards_and_over_ten_minutes_downwards(host: FakeHost) -> None:
    watch = host.watch()
    assert watch.read(0.0, {}).others_bytes == 2 * GIB
    host.use(20 * GIB)
    assert watch.read(1.0, {}).others_bytes == 22 * GIB
    host.use(-20 * GIB)
    assert watch.read(2.0, {}).others_bytes > 21 * GIB
    assert abs(watch.read(301.0, {}).others_bytes - 12 * GIB) <= STEP_BYTES
    assert watch.read(601.0, {}).others_bytes == 2 * GIB


def test_a_peak_depends_on_nothing_but_its_samples_and_the_time() -> None:
    sparse, dense = FadingPeak(), FadingPeak()
    sparse.observe(100, 0.0)
    for second in range(300):
        dense.observe(100 if second == 0 else 20, float(second))
    assert sparse.observe(20, 300.0) == dense.observe(20, 300.0) == 60
    assert dense.observe(20, 600.0) == 20


def test_memory_that_comes_and_goes_is_kept_room_for() -> None:
    peak = FadingPeak()
    for minute in range(30):
        assert peak.observe(1000 if minute % 3 == 0 else 0, 60.0 * minute) >= 800


def test_a_qemu_of_somebody_else_is_counted_once_whoever_runs_it(host: FakeHost) -> None:
    host.process(50, 6 * GIB, "/opt/incus/bin/qemu-system-x86_64", "-uuid", OTHER_UUID)
    host.process(51, 5 * GIB, "/usr/bin/kvm", "-id", "100", name="kvm")
    host.process(52, 4 * GIB, "/usr/libexec/qemu-kvm", name="qemu-kvm")
    host.process(53, 3 * GIB, "qemu-system-x86_64", name="qemu:web")
    host.process(54, 2 * GIB, "java", name="java")
    host.use(20 * GIB)
    facts = host.watch().read(0.0, {})
    assert (facts.foreign_bytes, facts.unmanaged_bytes) == (18 * GIB, 0)
    assert facts.others_bytes == 2 * GIB + 2 * GIB


@pytest.mark.parametrize("name", [".qemu-system-x8", "kvm-spice", "my-emulator", "python3"])
def test_a_vm_of_ours_is_counted_once_whatever_its_emulator_is_called(host: FakeHost, name: str) -> None:
    """An <emulator> may be anything: NixOS's wrapped one, an old link, somebody's own build."""
    host.qemu(40, UUID, 3 * GIB, name=name)
    host.use(3 * GIB)
    for vms, unmanaged in ((OURS, 0), (FOREIGN, 4 * GIB)):
        facts = host.watch().read(0.0, vms)
        assert (facts.unmanaged_bytes, facts.foreign_bytes) == (unmanaged, 0)
        assert facts.others_bytes == 2 * GIB


def test_a_program_that_only_says_that_it_runs_a_vm_is_one_of_the_hosts(host: FakeHost) -> None:
    host.process(60, 3 * GIB, "java", "-uuid", OTHER_UUID, name="java")
    host.use(3 * GIB)
    facts = host.watch().read(0.0, {})
    assert (facts.foreign_bytes, facts.others_bytes) == (0, 5 * GIB)


def test_an_unmanaged_vm_of_our_libvirt_counts_with_all_of_its_ram_and_not_again_by_its_process(
    host: FakeHost,
) -> None:
    host.qemu(40, UUID, 3 * GIB)
    host.use(3 * GIB)
    facts = host.watch().read(0.0, FOREIGN)
    assert (facts.unmanaged_bytes, facts.others_bytes) == (4 * GIB, 2 * GIB)


@pytest.mark.parametrize("old", [False, True], ids=["v2", "v1"])
def test_what_no_process_maps_of_an_encrypted_vm_is_not_counted_again_as_others(
    host: FakeHost, old: bool
) -> None:
    """SEV-SNP, TDX: the VM is unmanaged, and counts with all of its RAM, of which 3 GiB are in use."""
    scope = "machine.slice/machine-qemu\\x2d1\\x2dweb.scope"
    host.qemu(40, UUID, 256 * MIB, cgroup=f"{'7:memory:' if old else '0::'}/{scope}/libvirt/emulator")
    host.use(3 * GIB + 256 * MIB)
    vms = {UUID: VmMemory(managed=False, ordinary_bytes=4 * GIB, unmapped=True)}
    seen = host.watch().read(0.0, vms)
    assert seen.others_bytes == 5 * GIB, "its group does not tell: rather twice than never"
    host.group(scope, old=old, stat=f"anon {256 * MIB}\n{'total_' if old else ''}unevictable {3 * GIB}\n")
    seen = host.watch().read(0.0, vms)
    assert (seen.unmanaged_bytes, seen.others_bytes) == (4 * GIB, 2 * GIB)
    host.group(scope, old=old, stat=f"{'total_' if old else ''}unevictable {50 * GIB}\n")
    assert host.watch().read(0.0, vms).others_bytes == 5 * GIB // 4, "no more than its RAM"
    vms = {UUID: VmMemory(managed=False, ordinary_bytes=4 * GIB)}
    assert host.watch().read(0.0, vms).others_bytes == 5 * GIB, "of others it says nothing"


def test_a_vm_whose_process_is_not_known_is_not_counted_twice_by_it(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="")
    host.use(3 * GIB)
    for vms, unmanaged in ((OURS, 0), (FOREIGN, 4 * GIB)):
        facts = host.watch().read(0.0, vms)
        assert (facts.unmanaged_bytes, facts.foreign_bytes) == (unmanaged, 0)


def test_a_program_that_calls_itself_a_vm_of_ours_changes_no_sum(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB)
    host.use(3 * GIB)
    before = host.watch().read(0.0, OURS)
    host.process(60, 100 * MIB, "sleep", "-uuid", UUID, name="sleep", uid=1000)
    host.process(61, 100 * MIB, "qemu-system-x86_64", "-uuid", UUID, uid=1000)
    host.use(200 * MIB)
    after = host.watch().read(0.0, OURS)
    sums = [facts.others_bytes + facts.foreign_bytes for facts in (before, after)]
    assert sums[1] - sums[0] <= 200 * MIB + 2 * STEP_BYTES


def test_shared_pages_cannot_be_made_to_count_twice(host: FakeHost) -> None:
    """Ten processes called QEMU that map the same 10 GiB."""
    for pid in range(60, 70):
        host.process(pid, 10 * GIB, "qemu-system-x86_64", uid=1000)
    host.use(10 * GIB)
    facts = host.watch().read(0.0, {})
    assert facts.foreign_bytes + facts.others_bytes <= 12 * GIB


def test_pages_of_files_that_a_qemu_maps_are_cache(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, file_bytes=GIB)
    host.use(2 * GIB)
    assert host.watch().read(0.0, OURS).others_bytes == 2 * GIB


def test_what_ksm_merged_is_there_once(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB)
    host.write("sys/kernel/mm/ksm/pages_sharing", f"{GIB // 4096}\n")
    host.use(2 * GIB)
    assert host.watch().read(0.0, OURS).others_bytes == 2 * GIB


def test_what_ksm_merged_of_others_makes_no_vm_smaller(host: FakeHost) -> None:
    """Programs may be merged, too, and in a container the figure is that of the whole machine."""
    host.qemu(40, UUID, 3 * GIB)
    host.qemu(41, OTHER_UUID, GIB)
    host.use(4 * GIB)
    host.write("sys/kernel/mm/ksm/pages_sharing", f"{20 * GIB // PAGE_BYTES}\n")
    both = OURS | {OTHER_UUID: VmMemory(managed=True, ordinary_bytes=4 * GIB)}
    host.write("proc/40/ksm_merging_pages", "0\n")
    assert host.watch().read(0.0, both).others_bytes == 6 * GIB, "of one of them nobody knows"
    host.write("proc/41/ksm_merging_pages", "0\n")
    assert host.watch().read(0.0, both).others_bytes == 2 * GIB
    host.write("proc/41/ksm_merging_pages", f"{GIB // PAGE_BYTES}\n")
    assert host.watch().read(0.0, both).others_bytes == 3 * GIB, "at most all that was merged is there once"


def test_a_vm_that_ends_while_the_host_is_looked_at_makes_the_others_no_smaller(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.qemu(40, UUID, 3 * GIB)
    host.qemu(41, OTHER_UUID, GIB)
    host.use(4 * GIB)
    host.write("sys/kernel/mm/ksm/pages_sharing", f"{20 * GIB // PAGE_BYTES}\n")
    host.write("proc/40/ksm_merging_pages", "0\n")
    both = OURS | {OTHER_UUID: VmMemory(managed=True, ordinary_bytes=4 * GIB)}
    watch = host.watch()
    look = watch.identity.all

    def ends(pids: Iterable[int]) -> dict[int, str]:
        found = look(pids)
        host.end(41)
        return found

    monkeypatch.setattr(watch.identity, "all", ends)
    assert watch.read(0.0, both).others_bytes == 2 * GIB


def test_a_large_vm_that_ends_does_not_look_like_a_hungry_host(host: FakeHost) -> None:
    """The kernel frees for seconds what a process held that is gone from /proc already."""
    watch = host.watch()
    host.qemu(40, UUID, 40 * GIB)
    host.use(40 * GIB)
    assert watch.read(0.0, OURS).others_bytes == 2 * GIB
    host.end(40)
    assert watch.read(1.0, {}).others_bytes == 2 * GIB
    host.use(-40 * GIB)
    assert watch.read(9.0, {}).others_bytes == 2 * GIB


def test_a_vm_that_just_starts_is_nobody_elses(host: FakeHost) -> None:
    watch = host.watch()
    watch.read(0.0, {})
    host.qemu(40, UUID, 3 * GIB)
    host.use(3 * GIB)
    facts = watch.read(1.0, {})
    assert (facts.foreign_bytes, facts.others_bytes) == (0, 2 * GIB)
    assert watch.read(60.0, {}).foreign_bytes == 3 * GIB, "libvirt never said so: somebody must pay for it"


def test_a_process_that_becomes_qemu_is_seen(host: FakeHost) -> None:
    watch = host.watch()
    host.process(40, MIB, "libvirtd", name="rpc-libvirtd")
    assert watch.read(0.0, {}).foreign_bytes == 0
    host.process(40, 3 * GIB, "qemu-system-x86_64")
    host.use(3 * GIB)
    assert watch.read(1.0, {}).foreign_bytes == 3 * GIB


def test_a_vm_in_huge_pages_holds_no_ordinary_memory_beyond_what_its_process_does(host: FakeHost) -> None:
    host.qemu(40, UUID, 100 * MIB)
    host.use(100 * MIB)
    facts = host.watch().read(0.0, {UUID: VmMemory(managed=False, ordinary_bytes=0)})
    assert facts.unmanaged_bytes <= 100 * MIB + STEP_BYTES


def test_a_meminfo_without_a_total_is_an_error_and_other_files_are_not_needed(host: FakeHost) -> None:
    host.meminfo(MemTotal=None)
    with pytest.raises(KeyError):
        host.watch().read(0.0, {})


def test_an_unmanaged_vm_that_holds_more_than_its_ram_counts_with_that(host: FakeHost) -> None:
    host.qemu(40, UUID, 5 * GIB)
    host.use(5 * GIB)
    assert host.watch().read(0.0, FOREIGN).unmanaged_bytes == 5 * GIB


def test_a_recycled_pid_is_no_qemu_any_more(host: FakeHost) -> None:
    watch = host.watch()
    host.process(50, GIB)
    host.use(3 * GIB)
    assert watch.read(0.0, {}).foreign_bytes == GIB
    host.process(50, 3 * GIB, "java", name="java", started=2000)
    assert watch.read(100.0, {}).foreign_bytes == 0


def kills(host: FakeHost, pid: int, *words: str, name: str = "earlyoom", **more: Any) -> None:
    host.process(pid, MIB, *words, name=name, **({"uid": 0} | more))


OOMD_SERVICE = "0::/system.slice/systemd-oomd.service"
KEPT = 2 * GIB + 512 * MIB + 2 * GIB
"""Of 64 GiB: what others use, and the spare."""


def test_what_a_program_of_the_host_wants_to_be_available_vms_cannot_have(host: FakeHost) -> None:
    """It kills the largest process, which is a VM."""
    kills(host, 70, "/usr/bin/earlyoom", "-r", "3600")
    facts = host.watch().read(0.0, {})
    assert abs((facts.limit_bytes or 0) - (64 * GIB * 9 // 10 - KEPT)) <= 2 * STEP_BYTES
    assert facts.limited_by == "earlyoom, which kills below 10 % of available memory"
    capacity = capacity_of(Settings(0, 0, capacity_follows=True, reserve_follows=True), facts)
    assert (capacity.size_bytes, capacity.bound) == (facts.limit_bytes, facts.limited_by)


def test_the_largest_share_counts_and_is_asked_for_anew_each_minute(host: FakeHost) -> None:
    kills(host, 70, "/usr/bin/earlyoom", "-m", "4")
    host.write("etc/nohang/nohang.conf", "soft_threshold_min_mem = 25 %\n")
    kills(host, 71, "/usr/bin/python3", "/usr/sbin/nohang", name="nohang")
    watch = host.watch()
    assert "25 %" in watch.read(0.0, {}).limited_by
    host.end(71)
    assert "25 %" in watch.read(59.0, {}).limited_by
    assert "4 %" in watch.read(60.0, {}).limited_by
    host.end(70)
    assert watch.read(120.0, {}).limit_bytes is None


def test_while_swap_is_free_they_kill_nobody(host: FakeHost) -> None:
    kills(host, 70, "/usr/bin/earlyoom")
    watch = host.watch()
    for free, limited in ((4 * GIB, False), (2 * GIB + MIB, False), (2 * GIB, True), (0, True)):
        host.meminfo(SwapTotal=8 * GIB, SwapFree=free)
        assert (watch.read(0.0, {}).limit_bytes is not None) is limited


def test_whoever_calls_a_program_so_takes_nothing_from_vms(host: FakeHost) -> None:
    kills(host, 70, "/tmp/earlyoom", "-m", "100", uid=1000, cgroup="0::/user.slice/user-1000.slice/x.scope")
    kills(host, 71, "/usr/bin/earlyoom", inside=(7,))  # in a container
    assert host.watch().read(0.0, {}).limit_bytes is None
    kills(host, 72, "/usr/bin/earlyoom", uid=61500, cgroup="0::/system.slice/earlyoom.service")
    assert "10 %" in host.watch().read(0.0, {}).limited_by


def test_those_that_go_by_stalls_bound_nothing_and_the_doctor_names_them(host: FakeHost) -> None:
    assert read_kernel(host.root).killers == ()
    kills(host, 70, "/tmp/systemd-oomd", name="systemd-oomd", uid=1000)
    kills(host, 71, "/usr/lib/systemd/systemd-oomd", name="systemd-oomd", inside=(31,))
    assert read_kernel(host.root).killers == (), "a user's, and a container's"
    kills(host, 72, "/usr/lib/systemd/systemd-oomd", name="systemd-oomd", uid=990, cgroup=OOMD_SERVICE)
    kills(host, 73, "/usr/bin/bustd", name="bustd")
    assert read_kernel(host.root).killers == ("bustd", "systemd-oomd")
    assert host.watch().read(0.0, {}).limit_bytes is None
