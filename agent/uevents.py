r"""Kernel uevents from a raw netlink socket.

Not pyroute2: importing its uevent socket costs 30 MiB in every guest, and it is 40 lines of parsing.
The kernel sends "add@/devices/system/memory/memory32\0ACTION=add\0DEVPATH=…\0SUBSYSTEM=memory\0…" to
multicast group 1; udev's own messages go to group 2 and are not seen here.
"""

from __future__ import annotations

import _socket as socket  # as in system.py

from agent.lean import NamedTuple

# socket.NETLINK_KOBJECT_UEVENT is missing from Python 3.11; include/uapi/linux/netlink.h
_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_MOST_PER_READ = 256
_BLOCKS = "/devices/system/memory/memory"


class Uevent(NamedTuple):
    """What happened (add, remove, online, offline, change) to which device."""

    action: str
    devpath: str


def parse(data: bytes) -> Uevent | None:
    """The uevent in a datagram, by its first line; None if it is not one of the kernel's."""
    head, end, _ = data.partition(b"\0")
    action, at, devpath = head.decode("utf-8", "replace").partition("@")
    return Uevent(action, devpath) if at and end else None


class UeventSocket:
    """Non-blocking. Raises OSError where the socket is not allowed: in a container, say."""

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
        try:
            self._socket.bind((0, _KERNEL_GROUP))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For poll()."""
        return self._socket.fileno()

    def read(self) -> tuple[list[Uevent], bool]:
        """The uevents waiting (at most 256), and whether some were lost, so that all must be read anew."""
        found: list[Uevent] = []
        lost = False
        for _ in range(_MOST_PER_READ):
            try:
                data, sender = self._socket.recvfrom(8192)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: the kernel dropped some
                lost = True
                break
            if sender[0] == 0 and (event := parse(data)):  # port 0 is the kernel
                found.append(event)
        return found, lost

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def memory_block_number(event: Uevent) -> int | None:
    """The number of the memory block that the event is about, None for any other device."""
    number = event.devpath[len(_BLOCKS) :] if event.devpath.startswith(_BLOCKS) else ""
    return int(number) if number.isdecimal() else None
