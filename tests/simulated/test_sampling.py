"""What a look by clock at a process's threads is taken for."""

from pathlib import Path

import pytest

from bench.real import sampling
from bench.real.sampling import Exported, Frame, Sample, parse, state, what

PID = 700
EXPORTED = Exported(
    [0x1000, 0x6B0260, 0x6E38F0, 0x7D8C00, 0x7DF440],
    ["main", "do_interrupt_x86_hardirq", "gen_intermediate_code", "cpu_exec", "tb_gen_code"],
)
QEMU = str(sampling.QEMU)
TOLD = f"""
CPU 0/TCG     700/712
\tffffffff81a00b87 clear_page_erms ([kernel.kallsyms])
\tffffffff81b2 asm_exc_page_fault ([kernel.kallsyms])
\t    7f0000001234 [unknown] (//anon)

qemu-system-x86     700/700
\t    7f0000001234 ppoll (/usr/lib/x86_64-linux-gnu/libc.so.6)

python     900/900
CPU 0/TCG     700/712
\t          7df4ff [unknown] ({QEMU})
"""


def test_what_perf_tells_is_read_thread_by_thread() -> None:
    first, second, third, fourth = parse(TOLD.splitlines())
    assert first.thread == "CPU 0/TCG"
    assert first.pid == PID
    assert [one.name for one in first.frames] == ["clear_page_erms", "asm_exc_page_fault", "[unknown]"]
    assert second.frames == (Frame(0x7F0000001234, "ppoll", "/usr/lib/x86_64-linux-gnu/libc.so.6"),)
    assert third == Sample("python", 900, ())
    assert fourth.frames[0].file == QEMU


def at(address: int, file: str = QEMU, *outer: str, thread: str = "CPU 0/TCG") -> Sample:
    kernel = tuple(Frame(sampling._KERNEL_FROM, name, "[kernel.kallsyms]") for name in outer)
    return Sample(thread, PID, (Frame(address, "[unknown]", file), *kernel))


IN_KERNEL = 0xFFFFFFFF81000000


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (at(0x7F0000000000, "//anon"), sampling.GUEST_CODE),
        (at(0x7F0000000000, "[unknown]"), sampling.GUEST_CODE),
        (at(0x7F0000000000, "/memfd:tcg-jit (deleted)"), sampling.GUEST_CODE),
        (at(0x7F0000000000, "/tmp/perf-4711.map"), sampling.GUEST_CODE),
        (at(0x7DF440), sampling.TRANSLATES),
        (at(0x6E38F8), sampling.TRANSLATES),
        (at(0x6B0260 + 0x2000), sampling.TRANSLATES),
        (at(0x6B0260 + 0x200), sampling.HELPS),
        (at(0x7D8C10), sampling.HELPS),
        (at(0x1000), sampling.HELPS),
        (at(0x7F0000000000, "/usr/lib/x86_64-linux-gnu/libc.so.6"), sampling.HELPS),
        (at(IN_KERNEL, "[kernel.kallsyms]", "handle_mm_fault", "exc_page_fault"), sampling.FAULTS),
        (at(IN_KERNEL, "[kernel.kallsyms]", "__x64_sys_madvise"), sampling.GIVES_BACK),
        (at(IN_KERNEL, "[kernel.kallsyms]", "__x64_sys_futex"), sampling.KERNEL),
        (at(0x7DF440, thread="qemu-system-x86"), sampling.DEVICES),
        (Sample("CPU 0/TCG", PID, ()), sampling.KERNEL),
    ],
)
def test_each_look_at_a_thread_of_qemus_has_a_name(sample: Sample, expected: str) -> None:
    assert what(sample, EXPORTED) == expected


@pytest.mark.parametrize(
    ("registers", "expected"),
    [
        ("RIP=ffffffff81a5 CPL=0 II=0 A20=1 SMM=0 HLT=1", "waits"),
        ("RIP=ffffffff81a5 CPL=0 II=0 A20=1 SMM=0 HLT=0", "kernel"),
        ("RIP=00007f12 CPL=3 II=0 A20=1 SMM=0 HLT=0", "program"),
    ],
)
def test_a_guest_waits_or_runs_its_kernel_or_a_program(registers: str, expected: str) -> None:
    assert state(registers) == expected


def test_the_exported_functions_are_those_that_nm_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = "0000000000001000 T main\n0000000000002000 D data\n0000000000003000 t own\n"
    (tmp_path / "nm").write_text(f"#!/bin/sh\necho '{listed}'\n")
    (tmp_path / "nm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Exported.of(tmp_path) == Exported([0x1000, 0x3000], ["main", "own"])
