"""How many may come in, and for how long: the limits of one listening socket, TCP and unix alike.

Nobody who waits can keep others out. Whoever comes is let in, and when that is one too many, the connection
goes that has done nothing for longest, of the peer that has most of them. What is being worked on is not cut
off for it.

    a request's head, and a connection without one    HEAD_SECONDS     (aiohttp's keep-alive timer)
    a request's body                                  BODY_SECONDS     (http.read_body)
    an answer that its reader does not take           STALL_SECONDS    after its last byte
    all answers that are not taken yet                MOST_UNSENT      bytes; those of one peer go first
    followers of events                               MOST_FOLLOWERS   of one peer, without an end
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from host_controller.api.peer import Peer, peer_of
from host_controller.api.schema.answers import Problem
from host_controller.neutral import neutral

MOST_CONNECTIONS: Final = 256
"""Of one listening socket: all three together leave descriptors within the usual limit of 1,024."""
MOST_OF_ONE: Final = 192
"""Of one user, or of one address. Several times as many as are taken in a turn of the loop: in a flood, one
that has something to say is heard before it is the oldest."""
MOST_FOLLOWERS: Final = 32
"""Of one peer: they stay as long as they like."""
HEAD_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 2.0
"""What is still being sent after it was refused is read for so long: else the refusal would not be seen."""
STALL_SECONDS: Final = 20.0
SWEEP_SECONDS: Final = 5.0
MOST_UNSENT: Final = 64 << 20
"""Bytes of one listening socket. A week of a VM in detail takes 24 MiB, all VMs of a host 2 MiB."""
LARGEST_HEAD: Final = 8190
"""Bytes of a request's first line, and of one of its fields."""
MOST_FIELDS: Final = 64

log = structlog.get_logger(__name__)


