"""What a VM's process really holds, from recorded and made-up /proc files."""

from pathlib import Path

import pytest

from host_controller.host import qemu_process
from host_controller.host.identity import Identity
from host_controller.host.qemu_process import ResidentMeter
from host_controller.units import GIB, KIB, MIB
from tests.support.fake_host import OTHER_UUID, UUID, FakeHost

SMAPS = (Path(__file__).parents[1] / "data" / "smaps-tcg-with-dimm.txt").read_bytes()
BLOCKS = (128 * MIB, 128 * MIB)


def rss(smaps: bytes = SMAPS) -> int:
    return sum(int(line.split()[1]) * KIB for line in smaps.splitlines() if line.startswith(b"Rss:"))


def block(
    size: int,
    permissions: str,
    rss_kib: int,
    pss_kib: int | None = None,
    swap_kib: int = 0,
    huge_kib: int = 0,
    shared_huge_kib: int | None = 0,
) -> bytes:
    shared = "" if shared_huge_kib is None else f"ShmemPmdMapped: {shared_huge_kib} kB\nFilePmdMapped: 0 kB\n"
    return (
        f"7f0000000000-{0x7F0000000000 + size:x} {permissions} 00000000 00:00 0 \n"
        f"Size: {size // KIB} kB\nRss: {rss_kib} kB\nPss: {rss_kib if pss_kib is None else pss_kib} kB\n"
        f"Pss_Dirty: 0 kB\nAnonHugePages: {huge_kib} kB\n{shared}"
        f"Swap: {swap_kib} kB\nSwapPss: 0 kB\nVmFlags: rd wr\n"
    ).encode()


def test_every_mapping_of_smaps_is_read() -> None:
    assert len(qemu_process.read_smaps(SMAPS)) == SMAPS.count(b"\nVmFlags")
    assert sum(one.rss_bytes for one in qemu_process.read_smaps(SMAPS)) == rss()


def test_guest_ram_is_told_from_the_translation_cache_and_the_rest() -> None:
    found = qemu_process.resident_of(qemu_process.read_smaps(SMAPS), BLOCKS)
    assert found.identified
    assert found.guest_bytes == 6 * MIB
    assert 2 * MIB < found.overhead_bytes < rss() - found.guest_bytes
    assert found.swap_bytes == 0


def test_when_a_block_is_not_found_the_whole_process_is_guest_memory() -> None:
    found = qemu_process.resident_of(qemu_process.read_smaps(SMAPS), (*BLOCKS, 256 * MIB))
    assert found == qemu_process.Resident(rss(), 0, 0, identified=False)


def test_of_more_mappings_than_blocks_the_fullest_is_guest_memory() -> None:
    smaps = block(64 * MIB, "rw-p", 10) + block(64 * MIB, "rw-p", 5000) + block(64 * MIB, "rw-p", 20)
    assert qemu_process.resident_of(qemu_process.read_smaps(smaps), (64 * MIB,)).guest_bytes == 5000 * KIB


def test_of_guest_ram_the_part_in_huge_pages_is_told() -> None:
    smaps = block(GIB, "rw-p", 8192, huge_kib=4096) + block(MIB, "rw-p", 2048, huge_kib=2048)
    assert qemu_process.resident_of(qemu_process.read_smaps(smaps), (GIB,)).huge_bytes == 4096 * KIB


def test_huge_pages_of_shared_guest_ram_are_told_as_well() -> None:
    """The host's khugepaged fills those of a memfd, too, and what it fills in is no lie of the guest's."""
    since_4_8 = block(GIB, "rw-s", 8192, shared_huge_kib=6144)
    smaps = since_4_8 + block(2 * GIB, "rw-p", 8192, shared_huge_kib=None)
    found = qemu_process.resident_of(qemu_process.read_smaps(smaps), (GIB, 2 * GIB))
    assert (found.guest_bytes, found.huge_bytes) == (16384 * KIB, 6144 * KIB)


def test_numa_cells_that_lie_in_one_mapping_are_found_there() -> None:
    """Machine types before 5.1 have one for all: `-numa node,mem=` without a memory backend."""
    smaps = block(3 * GIB, "rw-p", 5000) + block(128 * MIB, "rw-p", 100) + block(MIB, "rw-p", 70)
    mappings = qemu_process.read_smaps(smaps)
    for blocks in ((GIB, 2 * GIB, 128 * MIB), (GIB, GIB, GIB, 128 * MIB), (3 * GIB, 128 * MIB)):
        assert qemu_process.resident_of(mappings, blocks) == qemu_process.Resident(
            5100 * KIB, 70 * KIB, 0, identified=True
        )
    for blocks in ((GIB, GIB, 128 * MIB), (3 * GIB, 3 * GIB), (2 * GIB, GIB, 3 * GIB)):
        assert not qemu_process.resident_of(mappings, blocks).identified


@pytest.mark.parametrize(
    ("ram", "file_kib", "overhead_kib"),
    [
        ("rw-p", 9000 + 300, 150),  # of a disk, or of persistent memory; 300 are QEMU's program
        ("rw-p", 300, 8850),  # in a tmpfs, which is memory
        ("rw-s", 9000 + 300, 550),  # RAM may be a file's, too
    ],
)
def test_the_file_of_an_nvdimm_is_none_of_qemus_own_memory(
    host: FakeHost, meter: ResidentMeter, ram: str, file_kib: int, overhead_kib: int
) -> None:
    smaps = (
        block(GIB, ram, 700)
        + block(64 * GIB, "rw-s", 9000)
        + block(MIB, "rw-p", 100)
        + block(MIB, "r-xp", 50)
    )
    host.qemu(42, UUID, rss(smaps), file_bytes=file_kib * KIB)
    (host.root / "proc/42/smaps").write_bytes(smaps)
    found = meter.read(UUID, (GIB,))
    assert found == qemu_process.Resident(700 * KIB, overhead_kib * KIB, 0, identified=True)


