"""The listener for the other hosts of the fleet: mutual TLS, figures, and promises of memory.

    GET    /v1/figures                       what this host can take, what its VMs need   FiguresView
    POST   /v1/promises/VM?bytes=N&token=T   keep so much for a VM that will come         AdmissionView
           &huge=N&page=SIZE                 and so much in huge pages; 0: of the default size
    DELETE /v1/promises/VM?token=T           it does not come                             DoneView

A peer shows a certificate of the fleet's authority, or is not spoken with. It can look at figures and be
promised memory that this host gives by its own rules and for two minutes; it can change nothing else.
"""

import asyncio
import contextlib
import socket
import time
from typing import Final

import msgspec
import structlog
from aiohttp import web

from host_controller.api.figures import figures_view, vm_figures
from host_controller.api.http import Refused, answer_json, expect, in_turns, whole_number
from host_controller.api.listeners import BACKLOG, Listeners, bind_before_network, resolve
from host_controller.api.peer import peer_of
from host_controller.api.schema.answers import DoneView
from host_controller.api.schema.fleet import FleetView, VmFiguresView
from host_controller.api.views import admission_view
from host_controller.control.admission import Admission
from host_controller.control.controller import Controller
from host_controller.control.promises import PromiseRefused, Promises
from host_controller.control.start_queue import Start
from host_controller.credentials import Credentials, CredentialsError
from host_controller.errors import DynmemError
from host_controller.records import fleet_figures

LOOK_SECONDS: Final = 10.0
"""Between looks at the files of the credentials."""
HANDSHAKE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 60.0
"""An arbiter asks every ten seconds, and keeps its connection."""
TRUSTED_SECONDS: Final = 900.0
"""Then a peer has to show anew who it is: its certificate may have expired."""
MOST_HANDSHAKES: Final = 64
"""At a time. With one more the oldest is let go: a host needs some milliseconds, a stranger never ends."""
ACCEPT_AGAIN_SECONDS: Final = 0.1
LONGEST_TOKEN: Final = 100
LONGEST_NAME: Final = 256
"""Of a VM, as hosts believe it of each other (`fleet.reading`)."""

log = structlog.get_logger(__name__)


class FleetRoutes:
    """What hosts of the fleet may ask of a controller."""

    def __init__(self, controller: Controller, admission: Admission) -> None:
        self._controller = controller
        self._admission = admission
        self._promises = Promises(controller, admission)

    def reading(self) -> list[web.RouteDef]:
        """Looks only, on the host's own sockets."""
        return [web.get("/v1/figures", self._figures), web.get("/v1/fleet", self._fleet)]

    def routes(self) -> list[web.RouteDef]:
        """What other hosts may ask."""
        return [
            web.get("/v1/figures", self._figures),
            web.post("/v1/promises/{vm:[^/]+}", self._promise),
            web.delete("/v1/promises/{vm:[^/]+}", self._take_back),
        ]

    async def _figures(self, request: web.Request) -> web.Response:
        expect(request)
        engine = self._controller.engine
        vms: list[VmFiguresView] = []
        async for uuid in in_turns(list(engine.vms)):
            vm = engine.vms.get(uuid)
            if vm is not None:
                vms.append(vm_figures(self._controller, vm))
        return answer_json(figures_view(self._controller, self._admission, vms))

    async def _fleet(self, request: web.Request) -> web.Response:
        expect(request)
        text = await asyncio.to_thread(fleet_figures.fresh, time.time(), fleet_figures.STATUS)
        try:
            return answer_json(msgspec.json.decode(text, type=FleetView))
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
            RecursionError,
        ):  # none, or of another version
            return answer_json(FleetView(hosts=[], vms=[], notes=[]))

    async def _promise(self, request: web.Request) -> web.Response:
        query = expect(request, "bytes", "token", "huge", "page")
        name, token = _name(request), _token(query)
        size = whole_number(query, "bytes")
        if size <= 0:
            raise Refused(400, "bad-parameter", "a promise is of some bytes", "bytes=N, above 0")
        page = whole_number(query, "page") if "page" in query else None
        start = Start(name, True, size, page, 0 if page is None else whole_number(query, "huge"))
        peer = peer_of(request.transport)
        try:
            answer = await self._promises.make(start, token, peer.detail())
        except PromiseRefused as refused:
            raise Refused(409, "not-promised", str(refused), "try another host") from None
        return answer_json(admission_view(answer))

    async def _take_back(self, request: web.Request) -> web.Response:
        query = expect(request, "token")
        if not self._promises.release(request.match_info["vm"], _token(query)):
            raise Refused(404, "no-promise", "nothing is promised under this name and token", "it has ended")
        return answer_json(DoneView(done="taken back"))


