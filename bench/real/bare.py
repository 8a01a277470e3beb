"""Guests moved over QMP itself: what the machine takes for it, whoever asks."""

import time
from typing import Any, Final

from host_controller.units import MIB
from host_controller.verify.processes import prefer
from host_controller.verify.qmp import Qmp
from lab.domain import GuestSpec
from lab.errors import LabError
from lab.guest import Guest
from lab.lab import Lab

SECONDS_APART: Final = 0.005
"""Between two looks at a balloon or a device."""
NEAR_BYTES: Final = 32 * MIB
"""A dead band (1/24 of what a guest has) keeps the controller from moving less; the same for bare QMP."""
MEMMAP_ON_MEMORY: Final = "memory_hotplug.memmap_on_memory=1"
"""As `dynmem-agent doctor` asks for: a full guest has to find no room for a DIMM's page structures."""


def wait_actual(guest: Guest, size_bytes: int, limit: float = 60.0) -> float:
    """When the balloon came near there, by QEMU's own word over the test's monitor."""
    deadline = time.monotonic() + limit
    with guest.qmp() as qmp:
        while abs((actual := qmp.execute("query-balloon")["actual"]) - size_bytes) > NEAR_BYTES:
            if time.monotonic() > deadline:
                raise LabError(f"{guest.name}'s balloon is at {actual / MIB:.0f} MiB after {limit:g} s")
            time.sleep(SECONDS_APART)
        return time.monotonic()


def move(guest: Guest, size_bytes: int) -> float:
    """Seconds from a bare balloon target to the balloon's being there."""
    with guest.qmp() as qmp:
        at = time.monotonic()
        qmp.execute("balloon", value=size_bytes)
    return wait_actual(guest, size_bytes) - at


def request(qmp: Qmp, size_bytes: int) -> None:
    """Ask a guest's only virtio-mem device for so much."""
    path = "/machine/peripheral/" + qmp.execute("query-memory-devices")[0]["data"]["id"]
    qmp.execute("qom-set", path=path, property="requested-size", value=size_bytes)


def move_with_device(guest: Guest, size_bytes: int, limit: float = 60.0) -> None:
    """Give a guest with virtio-mem so much by hand: its RAM whole, and the rest by its device."""
    deadline = time.monotonic() + limit
    with guest.qmp() as qmp:
        ram_bytes = int(qmp.execute("query-memory-size-summary")["base-memory"])
        wanted = size_bytes - ram_bytes
        qmp.execute("balloon", value=ram_bytes)
        request(qmp, wanted)
        while (found := int(qmp.execute("query-memory-devices")[0]["data"]["size"])) != wanted:
            if time.monotonic() > deadline:
                raise LabError(f"{guest.name}'s virtio-mem has {found} of {wanted} bytes after {limit:g} s")
            time.sleep(SECONDS_APART)
    wait_actual(guest, ram_bytes)


class Bare:
    """A guest that nobody manages, moved over QMP."""

    def __init__(self, lab: Lab, name: str, ram: int, maximum: int | None = None, **spec: Any) -> None:
        """Begins to boot: `guest.wait_booted()`. `ram` and `maximum` in MiB."""
        online = f"memhp_default_state=online_movable {MEMMAP_ON_MEMORY}"
        self.guest = lab.guest(
            GuestSpec(name, ram, maximum or 2 * ram, raw_dynmem=True, kernel_arguments=online, **spec)
        )
        self.guest.start()
        prefer(self.guest.qemu_pid())
        self._plugged = 0

    def target(self, size_bytes: int) -> float:
        """Send a balloon target; when it was sent."""
        with self.guest.qmp() as qmp:
            at = time.monotonic()
            qmp.execute("balloon", value=size_bytes)
            return at

    def move(self, size_bytes: int) -> float:
        """Seconds from the target to the balloon's being there."""
        return move(self.guest, size_bytes)

    def plug(self, size_bytes: int) -> None:
        """Hot add a DIMM."""
        self._plugged += 1
        name = f"bare{self._plugged}"
        with self.guest.qmp() as qmp:
            backend: dict[str, Any] = {"qom-type": "memory-backend-ram", "id": f"m{name}", "size": size_bytes}
            qmp.execute("object-add", **backend)
            qmp.execute("device_add", driver="pc-dimm", id=name, memdev=f"m{name}")

    def unplug(self, limit: float = 30.0) -> None:
        """Take the last DIMM out again, and wait until it has gone."""
        name = f"bare{self._plugged}"
        with self.guest.qmp() as qmp:
            qmp.execute("device_del", id=name)
            qmp.wait_event("DEVICE_DELETED", limit, device=name)
            qmp.execute("object-del", id=f"m{name}")
