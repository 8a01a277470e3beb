"""Play the script of tests/data/guest_memory.toml to a real guest and record what its agent says of it.

`python -m lab.record_memory`, or `make record-memory`: three minutes. We are the agent's host, so the
figures are those that a controller would get, one report a second; nobody else moves the guest's memory.
"""

import argparse
import select
import socket
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import libvirt

from agent import codec, wire
from host_controller.units import format_version
from lab.domain import AGENT_PORT, GuestSpec
from lab.errors import LabError
from lab.guest import Guest
from lab.lab import Lab
from lab.memory_script import RECORDING, Heard, Script, Step, read_script, write_recording

DIMM = "<memory model='dimm'><target><size unit='MiB'>{mib}</size><node>0</node></target></memory>"
EVERY = 1.0
QUIET = 15.0
"""Seconds after the agent's first word: by then what ran at boot has ended."""


class AgentsHost:
    """The host's end of an agent's port. Keeps every report and greeting that it hears."""

    def __init__(self, guest: Guest) -> None:
        domain = ET.fromstring(guest.domain().XMLDesc())
        source = domain.find(f"./devices/channel/target[@name='{AGENT_PORT}']/../source")
        if source is None:
            raise LabError(f"Guest {guest.name} has no port for its agent.")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(source.get("path", ""))
        self._reader = codec.LineReader()
        self.reports: list[wire.Report] = []
        self.hello: wire.Hello | None = None
        self.say(wire.Welcome("recorder", EVERY, EVERY, EVERY), wire.OnlineZone(1, "movable"))

    def say(self, *messages: wire.HostMessage) -> None:
        """Send messages to the agent."""
        self._socket.sendall(b"".join(codec.encode(message) for message in messages))

    def listen(self, until: float) -> None:
        """Take down what the agent says, up to a time of CLOCK_MONOTONIC."""
        while (left := until - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return
            for line in self._reader.feed(self._socket.recv(65536)):
                if isinstance(line, codec.LineTooLong):
                    continue
                message = codec.decode_from_guest(line)
                if isinstance(message, wire.Report):
                    self.reports.append(message)
                elif isinstance(message, wire.Hello):
                    self.hello = message

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def do(guest: Guest, step: Step) -> None:
    """One step of the script."""
    match step.do:
        case "allocate":
            guest.workload.allocate(step.mib, step.rate, greedy=True)
        case "hold":
            guest.workload.hold()
        case "free":
            guest.workload.free()
        case "thrash":
            guest.workload.thrash(step.mib, step.rate)
        case "balloon":
            guest.domain().setMemoryFlags(step.mib << 10, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        case "plug":
            guest.domain().attachDeviceFlags(DIMM.format(mib=step.mib), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        case _:
            raise LabError(f"The script says {step.do!r}, which nobody knows.")


def record(guest: Guest, script: Script) -> tuple[str, list[Heard]]:
    """Whose words they are, and the words."""
    guest.workload.wait_agent(30.0)
    host = AgentsHost(guest)
    try:
        host.listen(time.monotonic() + QUIET)
        if host.hello is None:
            raise LabError(f"The agent in {guest.name} said nothing. {guest.console_tail()}")
        host.reports.clear()
        began = time.monotonic()
        # A report is dated by the guest's own clock: it may lie in the port while we are busy.
        offset, _ = guest.workload.clock_offset()
        for step in script.steps:
            host.listen(began + step.at)
            print(f"{time.monotonic() - began:6.1f} s  {step.do} {step.mib or ''}", flush=True)
            do(guest, step)
        host.listen(began + script.seconds)
    finally:
        host.close()
    heard = [Heard(report.uptime_seconds - began - offset, report) for report in host.reports]
    qemu = format_version(guest.session.connection().getVersion())
    return f"Linux {host.hello.kernel_release}, agent {host.hello.agent_version}, QEMU {qemu}", heard


def main(arguments: Sequence[str] | None = None) -> int:
    """Boot, play, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RECORDING)
    options = parser.parse_args(arguments)
    script = read_script()
    with Lab() as lab:
        spec = GuestSpec("recorded", startup_mib=script.startup, maximum_mib=script.maximum, raw_dynmem=True)
        guest = lab.guest(spec)
        guest.start()
        guest.wait_booted()
        told_by, heard = record(guest, script)
        told_by = f"{told_by} ({lab.accelerator.name})"
    write_recording(told_by, heard, options.output)
    print(f"{len(heard)} reports of {told_by}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
