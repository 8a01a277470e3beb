"""What every answer of the control API is made with: problems, JSON, checked parameters, sockets, slices."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec
import structlog
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from host_controller.api.door import connection_of
from host_controller.api.schema.answers import Problem
from host_controller.api.turns import Turn
from host_controller.api.views import entry_view
from host_controller.control.controller import Controller
from host_controller.neutral import neutral
from host_controller.records.entries import Entry
from host_controller.units import parse_duration

LARGEST_BODY: Final = 64 * 1024
MUCH: Final = 256 * 1024
"""More than a socket holds: of such a body nothing more is read, though its sender may not see why."""
BODY_SECONDS: Final = 10.0
TOO_LARGE_SECONDS: Final = 1.0
"""Nobody who means well sends too much, so the refusal takes its time. Whoever sends it again and again costs
the loop a request a second and connection, and not as many as it can do."""
LONGEST_SECONDS: Final = 10 * 366 * 86400.0
"""Nobody has kept more of the past."""

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")


class Refused(Exception):  # noqa: N818 # read as what happened
    """A request cannot be carried out: the HTTP status, and the Problem to answer with."""

    def __init__(self, status: int, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(code=code, message=message, hint=hint)


def answer_problems(controller: Controller) -> Any:
    """A middleware: whatever goes wrong is answered with a Problem, and harms no other request."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_address(request)
            return await handler(request)
        except Refused as refused:
            return answer_json(refused.problem, refused.status)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods - {"HEAD"}))
            problem = Problem(
                code="wrong-method",
                message=f"{neutral(request.method, 20)} is not possible on {neutral(request.path, 200)}",
                hint=f"use {allowed}",
            )
            return answer_json(problem, 405, Allow=allowed)
        except web.HTTPNotFound:
            hint = "GET /v1/schema describes the answers; the paths begin with /v1/"
            message = f"there is no {neutral(request.path, 200)}"
            return answer_json(Problem(code="unknown-path", message=message, hint=hint), 404)
        except (web.HTTPException, ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:  # a request that fails harms no other
            if request.transport is None:
                # Whatever aiohttp calls it, the peer has gone.
                raise ConnectionResetError from None
            controller.journal.count_error("api")
            log.error("request failed", path=request.path, error=str(error), exc_info=error)
            hint = "see the controller's log"
            return answer_json(
                Problem(code="internal", message="the controller made a mistake", hint=hint), 500
            )

    return answer


def _check_address(request: web.Request) -> None:
    """Its parts are taken apart when they are first asked for: what cannot be is refused here, once."""
    try:
        _ = (request.url, request.query, request.match_info)
    except (ValueError, LookupError) as error:
        problem = neutral(error, 200)
        raise Refused(400, "bad-request", f"the address cannot be read: {problem}", "RFC 3986") from None


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """One by one, with a turn for everybody else now and then: what is known can change in between."""
    turn = Turn()
    for one in items:
        if turn.over():
            await asyncio.sleep(0)
        yield one


def entry_line(entry: Entry) -> bytes:
    """An event as the stream has it."""
    return msgspec.json.encode(entry_view(entry)) + b"\n"


def answer_json(answer: Any, status: int = 200, **headers: str) -> web.Response:
    """An answer as a line of JSON."""
    body = msgspec.json.encode(answer) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def expect(request: web.Request, *known: str) -> dict[str, str]:
    """The query, if all of it is known."""
    for key in request.query:
        if key not in known:
            hint = f"known here: {', '.join(known)}" if known else "none is known here"
            raise Refused(400, "unknown-parameter", f"there is no parameter {neutral(key, 50)!r}", hint)
    return dict(request.query)


async def expect_no_body(request: web.Request) -> None:
    """Refuse a body: nothing that is asked for takes one."""
    expect(request)
    body = await read_body(request, LARGEST_BODY)
    if body.strip() not in (b"", b"{}"):
        raise Refused(400, "unexpected-body", "this request takes no body", "send it without one")


async def read_body(request: web.Request, largest: int) -> bytes:
    """A request's body, within its size and its time. Nothing of one that says that it is larger is read."""
    if (request.content_length or 0) > largest:
        raise await _too_large(request, largest)
    pieces, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > largest:
                    break
                pieces.append(piece)
    except TimeoutError:
        problem = f"the body did not come within {BODY_SECONDS:g} s"
        raise Refused(408, "too-slow", problem, "send it at once") from None
    except (HttpProcessingError, ClientPayloadError, web.RequestPayloadError, ValueError) as error:
        problem = neutral(error, 200)
        raise Refused(400, "bad-body", f"the body cannot be read: {problem}", "RFC 9112") from None
    if size > largest:
        raise await _too_large(request, largest)
    if (connection := connection_of(request)) is not None:
        connection.answering = True
    return b"".join(pieces)


async def _too_large(request: web.Request, largest: int) -> Refused:
    await asyncio.sleep(TOO_LARGE_SECONDS)
    if (connection := connection_of(request)) is not None and (request.content_length or MUCH) >= MUCH:
        connection.hurry()
    return Refused(413, "too-large", f"the body is longer than {largest} bytes", "no request needs more")


def duration(text: str) -> float:
    """The seconds of such as `10min`, at most `LONGEST_SECONDS`; refused where it is no duration."""
    try:
        seconds = parse_duration(text[:50])
    except ValueError as error:
        raise Refused(400, "bad-parameter", neutral(error), "for example since=10min") from None
    return min(seconds, LONGEST_SECONDS)


def whole_number(query: dict[str, str], key: str) -> int:
    """A parameter that counts, 0 by default."""
    text = query.get(key, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refused(400, "bad-parameter", f"{key} is {neutral(text, 50)!r}", "a whole number, 0 or more")
    return int(text)


def flag(query: dict[str, str], key: str) -> bool:
    """A parameter that is true or false."""
    text = query.get(key, "false")
    if text not in ("true", "false", "1", "0"):
        raise Refused(400, "bad-parameter", f"{key} is {neutral(text, 50)!r}", "true or false")
    return text in ("true", "1")


def one_of(query: dict[str, str], key: str, allowed: Iterable[str]) -> str:
    """A parameter that is one of a few words, the first one by default."""
    words = list(allowed)
    text = query.get(key, words[0])
    if text not in words:
        raise Refused(400, "bad-parameter", f"{key} is {neutral(text, 50)!r}", " or ".join(words))
    return text


def only_local_names(listener: str) -> Any:
    """A middleware against DNS rebinding: a foreign page reaches us by a name of its own, not by address."""
    known = {"localhost", listener.lower(), socket.gethostname().lower()}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = (request.url.host or "").lower()
        if name not in known and not _is_address(name):
            hint = "use the address, or localhost"
            raise Refused(403, "unknown-host", f"this server is not {neutral(name, 100)!r}", hint)
        return await handler(request)

    return check


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
