"""What the price of being managed is made of: four guests with a job each, at once, in five ways.

Times depend on what else the machine does. Processor time and counts do so far less, so the account goes by
them: what the four QEMUs, the controller and libvirtd took while the jobs ran. In turn, with the same guests:

- nobody manages them, and each has its share from the start;
- their agents report, and the controller is paused: nothing is commanded;
- nobody hears their agents, and over QMP they are sent the targets that dynmem sent, at the same instants;
- their agents stand still, and dynmem goes by their balloons' statistics;
- dynmem as it is.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from bench.real.evenness import BUILDS, FILES, GUESTS, MAXIMUM, SHARE, SWAP, WAYS, together
from bench.real.harness import Ratio, Result, processor_seconds, spread, tell
from bench.real.job import OBJECT_MIB, Done
from bench.real.rig import OURS, Host, host
from host_controller.units import MIB
from lab.controller import Limits
from lab.guest import Guest
from lab.lab import Lab

ROUNDS: Final = 2
SILENT_SECONDS: Final = 20.0
"""After so long an agent that stands still is not waited for any more."""

BARE: Final = "its share from the start, unmanaged"
HEARD: Final = "the same, agents report, nothing is commanded"
REPLAYED: Final = "dynmem's targets over QMP at the same instants, unmanaged"
BY_STATISTICS: Final = "dynmem by balloon statistics, agents stand still"


@dataclass(frozen=True, slots=True)
class Took:
    """Of one way, while the four jobs ran; seconds are processor time but for `jobs`."""

    jobs: list[Done]
    qemu_seconds: float
    controller_seconds: float
    libvirtd_seconds: float
    targets: list[list[tuple[float, int]]]
    """For each guest, the targets it was sent: seconds after the jobs began, and bytes."""

    @property
    def all_seconds(self) -> float:
        """What the host spent."""
        return self.qemu_seconds + self.controller_seconds + self.libvirtd_seconds


Watch = Callable[[list[Guest], Mapping[int, str]], AbstractContextManager[object]]
"""What goes on around the jobs, given the guests and what runs beside them, by pid."""


class Four:
    """Four guests of one host, and the ways to have them run their jobs."""

    def __init__(
        self, one: Host, growth: str = "balloon", watch: Watch = lambda _guests, _beside: nullcontext()
    ) -> None:
        """They are booted, managed, and have their programs in their caches."""
        self._one = one
        self._by_hand = WAYS[growth]
        self._watch = watch
        limits = Limits(512, 256, MAXIMUM, growth=growth)
        self.guests = one.add({f"{growth}{i}": limits for i in range(GUESTS)}, swap_mib=SWAP)
        vms = [one.controller.vm(guest) for guest in self.guests]
        beside = sum(vm["charge_bytes"] - vm["actual_bytes"] - vm["virtio_mem_bytes"] for vm in vms)
        one.set_capacity(GUESTS * SHARE + beside // MIB)
        together(self.guests, 2, 1)

    def ours(self) -> Took:
        """From rest, by dynmem."""
        self._one.controller.wait_at_rest(*self.guests, quiet=2.0)
        return self._measure(managed=True)

    def by_statistics(self) -> Took:
        """Likewise, with agents that stand still."""
        agents = [(guest, guest.workload.agent().pid) for guest in self.guests]
        for guest, pid in agents:
            guest.workload.exec(f"kill -STOP {pid}")
        time.sleep(SILENT_SECONDS)
        self._one.controller.wait_at_rest(*self.guests, quiet=2.0)
        took = self._measure(managed=True)
        for guest, pid in agents:
            guest.workload.exec(f"kill -CONT {pid}")
        return took

    def bare(self) -> Took:
        """With their shares from the start."""
        with self._unmanaged([SHARE * MIB] * GUESTS):
            return self._measure()

    def heard(self) -> Took:
        """With their shares from the start, while the controller hears them and is paused."""
        controller = self._one.controller
        controller.client.post("pause")
        with self._unmanaged([SHARE * MIB] * GUESTS):
            controller.start()
            for guest in self.guests:
                controller.wait_vm(guest, lambda vm: vm["agent"] is not None, 60, "heard of")
            took = self._measure(managed=True)
            controller.client.post("resume")
            controller.stop()
            return took

    def replayed(self, before: Took, sizes: list[int]) -> Took:
        """From these sizes, with the targets of another run at the same instants."""
        with self._unmanaged(sizes):
            return self._measure(replay=before.targets)

    def sizes(self) -> list[int]:
        """What their balloons have, bytes."""
        return [self._one.controller.vm(guest)["actual_bytes"] for guest in self.guests]

    @contextmanager
    def _unmanaged(self, sizes: list[int]) -> Iterator[None]:
        """The controller is stopped, and each guest has so much."""
        self._one.controller.stop()
        for guest, size in zip(self.guests, sizes, strict=True):
            self._by_hand(guest, size)
        yield
        self._one.start()

    def _measure(self, *, managed: bool = False, replay: list[list[tuple[float, int]]] | None = None) -> Took:
        session, pids = self._one.lab.session.pid, [guest.qemu_pid() for guest in self.guests]
        beside = {self._one.controller.pid: "controller", session: "libvirtd"} if managed else {}
        with self._watch(self.guests, beside):
            return self._run(pids, list(beside), replay)

    def _run(self, pids: list[int], beside: list[int], replay: list[list[tuple[float, int]]] | None) -> Took:
        before = [processor_seconds(pid) for pid in pids + beside]
        began = time.monotonic()
        with ThreadPoolExecutor(GUESTS) as pool:
            sending = [
                pool.submit(_send, *each, began)
                for each in zip(self.guests, replay or [[]] * GUESTS, strict=True)
            ]
            jobs = together(self.guests, FILES, BUILDS)
            spent = [processor_seconds(pid) - was for pid, was in zip(pids + beside, before, strict=True)]
            for one in sending:
                one.result()
        targets = [self._targets(guest, began) if beside else [] for guest in self.guests]
        controller, libvirtd = spent[GUESTS:] or (0.0, 0.0)
        return Took(jobs, sum(spent[:GUESTS]), controller, libvirtd, targets)

    def _targets(self, guest: Guest, began: float) -> list[tuple[float, int]]:
        sent = self._one.sent(guest, "SetTarget", since=began)
        return [(one.at - began, one.data["target_bytes"]) for one in sent]


def _send(guest: Guest, targets: list[tuple[float, int]], began: float) -> None:
    if not targets:
        return
    with guest.qmp() as qmp:
        for after, target in targets:
            time.sleep(max(0.0, began + after - time.monotonic()))
            qmp.execute("balloon", value=target)


def run() -> Result:
    """All of it."""
    what = ("of four jobs at once", "job, s", "QEMU, s", "controller, s", "libvirtd, s", "all ÷ unmanaged")
    columns = (*what, "agent, s", "QEMU's page faults, thousands", "targets")
    title = f"The price of being managed: {GUESTS} jobs of {FILES * OBJECT_MIB} MiB, by processor time"
    result = Result("price", title, columns)
    took: dict[str, list[Took]] = {BARE: [], HEARD: [], REPLAYED: [], BY_STATISTICS: [], OURS: []}
    with Lab() as lab, host(lab, OURS, GUESTS * MAXIMUM, shrink_after=2, settle=0) as one:
        four = Four(one)
        for _ in range(ROUNDS):
            one.controller.wait_at_rest(*four.guests, quiet=2.0)
            sizes = four.sizes()
            took[OURS].append(four.ours())
            took[BARE].append(four.bare())
            took[HEARD].append(four.heard())
            took[REPLAYED].append(four.replayed(took[OURS][-1], sizes))
            took[BY_STATISTICS].append(four.by_statistics())
            told = (f"{name}: {each[-1].all_seconds:.1f} s" for name, each in took.items())
            tell(f"price: {'; '.join(told)}")
    _tell(result, took)
    return result


def _tell(result: Result, took: dict[str, list[Took]]) -> None:
    spent = {name: spread([one.all_seconds for one in each]).median for name, each in took.items()}
    for name, each in took.items():
        jobs = [job for one in each for job in one.jobs]
        result.rows.append(
            (
                name,
                spread([job.seconds for job in jobs]),
                *(
                    spread([getattr(one, what) for one in each])
                    for what in ("qemu_seconds", "controller_seconds", "libvirtd_seconds")
                ),
                spent[name] / spent[BARE],
                spread([sum(job.agent_seconds for job in one.jobs) for one in each]),
                spread([sum(job.host_faults for job in one.jobs) / 1000 for one in each]),
                spread([sum(map(len, one.targets)) for one in each]),
            )
        )
    price = spent[OURS] - spent[BARE]
    found = spent[HEARD] - spent[BARE] + spent[REPLAYED] - spent[BARE]
    told = f"of {price:.1f} s more than unmanaged, hearing them and moving their memory explain"
    result.rows.append((told, "", "", "", "", found / price if price else 0.0, "", "", ""))
    result.ratios["processor time, ours ÷ unmanaged"] = Ratio(spent[OURS] / spent[BARE])


if __name__ == "__main__":
    print(run().text())
