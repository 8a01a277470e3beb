"""Many guests that are not there: their agents and their QEMUs, at the other end of real sockets.

One listening socket. Whoever connects says in a first line who is meant: `control` (one line of JSON for each
command or event, both ways, in libvirt's place) or a VM's UUID (its agent's port, in the real wire protocol).
"""

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any, Final

from agent import codec, wire
from host_controller.units import MIB

RAM_BYTES: Final = 8192 * MIB
KERNEL_BYTES: Final = 100 * MIB
FLOOR_BYTES: Final = 12 * MIB
JUMP_BYTES: Final = 96 * MIB
"""More than a buffer of 20 % of what these guests use, so that it has to be answered."""
TURN_SECONDS: Final = 0.005


class FakeGuest:
    """One guest: what its programs use, what its balloon leaves, and what its agent says."""

    def __init__(self, number: int) -> None:
        self.uuid = f"00000000-0000-4000-8000-{number:012d}"
        self.name = f"fake{number}"
        self.writer: asyncio.StreamWriter | None = None
        self.jumped_at: float | None = None
        """When a report said that it needs more, and no answer has come yet."""
        self._rng = random.Random(number)
        self._used_bytes = self._rng.randrange(150, 400) * MIB
        # About what the policy gives it, so that a jump is not met by what it has.
        self.actual_bytes = (KERNEL_BYTES + self._used_bytes) * 5 // 4
        self._boot_id = f"{number:08x}"
        self._sequence = 0

    def hello(self, welcomed: bool) -> bytes:
        """The line that an agent starts with."""
        whole = f"{self._boot_id}-0000-4000-8000-000000000000"
        return codec.encode(
            wire.Hello(whole, "bench", "6.1.0", 128 * MIB, True, "online_movable", "kernel", welcomed)
        )

    def jump(self) -> None:
        """Its programs need more from now on."""
        self._used_bytes += JUMP_BYTES

    def report(self) -> bytes:
        """The line of a report, with the small changes that a live guest always has."""
        self._sequence += 1
        total = self.actual_bytes - KERNEL_BYTES
        used = self._used_bytes + self._rng.randrange(-256, 256) * 1024
        available = max(FLOOR_BYTES, total - used)
        return codec.encode(
            wire.Report(
                self._boot_id,
                self._sequence,
                time.monotonic(),
                total,
                available,
                available // 2,
                reclaimable_bytes=available // 4,
                committed_bytes=used,
                psi_some_avg10=0.0,
                psi_full_avg10=0.0,
                psi_some_total_us=1000 + self._sequence,
                psi_full_total_us=0,
                online_bytes=RAM_BYTES,
                ballooned_bytes=RAM_BYTES - self.actual_bytes,
                floor_bytes=FLOOR_BYTES,
            )
        )


class Fleet:
    """All guests of one run. Use as an async context manager; then `play`."""

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.guests = {guest.uuid: guest for guest in map(FakeGuest, range(count))}
        self.waits: list[float] = []
        """Report → its command has arrived here, seconds, for every jump that was answered."""
        self.commands = 0
        self.reports = 0
        self.first_target_at: dict[str, float] = {}
        self._control: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Fleet":
        self._server = await asyncio.start_unix_server(self._connected, str(self.path), backlog=4096)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        for writer in self._open:
            writer.close()
        self._server.close()
        await self._server.wait_closed()

    async def play(self, seconds: float, jumps_per_second: float) -> None:
        """A report a second from each guest, evenly spread; now and then one guest needs more."""
        guests = list(self.guests.values())
        began = time.monotonic()
        sent = jumped = 0
        while (passed := time.monotonic() - began) < seconds:
            while sent < passed * len(guests):
                guest = guests[sent % len(guests)]
                sent += 1
                connected = guest.writer is not None
                if connected and jumped < passed * jumps_per_second and guest.jumped_at is None:
                    jumped += 1
                    guest.jump()
                    guest.jumped_at = time.monotonic()
                if guest.writer is not None:
                    guest.writer.write(guest.report())
            await asyncio.sleep(TURN_SECONDS)
        self.reports += sent

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            who = (await reader.readline()).decode().strip()
            if who == "control":
                self._control = writer
                await self._control_lines(reader, writer)
            else:
                await self._host_lines(self.guests[who], reader, writer)
        except ConnectionError:
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _control_lines(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for guest in self.guests.values():
            _say(writer, vm=guest.uuid, name=guest.name, actual=guest.actual_bytes, ram=RAM_BYTES)
        _say(writer, end=True)
        while line := await reader.readline():
            order = json.loads(line)
            guest = self.guests[order["vm"]]
            now = time.monotonic()
            self.commands += 1
            self.first_target_at.setdefault(guest.uuid, now)
            grows = order["target"] > guest.actual_bytes
            guest.actual_bytes = order["target"]
            _say(writer, vm=guest.uuid, actual=guest.actual_bytes)
            if grows and guest.jumped_at is not None:
                self.waits.append(now - guest.jumped_at)
                guest.jumped_at = None

    async def _host_lines(
        self, guest: FakeGuest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        guest.writer = writer
        writer.write(guest.hello(welcomed=False))
        while line := await reader.readline():
            if isinstance(codec.decode_from_host(line), wire.Welcome):
                writer.write(guest.hello(welcomed=True) + guest.report())


def _say(writer: asyncio.StreamWriter, **fields: Any) -> None:
    writer.write(json.dumps(fields).encode() + b"\n")
