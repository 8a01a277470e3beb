"""`/metrics`: the Prometheus text format 0.0.4, rendered in turns so that control never waits for it.

Written here and not with prometheus-client, which takes 550–740 ms for 1,000 VMs (measured). Sizes are
bytes, times seconds, shares ratios. A figure that is not known is left out: no zero is mistaken for one.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

from host_controller import __version__
from host_controller.api.schema.host import HostView, PoolView
from host_controller.api.turns import Turn
from host_controller.api.views import host_view, status_of
from host_controller.control.controller import Controller
from host_controller.core.vm.record import Vm
from host_controller.exposition import Family, escape, sample, text_of
from host_controller.records.tally import LATENCY_BOUNDS, Tally, VmTally

Value = float | int | None


def _facts(vm: Vm, name: str) -> Value:
    return None if vm.guest.facts is None else int(getattr(vm.guest.facts, name))


def _estimate(vm: Vm, name: str) -> Value:
    return None if vm.guest.estimate is None else int(getattr(vm.guest.estimate, name))


VM_GAUGES: Final[tuple[tuple[Family, Callable[[Controller, Vm, float], Value]], ...]] = tuple(
    (Family(f"dynmem_vm_{name}", "gauge", text), read)
    for name, text, read in (
        ("assigned_bytes", "Memory that the guest may use now.", lambda c, vm, now: vm.assigned_bytes),
        (
            "demand_bytes",
            "Memory that the guest works with.",
            lambda c, vm, now: _estimate(vm, "demand_bytes"),
        ),
        ("need_bytes", "Demand and a margin.", lambda c, vm, now: _estimate(vm, "need_bytes")),
        (
            "desired_bytes",
            "Need and buffer, within the limits.",
            lambda c, vm, now: _estimate(vm, "desired_bytes"),
        ),
        (
            "goal_bytes",
            "What the balance gives; absent while the VM cannot be moved.",
            lambda c, vm, now: c.engine.goals.get(vm.config.uuid),
        ),
        (
            "charge_bytes",
            "What the VM may cost the host without further consent.",
            lambda c, vm, now: c.engine.charges.get(vm.config.uuid),
        ),
        (
            "actual_bytes",
            "The balloon's size as the guest claims it.",
            lambda c, vm, now: vm.balloon.actual_bytes,
        ),
        ("ram_bytes", "Boot RAM and plugged DIMMs.", lambda c, vm, now: vm.ram_bytes),
        (
            "virtio_mem_bytes",
            "Plugged by a virtio-mem device, beside ram_bytes.",
            lambda c, vm, now: vm.virtio_mem.current_bytes,
        ),
        ("offline_bytes", "Plugged and not brought online.", lambda c, vm, now: vm.offline_bytes),
        (
            "resident_bytes",
            "Guest memory that the host really holds.",
            lambda c, vm, now: vm.evidence.resident_bytes,
        ),
        (
            "overhead_bytes",
            "QEMU's own memory, the most of the last 10 to 20 minutes.",
            lambda c, vm, now: vm.evidence.overhead_bytes,
        ),
        ("usable_bytes", "By the guest's own count.", lambda c, vm, now: _facts(vm, "usable_bytes")),
        (
            "available_bytes",
            "What the guest's kernel could give to a new program.",
            lambda c, vm, now: _facts(vm, "available_bytes"),
        ),
        (
            "swap_used_bytes",
            "On the guest's swap disks.",
            lambda c, vm, now: _facts(vm, "swap_used_bytes"),
        ),
        ("minimum_bytes", "Configured.", lambda c, vm, now: vm.config.limits.minimum_bytes),
        ("startup_bytes", "Configured.", lambda c, vm, now: vm.config.limits.startup_bytes),
        ("maximum_bytes", "Configured.", lambda c, vm, now: vm.config.limits.maximum_bytes),
        ("buffer_ratio", "Configured.", lambda c, vm, now: vm.config.limits.buffer_percent / 100),
        ("weight", "Configured.", lambda c, vm, now: vm.config.limits.weight),
        (
            "report_age_seconds",
            "Since the guest was last heard, by agent or balloon statistics.",
            lambda c, vm, now: round(now - vm.guest.facts.at, 3) if vm.guest.facts else None,
        ),
        (
            "agent_up",
            "1 while an agent reports.",
            lambda c, vm, now: int(vm.has_agent(now, c.engine.state.settings.stale_seconds)),
        ),
        (
            "paused",
            "1 while the operator has paused its management.",
            lambda c, vm, now: int(vm.pauses.paused),
        ),
        (
            "uncooperative",
            "1 after its balloon did not follow its target, until it is asked again.",
            lambda c, vm, now: int(now < vm.progress.stuck_until),
        ),
        (
            "standstill",
            "1 while its vCPUs stand still after a reset, until there is room for its RAM.",
            lambda c, vm, now: int(vm.config.uuid in c.engine.state.standstills),
        ),
        (
            "memory_low",
            "1 when it has less than it needs with its buffer.",
            lambda c, vm, now: int(status_of(vm) in ("low", "warning")),
        ),
        (
            "memory_warning",
            "1 when it has less than its demand.",
            lambda c, vm, now: int(status_of(vm) == "warning"),
        ),
    )
)

PRESSURE: Final = tuple(
    Family(f"dynmem_vm_pressure{suffix}_ratio", "gauge", f"Demand / usable{text}")
    for suffix, text in (
        ("", " now."),
        ("_average", ", average of the last minute."),
        ("_minimum", ", lowest of the last minute."),
        ("_maximum", ", highest of the last minute."),
    )
)
INFO: Final = Family(
    "dynmem_vm_info", "gauge", "1, with what identifies the VM. agent: our version, other, or empty."
)
PHASE: Final = Family("dynmem_vm_phase", "gauge", "1 for the phase that the VM is in.")
PSI: Final = Family("dynmem_vm_psi_some_seconds_total", "counter", "Time in which some task waited (PSI).")
ADDED: Final = Family("dynmem_vm_added_bytes_total", "counter", "Memory given.")
REMOVED: Final = Family("dynmem_vm_removed_bytes_total", "counter", "Memory taken.")
OPERATIONS: Final = Family("dynmem_vm_operations_total", "counter", "Commands by how they ended.")
IGNORED: Final = Family("dynmem_vm_ignored_total", "counter", "What the guest sent and was not believed.")

HOST_GAUGES: Final[tuple[tuple[Family, Callable[[HostView], Value]], ...]] = tuple(
    (Family(f"dynmem_host_{name}", "gauge", text), read)
    for name, text, read in (
        ("physical_bytes", "All memory of the host.", lambda h: h.physical_bytes),
        ("ordinary_bytes", "The part of it outside of huge pages.", lambda h: h.ordinary_bytes),
        ("available_bytes", "Ordinary memory that a program could be given.", lambda h: h.available_bytes),
        ("others_bytes", "Used by everything but VMs, with a slow fall.", lambda h: h.others_bytes),
        ("capacity_bytes", "What managed VMs may cost.", lambda h: h.capacity_bytes),
        ("reserve_bytes", "Kept for the host.", lambda h: h.reserve_bytes),
        ("spare_bytes", "The part of it that should be available.", lambda h: h.spare_bytes),
        ("unmanaged_bytes", "Held by VMs that are not managed.", lambda h: h.unmanaged_bytes),
        ("foreign_bytes", "Held by QEMUs that are not this libvirt's.", lambda h: h.foreign_bytes),
        ("reserved_bytes", "Promised to VMs that are about to start.", lambda h: h.reserved_bytes),
        ("ready_bytes", "Kept free for bursts.", lambda h: h.ready_bytes),
        ("budget_bytes", "What the balance lays out.", lambda h: h.budget_bytes),
        ("charged_bytes", "Sum of the VMs' charges.", lambda h: h.charged_bytes),
        (
            "available_for_balancing_bytes",
            "Capacity less charges and reservations; negative in an overdraft.",
            lambda h: h.headroom_bytes,
        ),
        ("waiting_bytes", "Granted growth that is not free yet.", lambda h: h.waiting_bytes),
        (
            "overdraft_bytes",
            "What VMs may take beyond the capacity.",
            lambda h: h.overdraft.bytes_now if h.overdraft else 0,
        ),
        ("vm_swap_bytes", "Memory of VMs in the host's swap.", lambda h: h.vm_swap_bytes),
        ("unread_vms", "VMs whose resident memory cannot be read.", lambda h: len(h.unread)),
        ("emergency", "1 while the host itself is short of memory.", lambda h: int(h.emergency is not None)),
        ("connected", "1 while the hypervisor can be reached.", lambda h: int(h.connected)),
        ("paused", "1 while all management is paused.", lambda h: int(h.paused)),
        ("dry_run", "1 when nothing is carried out.", lambda h: int(h.dry_run)),
        (
            "configuration_error",
            "1 when the last reload was refused.",
            lambda h: int(h.configuration_error is not None),
        ),
        ("loop_lateness_seconds", "Worst of the last minute.", lambda h: h.lateness_seconds),
        ("loop_tasks", "Tasks of the controller's loop: steady, or one leaks.", lambda h: h.tasks),
        ("uptime_seconds", "Of the controller.", lambda h: h.uptime_seconds),
    )
)
BUILD: Final = Family("dynmem_build_info", "gauge", "1, with the controller's version.")
ERRORS: Final = Family("dynmem_host_errors_total", "counter", "Failures of the controller by kind.")
NOTICES: Final = Family("dynmem_host_notices_total", "counter", "What was worth telling, by topic.")
VM_COUNT: Final = Family("dynmem_host_vms", "gauge", "Managed VMs that run.")
POOLS: Final[tuple[tuple[Family, Callable[[PoolView], int]], ...]] = tuple(
    (Family(f"dynmem_host_huge_{name}", "gauge", text), read)
    for name, text, read in (
        ("total_bytes", "Huge pages by their size.", lambda pool: pool.total_bytes),
        ("free_bytes", "Those in use by nobody.", lambda pool: pool.free_bytes),
        ("vms_bytes", "Those of managed VMs.", lambda pool: pool.vms_bytes),
        (
            "reserved_bytes",
            "Those promised to VMs that are about to start.",
            lambda pool: pool.reserved_bytes,
        ),
    )
)
TURN: Final = Family(
    "dynmem_host_scrape_turn_seconds",
    "gauge",
    "Processor time that the scrape before took of the control loop at once, at most.",
)
LATENCY: Final = Family("dynmem_host_command_seconds", "histogram", "From sending a command to its answer.")

FAMILIES: Final = (
    BUILD,
    *(family for family, _ in HOST_GAUGES),
    VM_COUNT,
    *(family for family, _ in POOLS),
    ERRORS,
    NOTICES,
    TURN,
    LATENCY,
    INFO,
    PHASE,
    *(family for family, _ in VM_GAUGES),
    *PRESSURE,
    PSI,
    ADDED,
    REMOVED,
    OPERATIONS,
    IGNORED,
)


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
            (ERRORS, "kind", host.errors),
            (NOTICES, "topic", self.tally.notices),
        ):
            lines[family] += [sample(family, {label: key}, count) for key, count in counts.items()]
        for command, histogram in self.tally.latencies.items():
            total = 0
            for bound, count in zip((*LATENCY_BOUNDS, "+Inf"), histogram.counts, strict=True):
                total += count
                lines[LATENCY].append(f'{LATENCY.name}_bucket{{command="{command}",le="{bound}"}} {total}')
            lines[LATENCY].append(f'{LATENCY.name}_sum{{command="{command}"}} {histogram.total:.6g}')
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
            f'{OPERATIONS.name}{{{name},command="{command}",result="{result}"}} {count}'
            for (command, result), count in tally.operations.items()
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
