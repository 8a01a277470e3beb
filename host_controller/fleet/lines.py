"""Lines to hosts: connections over mutual TLS, kept for the next question while they are believed.

Half of what an arbiter does is shaking hands. A line is kept for ten minutes, and no longer than the host's
certificate is good or ours is in force: whoever is asked anew shows who it is. What has ended meanwhile is
made anew within the same question.
"""

import http.client
import ssl
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

from host_controller.fleet.addresses import Addresses
from host_controller.fleet.asking import UNHEARD, TooLarge, ask
from host_controller.fleet.errors import HostSilent
from host_controller.fleet.reading import LARGEST_ANSWER
from host_controller.neutral import neutral

CONNECT_SECONDS: Final = 5.0
KEPT_SECONDS: Final = 600.0
MOST_KEPT: Final = 128
"""More hosts than a cell has; a publisher of thousands has descriptors left."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host said. `certificate_until`: of the certificate that it has shown, in seconds since 1970."""

    status: int
    body: bytes
    certificate_until: float


@dataclass(frozen=True, slots=True)
class _Line:
    connection: http.client.HTTPSConnection
    context: ssl.SSLContext
    certificate_until: float
    made_at: float

    def lasts(self, context: ssl.SSLContext) -> bool:
        """It may be asked again, with these credentials of ours."""
        young = time.monotonic() - self.made_at < KEPT_SECONDS
        return young and time.time() < self.certificate_until and self.context is context

    def ask(self, method: str, path: str, seconds: float, *, keep: bool) -> Answer:
        headers = {} if keep else {"Connection": "close"}
        status, body = ask(
            self.connection, method, path, seconds=seconds, largest=LARGEST_ANSWER, headers=headers
        )
        return Answer(status, body, self.certificate_until)


class Lines:
    """To all hosts, at one port. A host is looked at by one thread at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._addresses = Addresses(port)
        self._kept: dict[str, _Line] = {}

    def look(self, context: ssl.SSLContext, host: str, path: str, seconds: float) -> Answer:
        """Ask for what changes nothing, over the line that is kept or over a new one, which is kept then.

        The limit is for all of it: a host that ends a line late does not hold us twice.

        Raises:
            HostSilent
        """
        with self._heard(host, seconds):
            until = time.monotonic() + seconds
            line = self._lasting(context, host)
            if line is not None:
                try:
                    return self._look(line, host, path, seconds)
                except (TimeoutError, TooLarge):
                    raise
                except UNHEARD:
                    pass  # the host has ended it, or was away meanwhile
            line = self._connect(context, host)
            left = until - time.monotonic()
            if left <= 0:
                line.connection.close()
                raise TimeoutError
            return self._look(line, host, path, left)

    def only(self, hosts: Collection[str]) -> None:
        """Close the lines to all other hosts."""
        for host in self._kept.keys() - set(hosts):
            self._kept.pop(host).connection.close()

    def ask(self, context: ssl.SSLContext, host: str, method: str, path: str, seconds: float) -> Answer:
        """Ask once, over a line of its own. The limit is for all of it: a host that drips does not hold us.

        Raises:
            HostSilent
        """
        with self._heard(host, seconds):
            line = self._connect(context, host)
            with closing(line.connection):
                return line.ask(method, path, seconds, keep=False)

    def _lasting(self, context: ssl.SSLContext, host: str) -> _Line | None:
        line = self._kept.pop(host, None)
        if line is not None and not line.lasts(context):
            line.connection.close()
            return None
        return line

    def _look(self, line: _Line, host: str, path: str, seconds: float) -> Answer:
        try:
            answer = line.ask("GET", path, seconds, keep=True)
        except UNHEARD:
            line.connection.close()
            raise
        if line.connection.sock is None or len(self._kept) >= MOST_KEPT:
            line.connection.close()
        else:
            self._kept[host] = line
        return answer

    def _connect(self, context: ssl.SSLContext, host: str) -> _Line:
        connection = http.client.HTTPSConnection(host, self._port, timeout=CONNECT_SECONDS, context=context)
        try:
            reached = self._addresses.connect(host, CONNECT_SECONDS)
        except TimeoutError:
            closed = "IPAddressAllow= of its dynmem.service or a firewall keeps us out, or it is down"
            raise HostSilent(f"{host}: port {self._port} there cannot be reached: {closed}") from None
        try:
            connection.sock = context.wrap_socket(reached, server_hostname=host)
            return _Line(connection, context, _end_of(connection.sock), time.monotonic())
        except BaseException:
            reached.close()  # once it is wrapped that does nothing
            connection.close()
            raise

    @contextmanager
    def _heard(self, host: str, seconds: float) -> Iterator[None]:
        """What goes wrong is said of the host."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            text = f"{host}: its certificate is not believed: {error.verify_message}"
            raise HostSilent(text, hint="dynmem fleet certificates makes one for it") from None
        except TimeoutError:
            raise HostSilent(f"{host}: no answer at port {self._port} within {seconds:.0f} s") from None
        except TooLarge as error:
            raise HostSilent(f"{host}: {error}") from None
        except UNHEARD as error:
            said = neutral(getattr(error, "strerror", None) or error or type(error).__name__, 200)
            raise HostSilent(f"{host}: it does not answer at port {self._port}: {said}") from None


def _end_of(peer: ssl.SSLSocket) -> float:
    """When the certificate of a verified peer expires, in seconds since 1970."""
    return ssl.cert_time_to_seconds(str((peer.getpeercert() or {})["notAfter"]))