class Connection(web.RequestHandler):
    """One connection: aiohttp's, known to its door."""

    __slots__ = ("active_at", "answering", "door", "follows", "made_at", "peer", "unsent")

    def __init__(self, door: "Door", server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=door.head_seconds,
            access_log=None,  # type: ignore[arg-type] # it is optional there
            max_line_size=LARGEST_HEAD,
            max_field_size=LARGEST_HEAD,
            max_headers=MOST_FIELDS,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
        )
        self.door = door
        self.peer: Peer | None = None
        self.made_at = self.active_at = loop.time()
        self.answering = False
        """All of a request is there, and its answer is being made."""
        self.follows = False
        """It is being told of events as they come."""
        self.unsent = (0, self.active_at)
        """Bytes that its reader had not taken, and since when no fewer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        super().connection_made(transport)
        self.peer = peer_of(transport)
        self.door.came(self, self._task_handler)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The peer has gone, or had to."""
        self.door.left(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is answered, and noted in a line: it is the peer's mistake, not ours."""
        if isinstance(exc, ConnectionError):
            raise exc  # the peer has gone, or had to: there is nobody to be answered
        if isinstance(exc, UnicodeEncodeError):
            # aiohttp refuses a field (Expect) and repeats it, before a handler of ours has seen the request.
            status, message = 400, "a field of the request's head is no text"
        if status >= 500:
            log.error("request failed", peer=str(self.peer), exc_info=exc)
        else:
            log.info("not HTTP", peer=str(self.peer), problem=neutral(message or exc or "", 200))
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")
        text = neutral(message or "the controller made a mistake", 200)
        code = "internal" if status >= 500 else "bad-request"
        body = msgspec.json.encode(Problem(code=code, message=text, hint="send HTTP/1.1")) + b"\n"
        answer = web.Response(status=status, body=body, content_type="application/json")
        answer.force_close()
        return answer

    def hurry(self) -> None:
        """What is still being sent is not read: it is much, and its sender was told so."""
        self._lingering_time = 0.0

    def retire(self) -> None:
        """End it as soon as nothing is being answered."""
        if self.answering:
            self.close()
        else:
            self.force_close()

    def abort(self) -> None:
        """End it now, whatever is under way."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()


class Door:
    """The limits of one listening socket."""

    def __init__(
        self,
        most: int = MOST_CONNECTIONS,
        most_of_one: int = MOST_OF_ONE,
        head_seconds: float = HEAD_SECONDS,
    ) -> None:
        self.head_seconds = head_seconds
        self._most, self._most_of_one = most, most_of_one
        self._inside: dict[Connection, None] = {}
        self._of: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._inside)

    def factory(self, server: web.Server) -> Callable[[], Connection]:
        """Makes the protocols of a listening socket."""
        loop = asyncio.get_running_loop()
        return lambda: Connection(self, server, loop)

    def came(self, one: Connection, task: "asyncio.Task[None] | None") -> None:
        """A connection was made, and is served by a task; another one may have to go for it."""
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        key = _key(one)
        self._inside[one] = None
        self._of[key] += 1
        if self._of[key] > self._most_of_one:
            self._make_room(key, one)
        elif len(self._inside) > self._most:
            self._make_room(self._of.most_common(1)[0][0], one)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def left(self, one: Connection) -> None:
        """A connection has ended."""
        if one not in self._inside:
            return
        del self._inside[one]
        key = _key(one)
        self._of[key] -= 1
        if self._of[key] <= 0:
            del self._of[key]

    def followers_of(self, peer: Peer) -> int:
        """How many connections of a peer follow events."""
        return sum(one.follows and _key(one) == peer.key for one in self._inside)

    def retire(self, seconds: float = 0.0) -> None:
        """End all connections that are so old, as soon as nothing is being answered there."""
        now = asyncio.get_running_loop().time()
        for one in list(self._inside):
            if now - one.made_at >= seconds:
                one.retire()

    async def close(self) -> None:
        """No more timers, and nobody inside: aiohttp cancels its tasks and does not wait for their end."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LINGER_SECONDS)

    def _make_room(self, key: str, newest: Connection) -> None:
        others = [one for one in self._inside if _key(one) == key and one is not newest and not one.answering]
        chosen = min(others, key=lambda one: (_unsent(one) > 0, one.active_at), default=newest)
        self.left(chosen)
        # Not within connection_made: asyncio is not done with the newest one yet.
        asyncio.get_running_loop().call_soon(chosen.abort)

    def _sweep(self) -> None:
        """End answers that nobody takes."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for one in list(self._inside):
            unsent = _unsent(one)
            before, since = one.unsent
            if not unsent or unsent < before:
                one.unsent = (unsent, now)
            elif now - since >= STALL_SECONDS:
                one.abort()
            else:
                one.unsent = (unsent, since)
        self._bound_unsent()
        self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep) if self._inside else None

    def _bound_unsent(self) -> None:
        """End the largest answers that are not taken yet, of the peer that has most of them, until the rest
        may lie in memory.
        """
        unsent = {one: size for one in self._inside if (size := _unsent(one))}
        of = Counter[str]()
        for one, size in unsent.items():
            of[_key(one)] += size
        while of.total() > MOST_UNSENT:
            key, _ = of.most_common(1)[0]
            largest = max((one for one in unsent if _key(one) == key), key=unsent.__getitem__)
            of[key] -= unsent.pop(largest)
            largest.abort()


def _key(one: Connection) -> str:
    return "" if one.peer is None else one.peer.key


def _unsent(one: Connection) -> int:
    transport = one.transport
    return 0 if transport is None else transport.get_write_buffer_size()


def connection_of(request: web.BaseRequest) -> Connection | None:
    """The connection that a request came by; None once it has ended."""
    connection = request.protocol
    return connection if isinstance(connection, Connection) else None


@web.middleware
async def note_answers(request: web.Request, handler: Any) -> web.StreamResponse:
    """The outermost middleware: tells the door which connections are being worked for."""
    connection = connection_of(request)
    try:
        if connection is not None:
            connection.answering = not request.can_read_body
        return await handler(request)  # type: ignore[no-any-return] # aiohttp's own type
    finally:
        if connection is not None:
            connection.answering = connection.follows = False
            connection.active_at = asyncio.get_running_loop().time()
