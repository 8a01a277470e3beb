"""A live migration between two of a lab's libvirts, watched while it is under way."""

import threading
import time

import libvirt

from lab.errors import GuestError
from lab.guest import Guest
from lab.session import Session

_FLAGS = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_UNSAFE


def migrate(domain: libvirt.virDomain, session: Session, mib_per_second: int = 0, xml: str = "") -> None:
    """Blocks until the domain runs on the other host; with the XML given. Raises libvirtError if it does not.

    At full speed, or slower. UNSAFE: nobody told libvirt that the disk is shared.
    """
    parameters = {
        libvirt.VIR_MIGRATE_PARAM_URI: "tcp://127.0.0.1",
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: mib_per_second,
    }
    if xml:
        parameters[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = xml
    domain.migrateToURI3(session.uri, parameters, _FLAGS)


class Migration:
    """Under way from the moment it is made; `wait` for its end. Times are seconds since the epoch."""

    def __init__(self, guest: Guest, session: Session, mib_per_second: int = 0) -> None:
        """To `session`, at full speed or slower."""
        self.guest = guest
        self.arrived = guest.on(session)
        """The guest as it is on its new host, once it is there."""
        self.error = ""
        self.began, self.ended = time.time(), 0.0
        self._thread = threading.Thread(target=self._run, args=(session, mib_per_second))
        self._thread.start()

    def _run(self, session: Session, mib_per_second: int) -> None:
        # On a connection of its own: libvirt's client may keep a second call waiting until the first is over.
        connection = libvirt.open(self.guest.session.uri)
        domain = connection.lookupByName(self.guest.name)
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
        xml = xml.replace(f"{self.guest.place}/", f"{self.arrived.place}/")
        try:
            migrate(domain, session, mib_per_second, xml)
        except libvirt.libvirtError as error:
            self.error = str(error)
        self.ended = time.time()
        connection.close()

    def cancel(self) -> None:
        """Call it off; the guest stays where it is."""
        self.guest.domain().abortJob()

    def wait(self, limit: float) -> None:
        """Until it has ended, well or with `error`."""
        self._thread.join(limit)
        if self._thread.is_alive():
            raise GuestError(f"{self.guest.name} is still being migrated after {limit:g} s.")
        self.guest.workload.close()
