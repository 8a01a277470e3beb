"""Who a host is among the hosts of its fleet: certificate, key, and the authority that all of them trust.

Three files, read anew whenever one of them changes, so that certificates are replaced without a restart. What
cannot be read leaves what was read before in force. `dynmem fleet certificates` makes such files.
"""

import codecs
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from host_controller.errors import DynmemError

DIRECTORY: Final = Path("/etc/dynmem/fleet")
OTHERS: Final = 0o077
MARKS: Final = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class CredentialsError(DynmemError):
    """They cannot be used."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the files are."""

    certificate: Path = DIRECTORY / "host.pem"
    key: Path = DIRECTORY / "host.key"
    authority: Path = DIRECTORY / "ca.pem"

    @classmethod
    def within(cls, directory: Path) -> "Credentials":
        """Files of the usual names there."""
        return cls(directory / "host.pem", directory / "host.key", directory / "ca.pem")

    def stamp(self) -> tuple[tuple[int, ...] | None, ...]:
        """Differs when a file was replaced or written, or others may read it or no longer."""
        return tuple(_stamp(one) for one in (self.certificate, self.key, self.authority))

    def server(self) -> ssl.SSLContext:
        """For whoever listens: only peers with a certificate of the authority are spoken with.

        Each shows it anew: who comes back with a ticket is not asked whether its certificate has expired.

        Raises:
            CredentialsError
        """
        context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        context.num_tickets = 0
        return context

    def client(self) -> ssl.SSLContext:
        """For whoever asks: only the host that was meant, with a certificate of the authority, is believed.

        Raises:
            CredentialsError
        """
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        hint = "dynmem fleet certificates makes them"
        try:
            mode = self.key.stat().st_mode
            if mode & OTHERS:
                chmod = f"chmod 600 {self.key}"
                raise CredentialsError(f"{self.key}: others than its owner may read this key", hint=chmod)
            for file in (self.certificate, self.key, self.authority):
                _without_mark(file)
            context.load_verify_locations(self.authority)
            # A password would be asked for on a terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            files = f"{self.certificate}, {self.key} or {self.authority}"
            raise CredentialsError(f"{files}: {error.reason or error}", hint=hint) from None
        except OSError as error:
            where = error.filename or f"{self.certificate}, {self.key} or {self.authority}"
            raise CredentialsError(f"{where}: {error.strerror}", hint=hint) from None
        return context


def _without_mark(file: Path) -> None:
    """OpenSSL does not find what stands behind a byte order mark, and says that there is nothing."""
    with file.open("rb") as opened:
        if opened.read(3).startswith(MARKS):
            text = f"{file}: it begins with a byte order mark"
            raise CredentialsError(text, hint="an editor wrote it: save it as UTF-8 without such a mark")


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
