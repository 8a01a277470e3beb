"""Where host and guests are, by clock: some hundred times a second it is asked what runs.

There are no hardware counters here, so the kernel's timer asks (`perf`, cpu-clock), on each processor that is
in use. A guest is asked over its monitor whether it waits, or runs its kernel or a program. Most functions of
QEMU's are in no list of its program: the exported one before each tells of which source file it is.
"""

import bisect
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from lab.errors import LabError
from lab.guest import Guest

HERTZ: Final = 249
"""Not in step with what wakes a whole number of times a second."""
GUEST_SECONDS: Final = 0.05
READY_SECONDS: Final = 0.5
"""Until perf has its timers."""
QEMU: Final = Path("/usr/bin/qemu-system-x86_64")

GUEST_CODE: Final = "guest's code, translated"
TRANSLATES: Final = "QEMU translates it"
HELPS: Final = "QEMU otherwise: its memory, interrupts, the loop around"
FAULTS: Final = "host's kernel: page faults"
GIVES_BACK: Final = "host's kernel: what a balloon took is given back"
KERNEL: Final = "host's kernel otherwise"
DEVICES: Final = "QEMU's other threads: devices, monitor"

_HEAD: Final = re.compile(r"(?P<thread>\S.*?)\s+(?P<pid>\d+)/\d+\s*$")
_FRAME: Final = re.compile(r"\s+(?P<at>[0-9a-f]+) (?P<name>\S+) \((?P<file>.*)\)$")
_TRANSLATES: Final = re.compile(
    r"tcg_(?!exec|cpu_exec|flush|tb_|register)|tb_(gen_code|link_page)|translator_|plugin_gen_|gen_intermediate_code"
    r"|page_(find|lock|unlock|collection)"
)
_BEFORE_TRANSLATOR: Final = ("do_interrupt_x86_hardirq", 0x1000)
"""The translator's own functions are static, and follow the end of this one."""
_KERNEL_FROM: Final = 1 << 63
_NO_FILES: Final = ("//", "/memfd", "/dev", "/tmp/perf-")  # noqa: S108  nothing is put there
"""Perf says that what lies in memory without a file is in a map that a compiler could have written there."""
_REGISTERS: Final[dict[str, Any]] = {"command-line": "info registers"}


class Frame(NamedTuple):
    """Of a call chain; the innermost comes first."""

    at: int
    """Of a program or a library: in its file."""
    name: str
    file: str


class Sample(NamedTuple):
    """What one processor did at one moment."""

    thread: str
    pid: int
    frames: tuple[Frame, ...]


def parse(text: Iterable[str]) -> Iterator[Sample]:
    """Of `perf script -F comm,pid,tid,ip,sym,dso`."""
    head: re.Match[str] | None = None
    frames: list[Frame] = []
    for line in [*text, ""]:
        if frame := _FRAME.match(line):
            frames.append(Frame(int(frame["at"], 16), frame["name"], frame["file"]))
            continue
        if head is not None:
            yield Sample(head["thread"], int(head["pid"]), tuple(frames))
        head, frames = _HEAD.match(line.strip()), []


@dataclass(frozen=True, slots=True)
class Exported:
    """A program's exported functions, by address in its file."""

    addresses: Sequence[int]
    names: Sequence[str]

    @classmethod
    def of(cls, program: Path) -> "Exported":
        """As `nm` lists them."""
        listed = subprocess.run(
            ["nm", "-D", "--defined-only", "-n", program], capture_output=True, text=True, check=True
        )
        found = [line.split() for line in listed.stdout.splitlines()]
        code = [(int(one[0], 16), one[2]) for one in found if len(one) == 3 and one[1] in "Tt"]
        return cls([at for at, _ in code], [name for _, name in code])

    def translates(self, address: int) -> bool:
        """Whether what lies there makes code of a guest's, and does not run it."""
        index = bisect.bisect_right(self.addresses, address) - 1
        if index < 0:
            return False
        name, offset = self.names[index], address - self.addresses[index]
        before, least = _BEFORE_TRANSLATOR
        return bool(_TRANSLATES.match(name)) or (name == before and offset >= least)


def what(sample: Sample, exported: Exported) -> str:
    """What one of QEMU's threads did."""
    if not sample.frames:
        return KERNEL
    leaf = sample.frames[0]
    if leaf.at >= _KERNEL_FROM:
        names = [frame.name for frame in sample.frames if frame.at >= _KERNEL_FROM]
        if any("page_fault" in name or "user_addr_fault" in name for name in names):
            return FAULTS
        return GIVES_BACK if any("madvise" in name or "fallocate" in name for name in names) else KERNEL
    if not sample.thread.startswith("CPU"):
        return DEVICES
    if not leaf.file.startswith("/") or leaf.file.startswith(_NO_FILES):
        return GUEST_CODE
    if leaf.file == str(QEMU) and exported.translates(leaf.at):
        return TRANSLATES
    return HELPS


@dataclass(slots=True)
class Found:
    """Processor seconds of the host by what was done, and looks at the guests by what they did."""

    seconds: dict[str, float] = field(default_factory=dict)
    guests: Counter[str] = field(default_factory=Counter)


@contextmanager
def sampled(guests: Sequence[Guest], others: Mapping[int, str]) -> Iterator[Found]:
    """Look at these guests and at other processes, by pid, while the block runs; then it is told."""
    if shutil.which("perf") is None:
        raise LabError("perf is not installed: apt install linux-perf")
    found, over = Found(), threading.Event()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        kept = Path(directory, "perf.data")
        watched = ",".join(map(str, [*(guest.qemu_pid() for guest in guests), *others]))
        perf = subprocess.Popen(
            ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-g", "-p", watched, "-o", kept],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(perf.kill)
        time.sleep(READY_SECONDS)
        asking = threading.Thread(target=_ask, args=(guests, found.guests, over))
        asking.start()
        try:
            yield found
        finally:
            over.set()
            asking.join()
            perf.send_signal(signal.SIGINT)
            perf.wait()
        exported = Exported.of(QEMU)
        script = ["perf", "script", "-i", str(kept), "-F", "comm,pid,tid,ip,sym,dso"]
        with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as told:
            assert told.stdout is not None
            samples = parse(line.rstrip("\n") for line in told.stdout)
            names = Counter(others.get(one.pid) or what(one, exported) for one in samples)
        found.seconds.update({name: count / HERTZ for name, count in names.items()})


def _ask(guests: Sequence[Guest], states: Counter[str], over: threading.Event) -> None:
    """Ask each guest what its processor does, again and again."""
    with ExitStack() as stack:
        monitors = [stack.enter_context(guest.qmp()) for guest in guests]
        while not over.wait(GUEST_SECONDS):
            for monitor in monitors:
                states[state(str(monitor.execute("human-monitor-command", **_REGISTERS)))] += 1


def state(registers: str) -> str:
    """Of a processor, by QEMU's list of its registers."""
    if "HLT=1" in registers:
        return "waits"
    return "kernel" if "CPL=0" in registers else "program"
