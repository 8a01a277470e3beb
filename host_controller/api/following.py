"""What happened, as an endless answer: a JSON object a line, as long as somebody follows."""

import asyncio

from aiohttp import web

from host_controller.api.door import MOST_FOLLOWERS, connection_of
from host_controller.api.finding import find_uuid
from host_controller.api.http import (
    Refused,
    entry_line,
    expect,
    flag,
    whole_number,
)
from host_controller.api.turns import Turn
from host_controller.control.controller import Controller


class EventRoutes:
    """The journal of one controller, for those who follow it until they go or the controller ends."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._closing = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """What both sockets and TCP serve."""
        return [web.get("/v1/events", self._events)]

    def end(self) -> None:
        """End the answers of all who follow."""
        self._closing.set()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        query = expect(request, "after", "follow", "last", "vm")
        after, follow = whole_number(query, "after"), flag(query, "follow")
        uuid = find_uuid(self._controller, query["vm"]) if "vm" in query else None
        if "last" in query:
            after = max(after, self._before_last(whole_number(query, "last"), uuid))
        if follow:
            self._let_follow(request)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        news = asyncio.Event()
        stop_listening = self._controller.journal.listen(news.set)
        try:
            while True:
                news.clear()
                lines: list[bytes] = []
                turn = Turn()
                for one in list(self._controller.journal.entries(after)):
                    after = one.number
                    if uuid is None or one.vm == uuid:
                        lines.append(entry_line(one))
                    if turn.over():
                        await response.write(b"".join(lines))
                        lines.clear()
                        await asyncio.sleep(0)
                if lines:
                    await response.write(b"".join(lines))
                if not follow or not await self._wait(news):
                    break
        finally:
            stop_listening()
        await response.write_eof()
        return response

    @staticmethod
    def _let_follow(request: web.Request) -> None:
        """Followers stay, so there are few of one peer."""
        connection = connection_of(request)
        if connection is None or connection.peer is None:
            return
        if connection.door.followers_of(connection.peer) >= MOST_FOLLOWERS:
            problem = f"{connection.peer.key} follows events {MOST_FOLLOWERS} times already"
            raise Refused(503, "too-many-followers", problem, "end one of them")
        connection.follows = True

    def _before_last(self, count: int, uuid: str | None) -> int:
        """The number of the entry after which there are so many, of one VM or at all."""
        journal = self._controller.journal
        if uuid is None:
            return max(0, journal.last_number - count)
        numbers = [one.number for one in journal.entries() if one.vm == uuid]
        if count == 0 or not numbers:
            return journal.last_number
        return numbers[-count] - 1 if count <= len(numbers) else 0

    async def _wait(self, news: asyncio.Event) -> bool:
        """Wait for news; False when the controller ends."""
        waiting = [asyncio.ensure_future(one.wait()) for one in (news, self._closing)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        return not self._closing.is_set()
