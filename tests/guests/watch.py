"""The libvirt adapter under test: what it said, waited for by condition; and machines that boot nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import libvirt

from host_controller.core.interface import CommandDone, HypervisorEvent, VmAppeared
from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.edit import enable
from host_controller.hypervisor.adapter import LibvirtHypervisor
from host_controller.units import MIB
from lab.session import Session

E = TypeVar("E")

LIMITS = Limits(160 * MIB, 64 * MIB, 1184 * MIB)


def bare_xml(name: str, *, managed: bool = True) -> str:
    """A machine without kernel and disk: a second to start, and it takes DIMMs and balloon targets."""
    xml = f"""<domain type='qemu'>
  <name>{name}</name>
  <memory unit='KiB'>163840</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='virtio'/>
  </devices>
</domain>
"""
    return enable(xml, LIMITS, Growth.HOTADD).xml if managed else xml


class Watch:
    """An adapter and all that it has said, with the time of each event."""

    def __init__(self, uri: str) -> None:
        self.hypervisor = LibvirtHypervisor(uri)
        self.events: list[tuple[float, HypervisorEvent]] = []
        self._news = asyncio.Event()
        self._ticket = 0

    def inbox(self, event: HypervisorEvent) -> None:
        self.events.append((time.monotonic(), event))
        self._news.set()

    async def until(
        self,
        kind: type[E],
        test: Callable[[E], bool] = lambda event: True,
        *,
        limit: float = 60.0,
        since: float = 0.0,
    ) -> E:
        """The first event of a kind that passes the test. Fails with what was seen when the limit passes."""
        deadline = time.monotonic() + limit
        seen = 0
        while True:
            for at, event in self.events[seen:]:
                if at >= since and isinstance(event, kind) and test(event):
                    return event
            seen = len(self.events)
            self._news.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._news.wait()
            except TimeoutError:
                last = "\n".join(str(event)[:150] for _, event in self.events[-15:])
                raise AssertionError(
                    f"no such {kind.__name__} within {limit:g} s; last seen:\n{last}"
                ) from None

    async def vm(self, name: str, **more: float) -> VmAppeared:
        """When a VM of that name appeared."""
        return await self.until(VmAppeared, lambda event: event.config.name == name, **more)

    def all(self, kind: type[E], test: Callable[[E], bool] = lambda event: True) -> list[tuple[float, E]]:
        """Every event of a kind so far."""
        return [(at, event) for at, event in self.events if isinstance(event, kind) and test(event)]

    def position(self, event: object) -> int:
        """Where in the order of events this one came."""
        return next(index for index, (_, one) in enumerate(self.events) if one is event)

    async def do(
        self, make: Callable[..., object], vm: str, *arguments: object, limit: float = 15.0
    ) -> CommandDone:
        """Submit a command and wait for its outcome."""
        ticket = self.submit(make, vm, *arguments)
        return await self.until(CommandDone, lambda done: done.ticket == ticket, limit=limit)

    def submit(self, make: Callable[..., object], vm: str, *arguments: object) -> int:
        """Submit a command with a ticket of its own."""
        self._ticket += 1
        self.hypervisor.submit(make(vm, self._ticket, *arguments))  # type: ignore[arg-type] # by the caller
        return self._ticket


@asynccontextmanager
async def watching(uri: str) -> AsyncIterator[Watch]:
    """A started adapter, stopped at the end."""
    watch = Watch(uri)
    await watch.hypervisor.start(watch.inbox)
    try:
        yield watch
    finally:
        await watch.hypervisor.stop()


def start_bare(session: Session, *names: str, managed: bool = True) -> list[libvirt.virDomain]:
    """Start machines that boot nothing."""
    connection = session.connection()
    return [connection.createXML(bare_xml(name, managed=managed), 0) for name in names]


def destroy_all(session: Session) -> None:
    """Leave no machine of a session running."""
    for domain in session.connection().listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        domain.destroy()
