"""What root in a guest can do to its host: forge, lie, pin. Each way is undone, or ends with the guest."""

from enum import StrEnum

from host_controller.units import MIB
from lab.guest import Guest

_BALLOON_DRIVER = "/sys/bus/virtio/drivers/virtio_balloon"


class Lie(StrEnum):
    """What a false agent says (lab/inside/liar)."""

    NEEDY = "needy"
    """All is used: credible, and asks for everything."""
    GENEROUS = "generous"
    """All is free: credible, and offers everything."""
    DEMAND_2_63 = "demand-2-63"
    TOTAL_ABOVE_MAXIMUM = "total-above-maximum"
    AVAILABLE_ABOVE_TOTAL = "available-above-total"
    FROZEN = "frozen"
    """Sequence and uptime stand still."""
    SEQUENCE_BACK = "sequence-back"
    FLOOD = "flood"
    """The truth as fast as the port takes it."""
    ENDLESS_LINE = "endless-line"
    """1 GiB without a newline, then silence."""
    NOISE = "noise"
    """Random bytes as fast as the port takes them."""
    CUT = "cut"
    """Half a line, then silence."""


def liar(lie: Lie) -> str:
    """The command of an agent that tells this lie, for `GuestSpec.agent` or `put_liar`."""
    return f"liar {lie}"


def put_liar(guest: Guest, lie: Lie) -> None:
    """Exchange the guest's agent for a false one; `put_agent` undoes it."""
    _exchange_agent(guest, liar(lie))


def put_agent(guest: Guest, command: str = "dynmem-agent run") -> None:
    """Exchange whatever runs as the guest's agent for the true one."""
    _exchange_agent(guest, command)


def forge_actual(guest: Guest, mib: int) -> None:
    """Make QEMU, and so libvirt, say that the guest has left itself `mib` MiB of its RAM: four bytes.

    Nothing is given. The driver writes the truth again as soon as it moves.
    """
    with guest.qmp() as monitor:
        summary = monitor.execute("query-memory-size-summary")
    ram = int(summary["base-memory"]) + int(summary.get("plugged-memory", 0))
    guest.workload.exec(f"forge-actual {max(0, ram // MIB - mib)}")


def unbind_balloon(guest: Guest) -> None:
    """Take the balloon's driver away: it gives all memory back to the guest first, and asks nobody."""
    guest.workload.exec(f"echo {_balloon(guest)} > {_BALLOON_DRIVER}/unbind")


def bind_balloon(guest: Guest) -> None:
    """Give the balloon its driver back."""
    guest.workload.exec(f"echo {_balloon(guest)} > {_BALLOON_DRIVER}/bind")


def hold_kernel_memory(guest: Guest, mib: int) -> None:
    """Fill pipes: memory that the kernel cannot move elsewhere. `drop_kernel_memory` undoes it."""
    script = (
        "import fcntl, os, signal\n"
        f"for _ in range({mib}):\n"
        "    end = os.pipe()[1]\n"
        "    fcntl.fcntl(end, 1031, 1 << 20)\n"  # F_SETPIPE_SZ
        "    os.write(end, bytes(1 << 20))\n"
        "print('held', flush=True)\n"
        "signal.pause()"
    )
    said = "/tmp/pipes"
    guest.workload.exec(f'(exec python3 -c "{script}") > {said} 2>&1 & echo $! > /tmp/pipes.pid')
    guest.workload.exec(f"until grep -q held {said}; do sleep 0.1; done", limit=60)


def drop_kernel_memory(guest: Guest) -> None:
    """Close the pipes that `hold_kernel_memory` has filled."""
    guest.workload.exec("kill $(cat /tmp/pipes.pid)")


def _balloon(guest: Guest) -> str:
    found = guest.workload.exec("grep -lx 0x0005 /sys/bus/virtio/devices/*/device")
    return found.strip().split("/")[-2]


def _exchange_agent(guest: Guest, command: str) -> None:
    if guest.workload.agent().pid is not None:
        guest.workload.signal_agent(respawn=False)
        guest.workload.wait_no_agent(10)
    guest.workload.start_agent(command)
    guest.workload.wait_agent(10)
