"""The connections to libvirt by purpose, so that one VM that hangs holds up nobody else."""

import threading

from host_controller.hypervisor.connections import Gate, Lane
from host_controller.hypervisor.eventloop import Mailbox


class Lanes:
    """Events, control, statistics and streams; and quarantine, for VMs that do not answer.

    libvirtd serves five requests of one connection at a time (fact: five-requests).
    """

    def __init__(self, uri: str, mailbox: Mailbox) -> None:
        gate = Gate()
        self.events = Lane("events", uri, mailbox, gate, keeps=True)
        self.control = Lane("control", uri, mailbox, gate)
        self.statistics = Lane("statistics", uri, mailbox, gate)
        self.streams = Lane("streams", uri, mailbox, gate, keeps=True)
        self.quarantine = Lane("quarantine", uri, mailbox, gate)

    def close(self) -> list[threading.Thread]:
        """Close every connection. Returns the threads that are about to end."""
        return [thread for lane in self.all() for thread in lane.close()]

    def all(self) -> tuple[Lane, ...]:
        """Every lane; that of the events last, so that it is closed last."""
        return (self.control, self.statistics, self.streams, self.quarantine, self.events)
