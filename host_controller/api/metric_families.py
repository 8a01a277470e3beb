"""What `/metrics` tells: each metric's name, type and help, and for a gauge where its value is read.

A value that is not known is None.
"""

from collections.abc import Callable
from typing import Final

from host_controller.api.schema.host import HostView, PoolView
from host_controller.api.views import status_of
from host_controller.control.controller import Controller
from host_controller.core.model import RunState
from host_controller.core.vm.record import Vm
from host_controller.exposition import Family

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
        (
            "ceiling_bytes",
            "The most that it can be given before its next start.",
            lambda c, vm, now: vm.growth_ceiling_bytes,
        ),
        ("buffer_ratio", "Configured.", lambda c, vm, now: vm.config.limits.buffer_percent / 100),
        ("weight", "Configured.", lambda c, vm, now: vm.config.limits.weight),
        (
            "report_age_seconds",
            "Since the guest was last heard, by agent or balloon statistics.",
            lambda c, vm, now: round(now - vm.guest.facts.at, 3) if vm.guest.facts else None,
        ),
        (
            "agent_up",
            "1 while an agent reports; absent while its vCPUs stand still.",
            lambda c, vm, now: (
                None
                if vm.pauses.state is not RunState.RUNNING
                else int(vm.has_agent(now, c.engine.state.settings.stale_seconds))
            ),
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
        (
            "history_failing",
            "1 while the history is not written.",
            lambda h: int(h.history_problem is not None),
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
