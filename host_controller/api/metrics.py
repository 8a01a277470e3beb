"""`/metrics`: the Prometheus text format 0.0.4, rendered in turns so that control never waits for it.

Written here and not with prometheus-client, which takes 550–740 ms for 1,000 VMs (measured). Sizes are
bytes, times seconds, shares ratios. A figure that is not known is left out: no zero is mistaken for one. A
counter is there before it counts anything: Prometheus sees no increase in a series that begins with 1.
"""

import time
from collections.abc import Iterator
from typing import Final, get_args

from host_controller import __version__
from host_controller.api.metric_families import (
    ADDED,
    BUILD,
    ERRORS,
    FAMILIES,
    HOST_GAUGES,
    IGNORED,
    INFO,
    LATENCY,
    NOTICES,
    OPERATIONS,
    PHASE,
    POOLS,
    PRESSURE,
    PSI,
    REMOVED,
    TURN,
    VM_COUNT,
    VM_GAUGES,
)
from host_controller.api.schema.host import HostView
from host_controller.api.turns import Turn
from host_controller.api.views import host_view
from host_controller.control.controller import Controller
from host_controller.core.vm.record import Vm
from host_controller.exposition import Family, escape, sample, text_of
from host_controller.records.journal import Failure
from host_controller.records.tally import ENDS, LATENCY_BOUNDS, Tally, VmTally

_NO_FAILURES: Final = dict.fromkeys(map(str, get_args(Failure)), 0)


class Metrics:
    """Renders one controller's metrics. Add `tally` to the journal as a sink."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.tally = Tally()
        self.longest_turn_seconds: float | None = None
        """Of the last text that was rendered: the longest that one of its pieces took."""

    def render(self, configuration_error: str | None = None) -> Iterator[bytes]:
        """The text, in pieces; each takes a moment, and empty ones are only there to give way."""
        longest = 0.0
        pieces = self._pieces(configuration_error)
        while True:
            begun = time.thread_time()
            piece = next(pieces, None)
            longest = max(longest, time.thread_time() - begun)
            if piece is None:
                break
            yield piece
        self.longest_turn_seconds = longest

    def _pieces(self, configuration_error: str | None) -> Iterator[bytes]:
        lines: dict[Family, list[str]] = {family: [] for family in FAMILIES}
        self._host(lines, host_view(self._controller, configuration_error))
        turn = Turn()
        for uuid in list(self._controller.engine.vms):
            vm = self._controller.engine.vms.get(uuid)
            if vm is not None:
                self._vm(lines, vm)
            if turn.over():
                yield b""
        text: list[bytes] = []
        for family, samples in lines.items():
            text.append(text_of(family, samples))
            if turn.over():
                yield b"".join(text)
                text.clear()
        yield b"".join(text)

    def _host(self, lines: dict[Family, list[str]], host: HostView) -> None:
        lines[BUILD].append(sample(BUILD, {"version": host.version}, 1))
        for family, read in HOST_GAUGES:
            value = read(host)
            if value is not None:
                lines[family].append(f"{family.name} {value}")
        lines[VM_COUNT].append(f"{VM_COUNT.name} {len(self._controller.engine.vms)}")
        for huge, of in POOLS:
            lines[huge] += [
                f'{huge.name}{{page_bytes="{pool.page_bytes}"}} {of(pool)}' for pool in host.pools
            ]
        if self.longest_turn_seconds is not None:
            lines[TURN].append(f"{TURN.name} {self.longest_turn_seconds:.6f}")
        for family, label, counts in (
            (ERRORS, "kind", _NO_FAILURES | host.errors),
            (NOTICES, "topic", self.tally.notices),
        ):
            lines[family] += [sample(family, {label: key}, count) for key, count in counts.items()]
        for command, histogram in self.tally.latencies.items():
            total = 0
            for bound, count in zip((*LATENCY_BOUNDS, "+Inf"), histogram.counts, strict=True):
                total += count
                lines[LATENCY].append(f'{LATENCY.name}_bucket{{command="{command}",le="{bound}"}} {total}')
            lines[LATENCY].append(f'{LATENCY.name}_sum{{command="{command}"}} {histogram.total:.6f}')
            lines[LATENCY].append(f'{LATENCY.name}_count{{command="{command}"}} {total}')

    def _vm(self, lines: dict[Family, list[str]], vm: Vm) -> None:
        controller = self._controller
        now = controller.now()
        name = f'vm="{escape(vm.name)}"'
        for family, read in VM_GAUGES:
            value = read(controller, vm, now)
            if value is not None:
                lines[family].append(f"{family.name}{{{name}}} {value}")
        agent = agent_label(vm.guest.agent_version)
        lines[INFO].append(
            f'{INFO.name}{{{name},uuid="{vm.config.uuid}",growth="{vm.config.growth}",agent="{agent}"}} 1'
        )
        lines[PHASE].append(f'{PHASE.name}{{{name},phase="{vm.phase}"}} 1')
        if vm.guest.facts is not None and vm.guest.facts.stall_us is not None:
            lines[PSI].append(f"{PSI.name}{{{name}}} {vm.guest.facts.stall_us / 1e6:.6f}")
        lines[IGNORED] += [
            f'{IGNORED.name}{{{name},kind="{escape(kind)}"}} {count}'
            for kind, count in vm.guest.noise.items()
        ]
        tally = self.tally.vms.get(vm.config.uuid)
        if tally is not None:
            self._tallied(lines, name, tally, now)

    @staticmethod
    def _tallied(lines: dict[Family, list[str]], name: str, tally: VmTally, now: float) -> None:
        lines[ADDED].append(f"{ADDED.name}{{{name}}} {tally.added_bytes}")
        lines[REMOVED].append(f"{REMOVED.name}{{{name}}} {tally.removed_bytes}")
        lines[OPERATIONS] += [
            f'{OPERATIONS.name}{{{name},command="{command}",result="{result}"}} {counts[result]}'
            for command, counts in tally.operations.items()
            for result in ENDS
        ]
        pressure = tally.pressure.read(now)
        if pressure is not None:
            for family, value in zip(PRESSURE, pressure, strict=True):
                lines[family].append(f"{family.name}{{{name}}} {value:.4g}")


def agent_label(untrusted_version: str | None) -> str:
    """A guest can change its agent's version as it likes, and each label's value is a series for ever."""
    if not untrusted_version:
        return ""
    return __version__ if untrusted_version == __version__ else "other"
