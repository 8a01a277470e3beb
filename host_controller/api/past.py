"""Whoever asks about the past waits for a turn: the history is read for seconds, and answers have some MiB.

One answer is read at a time, since each takes the interpreter from the control loop. Of one peer one answer
is on its way at a time, since what is not taken yet is held in memory: the next is read when it has gone. So
a peer that asks for much waits for itself, and others have their turn after each of its answers.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from host_controller.api.door import connection_of
from host_controller.api.http import Refused
from host_controller.api.peer import NOBODY
from host_controller.beside import Beside

MOST_WAITING: Final = 32
"""A page asks for two at a time."""


class Past:
    """The history file's readers, of all sockets."""

    def __init__(self) -> None:
        self._beside = Beside("history reading")
        self._waiting: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Lock] = {}
        """Of each peer that has asked, by its key."""

    async def answer(
        self, request: web.Request, read: Callable[[], bytes | None]
    ) -> web.StreamResponse | None:
        """Send what is read, as JSON; None where nothing is known. `read` blocks.

        Raises:
            Refused: too many of this peer's wait.
        """
        connection = connection_of(request)
        peer = NOBODY if connection is None or connection.peer is None else connection.peer
        async with self._turn(peer.key):
            if request.transport is None:
                raise ConnectionResetError  # there is nobody to be answered any more
            body = await self._beside.call(read)
            if body is None:
                return None
            answer = web.Response(body=body, content_type="application/json")
            # Within the turn: what is not taken yet is held in memory.
            await answer.prepare(request)
            await answer.write_eof()
            return answer

    def close(self) -> None:
        """No more of it."""
        self._beside.close()

    @asynccontextmanager
    async def _turn(self, peer: str) -> AsyncIterator[None]:
        if self._waiting[peer] >= MOST_WAITING:
            problem = f"{peer} waits for {MOST_WAITING} answers about the past already"
            raise Refused(503, "too-many-questions", problem, "ask again when they are there")
        self._waiting[peer] += 1
        try:
            async with self._turns.setdefault(peer, asyncio.Lock()):
                yield
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer], self._turns[peer]
