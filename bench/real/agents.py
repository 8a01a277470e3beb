"""What the agent executes while its guest grows: this one, and those before it was made cheaper.

The job of `impact` in a new guest that grows by virtio-mem, under the same controller, with each agent in
turn. As in `counted`, a second of the guest's is 10^9 of its instructions, so the kernel's account of the
agent's time counts what it executed, system calls included.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.real.counted import COUNTED
from bench.real.harness import Goal, Ratio, Result, spread, tell
from bench.real.impact import CAPACITY, FILES, LIMITS, SMALL_MIB, SWAP
from bench.real.job import Done, run_job
from bench.real.rig import OURS, Host, host
from bench.replay.__main__ import unpack
from lab.code_disk import make_code_disk
from lab.lab import Lab

BASES: Final = ("12af730", "34fb961")
"""As its goal was set, and before its looks and its reports became cheaper (d38518c)."""
TURNS: Final = 2
GOAL: Final = 0.5
BY_DEVICE: Final = replace(LIMITS, growth="virtio-mem")
NOW: Final = "this agent"
COLUMNS: Final = (
    "guest with",
    "agent's, 10^9 instructions",
    f"÷ {BASES[0]}'s",
    "job, 10^9",
    "stalled, s",
)


def run() -> Result:
    """All of it."""
    result = Result("agents", "What the agent executes while a job grows to 640 MiB", COLUMNS)
    before = {base: f"the agent of {base}" for base in BASES}
    done: dict[str, list[Done]] = {name: [] for name in (*before.values(), NOW)}
    with Lab() as lab, host(lab, OURS, CAPACITY, shrink_after=2, settle=1) as one:
        disks: dict[str, Path | None] = {NOW: None}
        for base, name in before.items():
            disks[name] = disk = lab.directory / f"{base}.ext4"
            with tempfile.TemporaryDirectory() as tree:
                make_code_disk(disk, lab.image.initrd, unpack(base, Path(tree) / base))
        for turn in range(TURNS):
            for number, (name, jobs) in enumerate(done.items()):
                jobs.append(_grown(one, f"a{number}turn{turn}", disks[name]))
            told = (f"{jobs[-1].agent_seconds:.4f}" for jobs in done.values())
            tell(f"agents: {' → '.join(told)}")
    took = {name: spread([each.agent_seconds for each in jobs]) for name, jobs in done.items()}
    for name, jobs in done.items():
        result.rows.append(
            (
                name,
                took[name],
                took[name].median / took[before[BASES[0]]].median,
                spread([each.seconds for each in jobs]),
                spread([each.stalled_seconds for each in jobs]),
            )
        )
    for base, name in before.items():
        ratio = took[NOW].median / took[name].median
        result.goals.append(Goal(f"agent's instructions while it grows, ÷ {base},", ratio, GOAL))
        result.ratios[f"agent's instructions while it grows, ÷ {base}"] = Ratio(ratio)
    return result


def _grown(one: Host, name: str, code_disk: Path | None = None) -> Done:
    (guest,) = one.add({name: BY_DEVICE}, code_disk, swap_mib=SWAP, **COUNTED)
    try:
        run_job(guest, FILES, object_mib=SMALL_MIB)
        one.controller.wait_at_rest(guest, quiet=1.0)
        return run_job(guest, FILES)
    finally:
        one.remove(guest)


if __name__ == "__main__":
    print(run().text())
