"""Where hosts are, by their names: looked up within a limit, and remembered for when no name server answers.

A cluster may run the very VM that is its name server. While that is down all hosts must be reached all the
same, or none of them would be offered to it (`core.publication`). Who is there shows its certificate anyway.
"""

import socket
from concurrent.futures import Future
from typing import Any, Final

from host_controller.beside import begun

LOOKUP_SECONDS: Final = 3.0
"""No signal and no timeout ends a look-up, which may take a minute."""

_Found = list[tuple[Any, ...]]
"""As `socket.getaddrinfo` has it."""


class Addresses:
    """Of hosts that listen at one port. One host may be asked for by several threads."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._known: dict[str, _Found] = {}
        self._asking: dict[str, Future[_Found]] = {}

    def connect(self, host: str, seconds: float) -> socket.socket:
        """To the first of a host's addresses that answers, within so many seconds each.

        Raises:
            OSError: none does, or none is known.
            ValueError: that can be no host's name.
        """
        problem = OSError(0, "its name has no address")
        for family, kind, protocol, _, address in self._of(host):
            try:
                return _connected(socket.socket(family, kind, protocol), address, seconds)
            except OSError as error:  # as of an IPv6 address where there is no IPv6
                problem = error
        raise problem

    def _of(self, host: str) -> _Found:
        known, asked = self._known.get(host), self._asking.get(host)
        if asked is not None and not asked.done() and known is not None:
            return known  # it hangs, and nobody waits for it again
        if asked is None or asked.done():
            asked = self._asking[host] = begun(
                lambda: list(socket.getaddrinfo(host, self._port, type=socket.SOCK_STREAM)),
                f"where {host} is",
            )
        try:
            found = asked.result(LOOKUP_SECONDS)
        except TimeoutError:
            if known is None:
                raise socket.gaierror(socket.EAI_AGAIN, "no name server answers") from None
            return known
        except socket.gaierror:
            if known is None:
                raise
            return known
        self._known[host] = found
        return found


def _connected(one: socket.socket, address: Any, seconds: float) -> socket.socket:
    try:
        one.settimeout(seconds)
        one.connect(address)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        one.close()
        raise
    return one
