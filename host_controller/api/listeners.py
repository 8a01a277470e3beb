"""Where the API listens: sockets with their modes, and each with a door of its own."""

import asyncio
import contextlib
import errno
import grp
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog
from aiohttp import web

from host_controller.api.door import HEAD_SECONDS, Door, note_answers
from host_controller.api.http import LARGEST_BODY, only_local_names
from host_controller.errors import DynmemError

GROUP: Final = "dynmem"
VIEW_GROUP: Final = "dynmem-view"
SHUTDOWN_SECONDS: Final = 0.5
ACCEPTED: Final = 32
"""Connections that are taken in one turn of the loop at most: a tenth of a millisecond each."""
IP_FREEBIND: Final = 15
"""ip(7); for IPv6, too. Python has no name for it."""
LOOK_SECONDS: Final = 5.0
"""Between two looks whether our sockets are still there."""
BACKLOG: Final = 4096
"""Connections that the kernel keeps for us; with none left a unix socket refuses at once (EAGAIN)."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _UnixSocket:
    """One that we listen at, and what answers there."""

    path: Path
    group: str
    runner: web.AppRunner
    door: Door
    server: asyncio.Server
    lost: bool = False
    """It was taken away, and could not be made anew."""


class Listeners:
    """The sockets of one controller. `problems`: the middleware that answers what goes wrong."""

    def __init__(self, problems: Any) -> None:
        self.doors: list[Door] = []
        self._problems = problems
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._unix: list[_UnixSocket] = []
        self._watch: asyncio.Task[None] | None = None

    async def unix(self, path: Path, group: str, routes: list[web.RouteDef], hint: str) -> None:
        """Listen at a path, for its owner and a group.

        Raises:
            DynmemError: the socket cannot be made.
        """
        try:
            listener = listen_unix(path, group)
        except OSError as error:
            raise DynmemError(f"{path}: {error.strerror}", hint=hint) from None
        runner, door = await self.serve(routes)
        server = await self._listen(door, runner, sock=listener)
        self._unix.append(_UnixSocket(path, group, runner, door, server))
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_sockets(), name="sockets")

    async def tcp(self, address: str, port: int, routes: list[web.RouteDef]) -> int:
        """Listen at an address, for whoever calls us by a name of this host; returns the port.

        Raises:
            DynmemError: the address cannot be used.
        """
        runner, door = await self.serve(routes, only_local_names(address))
        try:
            with contextlib.ExitStack() as failing:
                sockets = [failing.enter_context(bind_before_network(one)) for one in resolve(address, port)]
                failing.pop_all()
        except (OSError, ValueError) as error:  # ValueError: that can be no name
            raise DynmemError(
                f"[http] listen: {address}:{port}: {getattr(error, 'strerror', 'it is no address')}",
                hint="name another address or port",
            ) from None
        for one in sockets:
            await self._listen(door, runner, sock=one)
        return int(sockets[0].getsockname()[1])

    async def close(self) -> None:
        """End all answers and remove the sockets."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        for server in self._servers:
            server.close()
        for runner in self._runners:
            await runner.cleanup()
        for door in self.doors:
            await door.close()
        self._servers.clear()
        self._runners.clear()
        self.doors.clear()
        for one in self._unix:
            with contextlib.suppress(OSError):
                _remove_socket(one.path)
        self._unix.clear()

    async def serve(
        self, routes: list[web.RouteDef], *checks: Any, head_seconds: float = HEAD_SECONDS
    ) -> tuple[web.AppRunner, Door]:
        """An application and its door, for a socket that is still to be made."""
        middlewares = [note_answers, self._problems, *checks]
        app = web.Application(middlewares=middlewares, client_max_size=LARGEST_BODY)
        app.add_routes(routes)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        self._runners.append(runner)
        door = Door(head_seconds=head_seconds)
        self.doors.append(door)
        return runner, door

    async def _watch_sockets(self) -> None:
        """Whoever cleans up under a controller would have it answer nobody, and so the start hook."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for one in self._gone():
                await self._listen_anew(one)

    def _gone(self) -> list[_UnixSocket]:
        return [one for one in self._unix if not os.path.lexists(one.path)]

    async def _listen_anew(self, one: _UnixSocket) -> None:
        try:
            listener = listen_unix(one.path, one.group)
        except OSError as error:
            if not one.lost:
                log.error("the socket is gone, and cannot be made anew", path=str(one.path), why=str(error))
            one.lost = True
            return
        one.lost = False
        one.server.close()
        self._servers.remove(one.server)
        one.server = await self._listen(one.door, one.runner, sock=listener)
        log.warning("the socket had been taken away; it was made anew", path=str(one.path))

    async def _listen(self, door: Door, runner: web.AppRunner, **where: Any) -> asyncio.Server:
        assert runner.server is not None
        loop = asyncio.get_running_loop()
        # For asyncio both are one figure.
        server = await loop.create_server(door.factory(runner.server), backlog=ACCEPTED, **where)
        for listening in server.sockets:
            with listening.dup() as one:
                one.listen(BACKLOG)
        self._servers.append(server)
        return server


class Place(NamedTuple):
    """Where a socket can be bound."""

    family: socket.AddressFamily
    kind: socket.SocketKind
    protocol: int
    address: tuple[Any, ...]
    """As the family has it; the host and the port come first."""


def resolve(host: str, port: int) -> list[Place]:
    """Where to listen for that name or address. Raises OSError, and ValueError where it can be no name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [Place(family, kind, protocol, address) for family, kind, protocol, _, address in found]


def bind(place: Place, *, free: bool = False) -> socket.socket:
    """A socket there, for its own kind of addresses alone. free: this machine need not have the address.

    Raises:
        OSError
    """
    listener = socket.socket(*place[:3])
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if free:
            listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        listener.bind(place.address)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def bind_before_network(place: Place) -> socket.socket:
    """A socket there, also where this machine does not have the address yet. At boot a controller that waited
    for its network would be missing while VMs start.

    Raises:
        OSError: it cannot be had.
    """
    try:
        return bind(place)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
    log.warning("this machine does not have the address yet", address=place.address[0])
    return bind(place, free=True)


def listen_unix(path: Path, group: str = GROUP) -> socket.socket:
    """The socket, with its mode from the first moment on: for its owner and a group."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _remove_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    # Neither the group nor the right to give things to it are there in a lab: then only we may ask.
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    listener.listen(64)
    listener.setblocking(False)
    return listener


def _remove_socket(path: Path) -> None:
    """Raises OSError: what lies there is something else, and stays."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "it is no socket", str(path))
        path.unlink()
