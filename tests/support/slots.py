"""Domains on whose PCI buses little or no room is left."""

from typing import Final

from host_controller.core.model import Growth

HOTADD, BALLOON, VIRTIO_MEM = Growth
NO_BALLOON: Final = "<memballoon model='none'/>"


def at(bus: int, slot: int, function: int = 0) -> str:
    """A place in the guest."""
    several = " multifunction='on'" if (bus, slot, function) == (0, 30, 0) else ""
    return f"<address type='pci' domain='0' bus='{bus}' slot='{slot}' function='{function}'{several}/>"


def rng(bus: int, slot: int) -> str:
    """A device that needs nothing of its host's."""
    backend = "<backend model='random'>/dev/urandom</backend>"
    return f"<rng model='virtio'>{backend}{at(bus, slot)}</rng>"


def express(ports: int, used: int | None = None, more: str = NO_BALLOON) -> str:
    """A q35 with a device in each slot but the last: there are root ports, of which these many are used."""
    used = ports if used is None else used
    root = "<controller type='pci' index='0' model='pcie-root'/>"
    root += "".join(
        f"<controller type='pci' index='{one + 1}' model='pcie-root-port'>{at(0, 30, one)}</controller>"
        for one in range(ports)
    )
    devices = [*(rng(0, slot) for slot in range(1, 30)), *(rng(port + 1, 0) for port in range(used))]
    return _domain("q35", root + "".join(devices) + more)


def conventional(last: int, more: str = NO_BALLOON, bridge_to: int = 0) -> str:
    """An i440fx with a device in each slot up to this one, perhaps a bridge behind it, and as many there."""
    devices = [rng(0, slot) for slot in range(2, last + 1)]
    devices += [rng(1, slot) for slot in range(1, bridge_to + 1)]
    root = "<controller type='pci' index='0' model='pci-root'/>"
    if bridge_to:
        root += f"<controller type='pci' index='1' model='pci-bridge'>{at(0, last + 1)}</controller>"
    return _domain("pc", root + "".join(devices) + more)


def serial(ports: int, taken: int, place: str) -> str:
    """A virtio-serial controller with these many ports for channels, and channels at some of them."""
    channels = "".join(
        f"<channel type='unix'><target type='virtio' name='org.x.{one}'/>"
        f"<address type='virtio-serial' controller='0' bus='0' port='{one}'/></channel>"
        for one in range(1, taken + 1)
    )
    controller = f"<controller type='virtio-serial' index='0' ports='{ports + 1}'>{place}</controller>"
    return f"{controller}{channels}{NO_BALLOON}"


def _domain(machine: str, devices: str) -> str:
    return f"""<domain type='qemu'>
  <name>crowded</name>
  <uuid>1f4d3d0e-5a3c-4b8e-9f1a-6f0a3f5f7c11</uuid>
  <memory unit='MiB'>2048</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
  </os>
  <features>
    <acpi/>
  </features>
  <devices>
    <controller type='usb' model='none'/>
    {devices}
  </devices>
</domain>
"""


TWO: Final = "a balloon, a virtio-serial controller"
FULL: Final = [
    (express(8), BALLOON, TWO),
    (express(8, used=7), HOTADD, TWO),
    (express(6), VIRTIO_MEM, f"{TWO}, a virtio-mem device"),
    (express(8, more=serial(1, 1, at(8, 0)), used=7), HOTADD, TWO),
    (express(8, more=serial(2, 1, at(8, 0)), used=7), BALLOON, "a balloon"),
    (conventional(31), HOTADD, TWO),
    (conventional(30, bridge_to=31), VIRTIO_MEM, f"{TWO}, a virtio-mem device"),
    (conventional(30, serial(1, 1, at(0, 31))), BALLOON, TWO),
]
"""XML, growth, and what finds no place. Defined with that, libvirt 9.0 refuses each."""
ROOMY: Final = [
    (express(6), HOTADD),
    (express(5), VIRTIO_MEM),
    (express(8, used=5), VIRTIO_MEM),
    (express(8, used=7, more=serial(1, 0, at(0, 31, 1))), HOTADD),
    (conventional(30), VIRTIO_MEM),
    (conventional(30, bridge_to=30), VIRTIO_MEM),
    (conventional(29, serial(2, 1, at(0, 30))), VIRTIO_MEM),
]
"""XML and growth: libvirt finds places, or makes some."""