class FleetListener:
    """The socket, and the credentials that are in force there."""

    def __init__(self, listeners: Listeners, credentials: Credentials) -> None:
        self._listeners = listeners
        self._credentials = credentials
        self._stamp: object = None
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._handshakes: dict[asyncio.Task[None], None] = {}

    async def start(self, address: str, port: int, routes: list[web.RouteDef]) -> int:
        """Listen; returns the port, which was chosen where 0 was asked for.

        Raises:
            DynmemError: the address or the credentials cannot be used.
        """
        self._stamp = self._credentials.stamp()
        self._context = self._credentials.server()
        runner, self._door = await self._listeners.serve(routes, head_seconds=IDLE_SECONDS)
        assert runner.server is not None
        self._factory = self._door.factory(runner.server)
        try:
            listening = self._socket = bind_before_network(resolve(address, port)[0])
            listening.listen(BACKLOG)
        except (OSError, ValueError) as error:  # ValueError: that can be no name
            text = f"[fleet] listen: {address}:{port}: {getattr(error, 'strerror', 'it is no address')}"
            raise DynmemError(text, hint="name another address or port") from None
        self._tasks = [
            asyncio.create_task(self._watch(), name="fleet credentials"),
            asyncio.create_task(self._accept(listening), name="fleet listener"),
        ]
        return int(listening.getsockname()[1])

    async def stop(self) -> None:
        """Close the socket, and end its handshakes."""
        tasks = [*self._tasks, *self._handshakes]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._door.retire(TRUSTED_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Take over credentials that were replaced: nobody is heard any more by what was true before. Those
        that cannot be used leave the old ones in force.
        """
        stamp = self._credentials.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._context = self._credentials.server()
        except CredentialsError as error:
            log.error("the fleet's new credentials cannot be used; the old ones stay", problem=str(error))
            return
        for one in list(self._handshakes):
            one.cancel()
        self._door.retire()
        log.info("the fleet's credentials were replaced")

    async def _accept(self, listening: socket.socket) -> None:
        """Let everybody in, one in each turn of the loop. The door counts those who are through with their
        handshake. All others are counted here: they may be anybody, and each holds a descriptor.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                one, _ = await loop.sock_accept(listening)
            except OSError:  # the peer has gone already, or there are too many descriptors
                await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            task = asyncio.create_task(self._shake_hands(one), name="fleet handshake")
            self._handshakes[task] = None
            task.add_done_callback(lambda done: self._handshakes.pop(done, None))
            if len(self._handshakes) > MOST_HANDSHAKES:
                oldest = next(iter(self._handshakes))
                del self._handshakes[oldest]  # it needs some turns to end
                oldest.cancel()
            await asyncio.sleep(0)

    async def _shake_hands(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a stranger, or somebody too slow: there is nobody to be told
            await asyncio.get_running_loop().connect_accepted_socket(
                self._factory, one, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )


def _name(request: web.Request) -> str:
    """What a domain can be called: libvirt takes no slash and no control characters."""
    name = request.match_info["vm"]
    if len(name) > LONGEST_NAME or any(one == "/" or one < " " for one in name):
        raise Refused(400, "bad-parameter", "that is no name of a VM", f"at most {LONGEST_NAME} characters")
    return name


def _token(query: dict[str, str]) -> str:
    token = query.get("token", "")
    if not 0 < len(token) <= LONGEST_TOKEN:
        raise Refused(400, "bad-parameter", "a promise has a token", f"token=…, at most {LONGEST_TOKEN} long")
    return token
