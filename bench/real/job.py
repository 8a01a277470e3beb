"""A fixed job for guests: compile files of Python's library, keep an object of each, and link them.

Its memory grows object by object, as that of a build does; the link at its end reads all of it again, so that
what was swapped out has to come back. Built again, each object takes the place of the one before.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.errors import LabError
from lab.guest import Guest

OBJECT_MIB: Final = 8
LIMIT: Final = 240.0

_PROGRAM: Final = """
import ast, glob, marshal, sys, time, zlib
count, size, builds = int(sys.argv[1]), int(sys.argv[2]) << 20, int(sys.argv[3])
with open("/proc/self/oom_score_adj", "w") as score:
    score.write("500")
began = time.monotonic()
paths = sorted(glob.glob("/usr/lib/python3*/*.py"))[:count]
assert len(paths) == count
objects = {}
for _ in range(builds):
    for path in paths:
        with open(path, "rb") as source:
            text = source.read(8192).rpartition(b"\\ndef ")[0] or b"pass"
        try:
            code = compile(ast.parse(text), path, "exec")
        except SyntaxError:
            code = compile("pass", path, "exec")
        made = marshal.dumps(code)
        objects[path] = (made * (size // len(made) + 1))[:size]
    linked = 0
    for made in objects.values():
        linked = zlib.crc32(made, linked)
print("took", time.monotonic() - began)
"""


@dataclass(frozen=True, slots=True)
class Done:
    """One run of the job; `seconds` is infinite when it was killed."""

    seconds: float
    stalled_seconds: float
    """PSI `some`."""
    major_faults: int
    swap_in_pages: int
    agent_seconds: float
    """Processor time of the agent."""
    host_faults: int
    """Page faults of its QEMU: what it touches first of a page, or huge page, of the host's."""
    refault_pages: int
    """Read again, or swapped in again, so soon that they were in use when they went."""
    swap_out_pages: int


def run_job(guest: Guest, files: int, builds: int = 1, object_mib: int = OBJECT_MIB) -> Done:
    """Run it, and see what the guest's kernel counted meanwhile."""
    program = base64.b64encode(_PROGRAM.encode()).decode()
    command = f"echo {program} | base64 -d | python3 -I -S - {files} {object_mib} {builds}"
    faults, agent = host_faults(guest), _agent_seconds(guest)
    before = guest.workload.memory()
    said = guest.workload.exec(command, limit=LIMIT, check=False)
    after = guest.workload.memory()
    faults, agent = host_faults(guest) - faults, _agent_seconds(guest) - agent
    if "took" not in said and "Killed" not in said and said.strip():
        raise LabError(f"the job failed: {said[-500:]}")
    return Done(
        float(said.split()[-1]) if "took" in said else float("inf"),
        (_stalled(after.psi) - _stalled(before.psi)) / 1e6,
        after.vmstat["pgmajfault"] - before.vmstat["pgmajfault"],
        after.vmstat["pswpin"] - before.vmstat["pswpin"],
        agent,
        faults,
        _refaults(after.vmstat) - _refaults(before.vmstat),
        after.vmstat["pswpout"] - before.vmstat["pswpout"],
    )


def _refaults(vmstat: dict[str, int]) -> int:
    return vmstat["workingset_refault_file"] + vmstat["workingset_refault_anon"]


def _stalled(psi: str) -> int:
    return int(psi.split("total=", 1)[1].split()[0])


def _agent_seconds(guest: Guest) -> float:
    pid = guest.workload.agent().pid
    return int(guest.workload.exec(f"cat /proc/{pid}/schedstat").split()[0]) / 1e9


def host_faults(guest: Guest) -> int:
    """Minor page faults of its QEMU since it started."""
    return int(Path(f"/proc/{guest.qemu_pid()}/stat").read_text().rpartition(")")[2].split()[7])