def test_an_executable_mapping_of_the_right_size_is_not_guest_ram() -> None:
    smaps = block(GIB, "rwxp", 90000) + block(GIB, "rw-p", 400)
    found = qemu_process.resident_of(qemu_process.read_smaps(smaps), (GIB,))
    assert (found.guest_bytes, found.overhead_bytes) == (400 * KIB, 90000 * KIB)


def test_shared_memory_guest_ram_is_found_and_pages_in_swap_are_counted() -> None:
    smaps = block(GIB, "rw-s", 4000, pss_kib=2000, swap_kib=300) + block(MIB, "rw-p", 100, swap_kib=8)
    found = qemu_process.resident_of(qemu_process.read_smaps(smaps), (GIB,))
    assert (found.guest_bytes, found.overhead_bytes, found.swap_bytes) == (
        4000 * KIB,
        100 * KIB,
        308 * KIB,
    )


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    found = FakeHost(tmp_path)
    vm(found)
    return found


def vm(host: FakeHost, smaps: bytes = SMAPS, started: int = 1000) -> None:
    host.qemu(42, UUID, rss(smaps), started=started)
    (host.root / "proc/42/smaps").write_bytes(smaps)


@pytest.fixture
def meter(host: FakeHost) -> ResidentMeter:
    proc = host.root / "proc"
    return ResidentMeter(Identity("qemu:///system", proc, host.run), proc)


def test_an_unmoved_process_is_not_looked_into_again(host: FakeHost, meter: ResidentMeter) -> None:
    first = meter.read(UUID, BLOCKS)
    assert first is not None
    (host.root / "proc/42/smaps").unlink()
    assert meter.read(UUID, BLOCKS) == first


def test_a_plugged_dimm_is_looked_for_at_once(host: FakeHost, meter: ResidentMeter) -> None:
    meter.read(UUID, BLOCKS[:1])
    vm(host, SMAPS + block(256 * MIB, "rw-p", 1024))
    found = meter.read(UUID, (*BLOCKS, 256 * MIB))
    assert found is not None
    assert found.guest_bytes == 7 * MIB


def test_the_limit_on_a_vms_own_group_is_that_of_its_process(host: FakeHost, meter: ResidentMeter) -> None:
    assert meter.own_limit(UUID) is None
    host.qemu(42, UUID, rss(SMAPS), started=1000, cgroup="0::/machine.slice/machine-qemu-1.scope")
    host.group("machine.slice/machine-qemu-1.scope", max=2 * GIB)
    found = meter.own_limit(UUID)
    assert found is not None
    assert (found.left_bytes, found.group) == (2 * GIB, "memory.max of machine-qemu-1.scope")
    assert meter.own_limit("another") is None


def test_between_two_looks_growth_counts_and_shrinking_is_not_believed(
    host: FakeHost, meter: ResidentMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_process, "SMAPS_COST_SHARE", 10**9)
    first = meter.read(UUID, BLOCKS)
    assert first is not None
    host.holds(42, rss() + 10 * MIB)
    grown = meter.read(UUID, BLOCKS)
    host.holds(42, rss() - MIB)
    fallen = meter.read(UUID, BLOCKS)
    assert grown is not None
    assert fallen is not None
    assert grown.guest_bytes == first.guest_bytes + 10 * MIB
    assert fallen.guest_bytes == first.guest_bytes


def test_a_process_that_has_ended_holds_nothing(host: FakeHost, meter: ResidentMeter) -> None:
    assert meter.read(UUID, BLOCKS) is not None
    host.end(42)
    assert meter.read(UUID, BLOCKS) is None


def test_a_process_that_is_ending_has_given_nothing_back(host: FakeHost, meter: ResidentMeter) -> None:
    """Its memory map is gone before it is: smaps is there, and empty."""
    (host.root / "proc/42/smaps").write_bytes(b"")
    host.holds(42, 0)
    assert meter.read(UUID, BLOCKS) is None


def test_a_proc_that_cannot_be_listed_says_nothing_and_ends_nothing(tmp_path: Path) -> None:
    """As when file descriptors have run out."""
    gone = tmp_path / "gone"
    assert ResidentMeter(Identity("qemu:///system", gone, gone), gone).read(UUID, BLOCKS) is None


def test_a_vm_that_cannot_be_read_for_a_while_is_named_with_the_reason(
    host: FakeHost, meter: ResidentMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    host.holds(42, rss())
    with monkeypatch.context() as patched:
        patched.setattr(
            Path, "read_bytes", lambda path: refused(path) if path.name == "smaps" else _read(path)
        )
        assert meter.read(UUID, BLOCKS) is None
        assert meter.unread() == {}, "a moment at the start of a VM is nothing to tell"
        patched.setattr(qemu_process, "UNREAD_SECONDS", 0.0)
        assert "CAP_SYS_PTRACE" in meter.unread()[UUID]
    assert meter.read(UUID, BLOCKS) is not None
    assert meter.unread() == {}


def test_a_vm_without_a_pid_file_is_named_with_where_it_was_looked_for(
    host: FakeHost, meter: ResidentMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_process, "UNREAD_SECONDS", 0.0)
    assert meter.read(OTHER_UUID, BLOCKS) is None
    assert str(host.run) in meter.unread()[OTHER_UUID]
    meter.forget(OTHER_UUID)
    assert meter.unread() == {}


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read()
