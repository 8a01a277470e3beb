"""What a controller says of its VMs, in a few lines for whoever reads why a test failed."""

from typing import Any

from host_controller.units import MIB


def mib(size_bytes: int | None) -> str:
    """In whole MiB, for people."""
    return "–" if size_bytes is None else f"{size_bytes / MIB:.0f}"


def describe(status: dict[str, Any] | None) -> str:
    """A status in a few lines, in MiB."""
    if status is None:
        return "It never answered."

    host = status["host"]
    lines = [
        f"capacity {mib(host['capacity_bytes'])}, headroom {mib(host['headroom_bytes'])}, "
        f"waiting {mib(host['waiting_bytes'])}"
    ]
    for vm in status["vms"]:
        decision = vm["decision"] or {}
        lines.append(
            f"{vm['name']}: {vm['phase']}, assigned {mib(vm['assigned_bytes'])}, "
            f"actual {mib(vm['actual_bytes'])} of RAM {mib(vm['ram_bytes'])}, "
            f"demand {mib(vm['demand_bytes'])}, goal {mib(vm['goal_bytes'])}, "
            f"charge {mib(vm['charge_bytes'])}; {decision.get('action')}: {decision.get('reason')} "
            f"({decision.get('held_back')})"
        )
    return "\n".join(lines)
