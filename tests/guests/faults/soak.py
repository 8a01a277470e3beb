"""Real guests under random work and random faults: `python -m tests.guests.faults.soak [--minutes N]`.

Three guests, one controller process for all the time. Printed, and written down with `--table FILE`: what
was done, samples above capacity of which the controller knew nothing, and its memory by the minute.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from host_controller.units import MIB
from host_controller.verify.errors import VerifyError
from host_controller.verify.observer import Observer, Sample, describe
from lab.controller import Controller, ControllerError, Limits
from lab.guest import Guest
from lab.hostile import Lie, bind_balloon, forge_actual, put_agent, put_liar, unbind_balloon
from lab.lab import Lab
from tests.guests.conftest import Rig
from tests.guests.faults.books import Books
from tests.guests.faults.document import replace_section

CAPACITY = 1700
LIMITS = Limits(startup=512, minimum=160, maximum=1024)
SWAP = 512
"""They contend, and are lied to: what cannot be given is not to kill."""
WARM_UP_MINUTES = 4
FLAT = 0.05
STEP_SECONDS = (0.5, 4.0)
FAULT_EVERY = 8
"""Steps of work to a fault."""


@dataclass
class Soak:
    """What was done so far, and what was seen."""

    rig: Rig
    rng: random.Random
    done: Counter[str] = field(default_factory=Counter)
    resident: list[tuple[float, int]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    problems: list[str] = field(default_factory=list)

    def pick(self) -> Guest:
        return self.rng.choice(list(self.rig.guests.values()))

    def wait(self, seconds: float) -> None:
        """Let time pass, and look at the controller every second."""
        until = time.monotonic() + seconds
        while True:
            resident = psutil.Process(self.rig.controller.pid).memory_info().rss
            self.resident.append((time.monotonic() - self.begun, resident))
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(1.0, left))

    # Work.

    def work(self) -> None:
        """One guest allocates, reads a file over and over, or frees everything."""
        guest = self.pick()
        kind = self.rng.choice(("allocate", "allocate", "thrash", "free", "free"))
        name = f"w{sum(self.done.values())}"
        if kind == "allocate":
            guest.workload.allocate(
                self.rng.randrange(50, 350), rate=self.rng.choice((20, 60, 0)), name=name, swaps=True
            )
        elif kind == "thrash":
            guest.workload.thrash(self.rng.randrange(50, 200), rate=40, name=name)
        else:
            guest.workload.free(limit=60)
        self.done[kind] += 1

    # Faults: each is over when its method returns.

    def fault(self) -> None:
        """One guest has a fault for a while."""
        fault = self.rng.choice(
            (
                self.agent_killed,
                self.agent_stopped,
                self.reset,
                self.qemu_stopped,
                self.lie,
                self.forged,
                self.unbound,
            )
        )
        fault(self.pick())
        self.done[fault.__name__] += 1

    def agent_killed(self, guest: Guest) -> None:
        guest.workload.signal_agent(signal.SIGKILL, respawn=False)
        self.wait(self.rng.uniform(0, 20))
        put_agent(guest)

    def agent_stopped(self, guest: Guest) -> None:
        guest.workload.signal_agent(signal.SIGSTOP)
        self.wait(self.rng.uniform(1, 20))
        guest.workload.signal_agent(signal.SIGCONT)

    def reset(self, guest: Guest) -> None:
        guest.reset()
        guest.wait_booted()

    def qemu_stopped(self, guest: Guest) -> None:
        pid = guest.qemu_pid()
        os.kill(pid, signal.SIGSTOP)
        self.wait(self.rng.uniform(1, 25))
        os.kill(pid, signal.SIGCONT)

    def lie(self, guest: Guest) -> None:
        put_liar(guest, self.rng.choice(list(Lie)))
        self.wait(self.rng.uniform(2, 8))
        put_agent(guest)

    def forged(self, guest: Guest) -> None:
        forge_actual(guest, self.rng.randrange(32, 512))
        self.wait(5)

    def unbound(self, guest: Guest) -> None:
        unbind_balloon(guest)
        self.wait(self.rng.uniform(2, 10))
        bind_balloon(guest)

    def run(self, seconds: float, books: Books) -> None:
        """Work and faults until the time is over; then everything is put right, and must be managed again."""
        minute = 0
        while (elapsed := time.monotonic() - self.begun) < seconds:
            if elapsed >= 60 * minute:
                print(f"minute {minute} of {seconds / 60:g}: {sum(self.done.values())} steps", flush=True)
                minute += 1
            step = self.fault if self.rng.randrange(FAULT_EVERY) == 0 else self.work
            try:
                step()
            except VerifyError as error:
                # A program that its guest's kernel has killed cannot be freed; a guest in need answers late.
                self.done["not answered"] += 1
                print(f"{step.__name__}: {str(error).partition(chr(10))[0]}", flush=True)
            books.look()
            self.wait(self.rng.uniform(*STEP_SECONDS))
        for guest in self.rig.guests.values():
            guest.workload.free(limit=60)
        try:
            self.rig.controller.wait_managed(*self.rig.guests.values(), limit=60)
        except ControllerError as error:
            self.problems.append(str(error).partition("\n")[0])
            print(error, flush=True)
        books.look()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a soak has shown."""

    lines: list[str]
    problems: list[str]


