"""The hosts' controllers, asked over mutual TLS: many at a time, each within a limit of time and size."""

import ssl
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, urlencode

import structlog

from host_controller.credentials import Credentials, CredentialsError
from host_controller.fleet.asking import read_object
from host_controller.fleet.core.model import HostFigures, Huge
from host_controller.fleet.errors import HostSilent
from host_controller.fleet.lines import Lines
from host_controller.fleet.reading import read_figures
from host_controller.neutral import neutral

SECONDS: Final = 5.0
PROMISE_SECONDS: Final = 130.0
"""A host may wait for its balloons; the configuration's limit is two minutes."""
RENEW_SECONDS: Final = 10.0
AT_A_TIME: Final = 8

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Promise:
    """What a host said about memory for a VM that would come."""

    given: bool
    said: str


class Hosts:
    """All hosts of a fleet, by their names in the cluster, at one port."""

    def __init__(self, credentials: Credentials, port: int) -> None:
        self._credentials = credentials
        self._lines = Lines(port)
        self._stamp: object = None
        self._context: ssl.SSLContext | None = None

    def figures(self, hosts: Iterable[str]) -> tuple[dict[str, HostFigures], dict[str, str]]:
        """The figures of those that answer, and why the others do not.

        Raises:
            CredentialsError: ours cannot be used.
        """
        names, context = list(dict.fromkeys(hosts)), self.context()
        found: dict[str, HostFigures] = {}
        silent: dict[str, str] = {}

        def look(host: str) -> None:
            try:
                answer = self._lines.look(context, host, "/v1/figures", SECONDS)
                if answer.status != 200:
                    raise HostSilent(f"{host}: {_said(answer.status, answer.body)}")
                figures = read_figures(host, answer.body, time.time())
                found[host] = replace(figures, certificate_until=answer.certificate_until)
            except HostSilent as error:
                silent[host] = error.message.removeprefix(f"{host}: ")

        with ThreadPoolExecutor(min(AT_A_TIME, max(1, len(names)))) as pool:
            list(pool.map(look, names))
        self._lines.only(names)
        return found, silent

    def promise(self, host: str, vm: str, size_bytes: int, token: str, huge: Huge | None = None) -> Promise:
        """Ask a host to keep memory for a VM, or to go on keeping it."""
        try:
            status, body = self._keep(host, vm, size_bytes, token, huge, PROMISE_SECONDS)
            if status == 200:
                answer = read_object(body)
                return Promise(answer["admitted"] is True, neutral(answer["message"], 500))
        except HostSilent as error:
            return Promise(given=False, said=error.message)
        except (ValueError, KeyError, TypeError):
            return Promise(given=False, said=f"{host}: its answer is not understood")
        return Promise(given=False, said=_said(status, body))

    def renew(self, host: str, vm: str, size_bytes: int, token: str, huge: Huge | None = None) -> bool:
        """Ask it to go on keeping it, which takes no time where it does. False: the host does not answer."""
        try:
            self._keep(host, vm, size_bytes, token, huge, RENEW_SECONDS)
        except HostSilent:
            return False
        return True

    def take_back(self, host: str, vm: str, token: str) -> None:
        """The VM does not come. What cannot be taken back expires."""
        try:
            self._promises(host, "DELETE", vm, SECONDS, token=token)
        except HostSilent:
            return

    def context(self) -> ssl.SSLContext:
        """Our credentials as they are now; new ones that cannot be used leave the old ones in force.

        Raises:
            CredentialsError: there are no old ones.
        """
        stamp = self._credentials.stamp()
        if self._context is None or stamp != self._stamp:
            try:
                self._context = self._credentials.client()
            except CredentialsError as error:
                if self._context is None:
                    raise
                log.error("our new credentials cannot be used; the old ones stay", problem=str(error))
            self._stamp = stamp
        return self._context

    def _keep(
        self, host: str, vm: str, size_bytes: int, token: str, huge: Huge | None, seconds: float
    ) -> tuple[int, bytes]:
        asked = {"bytes": str(size_bytes), "token": token}
        if huge is not None:
            pages = {"huge": str(huge.size_bytes), "page": str(huge.page_bytes)}
            status, body = self._promises(host, "POST", vm, seconds, **asked, **pages)
            if status != 400:
                return status, body
            # One before 0.2 keeps no huge pages for anybody: its own start hook looks at them.
        return self._promises(host, "POST", vm, seconds, **asked)

    def _promises(self, host: str, method: str, vm: str, seconds: float, **query: str) -> tuple[int, bytes]:
        try:
            path = f"/v1/promises/{quote(vm, safe='')}?{urlencode(query)}"
        except UnicodeEncodeError:
            raise HostSilent(f"{host}: {neutral(vm, 100)!r} is no name to ask it about") from None
        answer = self._lines.ask(self.context(), host, method, path, seconds)
        return answer.status, answer.body


def _said(status: int, body: bytes) -> str:
    try:
        message = read_object(body).get("message")
    except ValueError:
        message = None
    return neutral(message or f"HTTP {status}", 500)
