"""The checks of `dynmem-agent doctor` of the devices by which a host moves memory."""

from __future__ import annotations

import os
from collections.abc import Callable

from agent.finding import Finding
from agent.system import read_file

# include/uapi/linux/virtio_balloon.h, and device ids from virtio_ids.h
BALLOON_DEVICE = 5
MEMORY_DEVICE = 24
STATS_BIT = 1
DEFLATE_ON_OOM_BIT = 2
REPORTING_BIT = 5


def balloon(root: str) -> Finding:
    """The balloon device has its driver."""
    device = _device(root, BALLOON_DEVICE)
    if device is None:
        remedy = "on the host: dynmem enable VM adds it; in the guest: modprobe virtio_pci"
        return Finding("balloon", "problem", "no balloon device", remedy)
    if not os.path.exists(os.path.join(device, "driver")):
        return Finding("balloon", "problem", "the device has no driver", "modprobe virtio_balloon")
    stats = "with" if _has_bit(device, STATS_BIT) else "without"
    return Finding("balloon", "ok", f"driver bound, {stats} statistics")


def deflate_on_oom(root: str) -> Finding:
    """The guest does not take memory back without the host's consent."""
    device = _device(root, BALLOON_DEVICE)
    if device is None or not _has_bit(device, DEFLATE_ON_OOM_BIT):
        return Finding("deflate on OOM", "ok", "off")
    remedy = "on the host: <memballoon autodeflate='off'>; with it on, all RAM of the VM is charged"
    return Finding("deflate on OOM", "problem", "on: the guest takes memory back when it likes", remedy)


def page_reporting(root: str) -> Finding:
    """Free pages are returned to the host early."""
    device = _device(root, BALLOON_DEVICE)
    if device is not None and _has_bit(device, REPORTING_BIT):
        return Finding("free page reporting", "ok", "on")
    remedy = "on the host: <memballoon freePageReporting='on'>; needs Linux 5.7 in the guest"
    return Finding("free page reporting", "note", "off: freed memory stays resident on the host", remedy)


def virtio_mem(root: str) -> Finding:
    """A device that has memory for the guest has its driver."""
    device = _device(root, MEMORY_DEVICE)
    if device is None:
        return Finding("virtio-mem", "ok", "no device: it does not grow so")
    if os.path.exists(os.path.join(device, "driver")):
        return Finding("virtio-mem", "ok", "driver bound")
    remedy = "modprobe virtio_mem; a kernel without it (CONFIG_VIRTIO_MEM) needs --growth hotadd on the host"
    return Finding("virtio-mem", "problem", "the device has no driver: nothing of it comes", remedy)


def _device(root: str, kind: int) -> str | None:
    """Where the first device of a kind is in sysfs; None without one."""
    devices = os.path.join(root, "sys/bus/virtio/devices")
    try:
        names = sorted(os.listdir(devices))
    except OSError:
        return None
    for name in names:
        path = os.path.join(devices, name)
        if read_file(os.path.join(path, "device")).strip() == b"0x%04x" % kind:
            return path
    return None


def _has_bit(device: str, bit: int) -> bool:
    """Whether device and driver agreed on a feature; sysfs shows bit 0 first."""
    return read_file(os.path.join(device, "features"))[bit : bit + 1] == b"1"


DEVICES: tuple[Callable[[str], Finding], ...] = (balloon, deflate_on_oom, page_reporting, virtio_mem)