def judge(soak: Soak, books: Books) -> Outcome:
    """The figures, and what is wrong with them."""
    observer, capacity = soak.rig.observer, soak.rig.controller.capacity_bytes
    unrecorded = books.unrecorded(observer.samples)
    minutes: dict[int, list[int]] = {}
    for at, resident in soak.resident:
        minutes.setdefault(int(at // 60), []).append(resident)
    medians = {minute: statistics.median(found) for minute, found in minutes.items() if len(found) >= 20}
    settled = {minute: size for minute, size in medians.items() if minute >= WARM_UP_MINUTES}
    middle = statistics.mean([max(settled.values()), min(settled.values())]) if settled else 0.0
    spread = max(settled.values()) / middle - 1 if settled else 0.0
    done = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(soak.done.items()))
    most = max(sample.charge for sample in observer.samples)
    worked_off = ", ".join(
        f"{one.cause.removeprefix('overdraft of ')} ({one.end - one.begin:.1f} s)" for one in books.overdrafts
    )
    lines = [
        f"- done: {done}",
        f"- violations (samples above capacity without a recorded overdraft): {len(unrecorded)} of "
        f"{len(observer.samples)}; Σ charge at most {most / MIB:.0f} of {capacity / MIB:.0f} MiB",
        f"- recorded overdrafts: {worked_off or 'none'}",
        "- the controller's RSS by the minute, MiB: "
        + ", ".join(f"{size / MIB:.1f}" for size in medians.values()),
        f"- from minute {WARM_UP_MINUTES} on it stays within ±{spread:.1%} of {middle / MIB:.1f} MiB",
        f"- its errors: {soak.rig.controller.status()['host']['errors'] or 'none'}",
    ]
    problems = list(soak.problems)
    if unrecorded:
        for sample in unrecorded:
            print(f"unrecorded: {_about(sample, books)}", flush=True)
        first = _about(unrecorded[0], books)
        problems.append(f"{len(unrecorded)} samples above capacity, the first: {first}")
    if spread > FLAT:
        problems.append(f"RSS is not flat: ±{spread:.1%}")
    return Outcome(lines, problems)


def _about(sample: Sample, books: Books) -> str:
    """A sample, and what was recorded next to it."""
    nearest = min(books.overdrafts, key=lambda one: abs(one.begin - sample.at), default=None)
    told = f"{nearest.cause}, {nearest.begin - sample.at:+.2f} s" if nearest else "none"
    return f"{describe(sample)}; the nearest that was recorded: {told}"


def main() -> int:
    """Run it, print the outcome; the exit status is 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path, help="write the outcome into this Markdown file")
    options = parser.parse_args()
    with Lab() as lab, Observer() as observer:
        controller = Controller(lab.directory / "controller", lab.session.uri, CAPACITY, unplug_after=30)
        with controller:
            rig = Rig(lab, lab.session, observer, controller)
            guests = [rig.define(name, LIMITS, swap_mib=SWAP) for name in ("one", "two", "three")]
            rig.start(*guests)
            controller.wait_managed(*guests)
            books = Books(controller)
            soak = Soak(rig, random.Random(options.seed))
            soak.run(60 * options.minutes, books)
            outcome = judge(soak, books)
    verdict = "FAILED: " + "; ".join(outcome.problems) if outcome.problems else "held"
    head = (
        f"`make soak-guests`: random work and faults on three real guests, {options.minutes:g} minutes\n"
        f"under {lab.accelerator.name}, seed {options.seed}: {verdict}."
    )
    body = "\n".join([head, "", *outcome.lines])
    print(body)
    if options.table is not None:
        replace_section(options.table, "Soak", body)
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
