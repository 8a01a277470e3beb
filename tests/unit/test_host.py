"""What the host's kernel says of VMs, from recorded and made-up /proc files."""

import os
from pathlib import Path

import pytest

from host_controller.host import memory, qemu_process
from host_controller.units import GIB, KIB, MIB

SMAPS = (Path(__file__).parent / "data" / "smaps-tcg-with-dimm.txt").read_bytes()
BLOCKS = (128 * MIB, 128 * MIB)
UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"


def rss(smaps: bytes = SMAPS) -> int:
    return sum(int(line.split()[1]) * KIB for line in smaps.splitlines() if line.startswith(b"Rss:"))


def block(
    size: int,
    permissions: str,
    rss_kib: int,
    pss_kib: int | None = None,
    swap_kib: int = 0,
    huge_kib: int = 0,
) -> bytes:
    return (
        f"7f0000000000-{0x7F0000000000 + size:x} {permissions} 00000000 00:00 0 \n"
        f"Size: {size // KIB} kB\nRss: {rss_kib} kB\nPss: {rss_kib if pss_kib is None else pss_kib} kB\n"
        f"Pss_Dirty: 0 kB\nAnonHugePages: {huge_kib} kB\nSwap: {swap_kib} kB\nSwapPss: 0 kB\nVmFlags: rd wr\n"
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


def test_the_reserve_grows_with_the_host_and_with_what_others_use() -> None:
    assert memory.default_reserve_bytes(64 * GIB, 0) == 512 * MIB + 2 * GIB
    assert memory.default_reserve_bytes(64 * GIB, 3 * GIB) == 512 * MIB + 5 * GIB
    assert memory.default_reserve_bytes(64 * GIB, -1) == memory.default_reserve_bytes(64 * GIB, 0)


def test_a_small_host_keeps_half_for_vms() -> None:
    assert memory.default_reserve_bytes(2 * GIB, 4 * GIB) == 1 * GIB


class Proc:
    """A /proc of our own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.smaps_reads = 0

    def process(
        self, pid: int, uuid: str, start: int = 1000, smaps: bytes = SMAPS, name: str = "qemu"
    ) -> None:
        directory = self.root / str(pid)
        directory.mkdir(exist_ok=True)
        arguments = ["qemu-system-x86_64", "-name", "guest=x", "-uuid", uuid, "-m", "size=1k"]
        (directory / "cmdline").write_bytes("\0".join(arguments).encode() + b"\0")
        fields = ["S", *["0"] * 18, str(start), "0"]
        (directory / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
        (directory / "smaps").write_bytes(smaps)
        self.resident(pid, rss(smaps))

    def resident(self, pid: int, size_bytes: int) -> None:
        (self.root / str(pid) / "statm").write_text(
            f"99999 {size_bytes // qemu_process.PAGE_BYTES} 1 1 0 1 0\n"
        )


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_a_vm_is_found_by_its_uuid_whatever_its_process_is_called(proc: Proc) -> None:
    proc.process(41, "00000000-0000-0000-0000-000000000000")
    proc.process(42, UUID.upper(), name="a) (b) R 1 1")
    assert qemu_process.Processes(proc.root).find(UUID) == 42
    assert qemu_process.Processes(proc.root).find("11111111-0000-0000-0000-000000000000") is None


def test_a_recycled_pid_is_not_taken_for_the_vm(proc: Proc) -> None:
    processes = qemu_process.Processes(proc.root)
    proc.process(42, UUID)
    assert processes.find(UUID) == 42
    proc.process(42, "00000000-0000-0000-0000-000000000000", start=2000)
    assert processes.find(UUID) is None


def test_an_unmoved_process_is_not_looked_into_again(proc: Proc) -> None:
    meter = qemu_process.ResidentMeter(proc.root)
    proc.process(42, UUID)
    first = meter.read(UUID, BLOCKS)
    assert first is not None
    (proc.root / "42" / "smaps").unlink()
    assert meter.read(UUID, BLOCKS) == first


def test_a_plugged_dimm_is_looked_for_at_once(proc: Proc) -> None:
    meter = qemu_process.ResidentMeter(proc.root)
    proc.process(42, UUID)
    meter.read(UUID, BLOCKS[:1])
    proc.process(42, UUID, smaps=SMAPS + block(256 * MIB, "rw-p", 1024))
    found = meter.read(UUID, (*BLOCKS, 256 * MIB))
    assert found is not None
    assert found.guest_bytes == 7 * MIB


def test_between_two_looks_growth_counts_and_shrinking_is_not_believed(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_process, "SMAPS_COST_SHARE", 10**9)
    meter = qemu_process.ResidentMeter(proc.root)
    proc.process(42, UUID)
    first = meter.read(UUID, BLOCKS)
    assert first is not None
    proc.resident(42, rss() + 10 * MIB)
    grown = meter.read(UUID, BLOCKS)
    proc.resident(42, rss() - MIB)
    fallen = meter.read(UUID, BLOCKS)
    assert grown is not None
    assert fallen is not None
    assert grown.guest_bytes == first.guest_bytes + 10 * MIB
    assert fallen.guest_bytes == first.guest_bytes


def test_a_process_that_has_ended_holds_nothing(proc: Proc) -> None:
    meter = qemu_process.ResidentMeter(proc.root)
    proc.process(42, UUID)
    assert meter.read(UUID, BLOCKS) is not None
    for path in (proc.root / "42").iterdir():
        path.unlink()
    assert meter.read(UUID, BLOCKS) is None


def test_this_host_can_be_read() -> None:
    facts = memory.host_facts(1.0)
    assert 0 < facts.available_bytes < facts.total_bytes == memory.physical_memory_bytes()
    assert qemu_process.process_resident_bytes(os.getpid()) > MIB
    assert memory.others_bytes([]) > 0


def test_a_proc_that_cannot_be_listed_says_nothing_and_ends_nothing(proc: Proc) -> None:
    """As when file descriptors have run out."""
    meter = qemu_process.ResidentMeter(proc.root / "gone")
    assert meter.read(UUID, BLOCKS) is None
