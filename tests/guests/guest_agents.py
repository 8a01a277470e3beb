"""The QEMU guest agent in lab guests: the image has it, nothing starts it."""

import time
from typing import Final

from lab.guest import Guest

PORT: Final = "org.qemu.guest_agent.0"
CHANNEL: Final = f"<channel type='unix'><target type='virtio' name='{PORT}'/></channel>"
LISTEN: Final = f"""
port=$(grep -l -x {PORT} /sys/class/virtio-ports/*/name); port=$(basename $(dirname $port))
setsid qemu-ga --method=virtio-serial --path=/dev/$port > /run/lab/qemu-ga.log 2>&1 < /dev/null &
"""
SIGNAL: Final = "kill -%s $(cat /proc/[0-9]*/stat 2> /dev/null | grep '(qemu-ga)' | cut -d ' ' -f 1)"
LIMIT_SECONDS: Final = 20.0


def listen(guest: Guest) -> None:
    """Start it in a guest that has its port; until libvirt knows."""
    guest.workload.exec(f"until grep -q -x {PORT} /sys/class/virtio-ports/*/name; do sleep 0.1; done")
    guest.workload.exec(LISTEN)
    _wait(guest, "connected")


def end(guest: Guest) -> None:
    """End it; until libvirt knows."""
    guest.workload.exec(SIGNAL % "TERM")
    _wait(guest, "disconnected")


def hang(guest: Guest) -> None:
    """It listens, and answers nothing."""
    guest.workload.exec(SIGNAL % "STOP")


def go_on(guest: Guest) -> None:
    """It answers again."""
    guest.workload.exec(SIGNAL % "CONT")


def _wait(guest: Guest, state: str) -> None:
    until = time.monotonic() + LIMIT_SECONDS
    while f"name='{PORT}' state='{state}'" not in guest.domain().XMLDesc():
        assert time.monotonic() < until, guest.workload.exec("cat /run/lab/qemu-ga.log")
        time.sleep(0.1)
