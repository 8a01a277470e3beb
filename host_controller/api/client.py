"""The CLI's side of the control API. Imports little: every command pays for it.

ControllerUnreachable   nobody answers at the socket
RequestRefused          the controller said no; nothing has changed
"""

import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

from host_controller import __version__
from host_controller.api import answer
from host_controller.errors import DynmemError, InputError

DEFAULT_SOCKET: Final = "/run/dynmem/control.sock"
VIEW_SOCKET: Final = "/run/dynmem/view.sock"
"""Where the group dynmem-view may look."""
SOCKET_VARIABLE: Final = "DYNMEM_SOCKET"
ANSWER_SECONDS: Final = 10.0
BUSY_SECONDS: Final = 0.02
TRIES: Final = 4
LARGEST_LINE: Final = 1 << 20
_PIECE: Final = 1 << 16
FOREIGN: Final = "is it a dynmem controller, and of which version?"
LISTED: Final = ("vms",)
"""What is answered with a list of objects. All else is one."""

T = TypeVar("T")


def socket_of(named: str | None, configured: Path | None = None) -> str:
    """The controller's socket: the one that an option names, else the environment, else the configuration."""
    return named or os.environ.get(SOCKET_VARIABLE) or str(configured or DEFAULT_SOCKET)


class ControllerUnreachable(DynmemError):  # noqa: N818 # read as what happened
    """There is no controller at the socket, or we may not speak with it."""


class RequestRefused(InputError):  # noqa: N818 # read as what happened
    """The controller's problem; `code` is for programs."""

    def __init__(self, code: str, message: str, hint: str | None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self.line: socket.socket | None = None
        """What the answer comes by: `sock` is given up as soon as its head is there."""

    def connect(self) -> None:
        self.sock = self.line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self._connect(time.monotonic() + ANSWER_SECONDS)
        except BaseException:
            self.sock.close()
            raise

    def _connect(self, end: float) -> None:
        while True:
            try:
                self.sock.connect(self._path)
            except BlockingIOError:  # there is somebody, and others wait before us
                if time.monotonic() > end:
                    raise
                time.sleep(BUSY_SECONDS)
            else:
                return


class Client:
    """Asks one controller."""

    def __init__(self, path: str | None = None) -> None:
        self.path = socket_of(path)

    def get(self, *steps: str, **query: object) -> Any:
        """The decoded answer to `GET /v1/STEP/…`; a step may be a VM's name.

        Raises:
            ControllerUnreachable, RequestRefused
        """
        return self._ask("GET", steps, query)

    def post(self, *steps: str) -> Any:
        """As `get`, for what changes something."""
        return self._ask("POST", steps, {})

    def follow(self, *steps: str, **query: object) -> Iterator[Any]:
        """The objects of an answer that gives one a line, as they come; with `follow`, for ever.

        Raises:
            ControllerUnreachable, RequestRefused; ControllerUnreachable also where it breaks off
        """
        with self._open("GET", steps, query) as response:
            rest = b""
            # Not readline(): of an answer that was cut off it says that it has ended.
            while piece := self._unbroken(lambda: response.read1(_PIECE)):
                *lines, rest = (rest + piece).split(b"\n")
                yield from map(_read, lines)
                if len(rest) > LARGEST_LINE:
                    break
        if rest:
            yield _read(rest)

    def _ask(self, method: str, steps: tuple[str, ...], query: dict[str, object]) -> Any:
        with self._open(method, steps, query) as response:
            return _read(self._unbroken(response.read), of_many=steps == LISTED)

    def _unbroken(self, read: Callable[[], T]) -> T:
        """What is read of an answer that has begun."""
        try:
            return read()
        except (OSError, http.client.HTTPException) as error:
            raise ControllerUnreachable(
                f"the controller at {self.path} broke off: {error or type(error).__name__}",
                hint="systemctl status dynmem",
            ) from None

    def _open(
        self, method: str, steps: tuple[str, ...], query: dict[str, object]
    ) -> http.client.HTTPResponse:
        path = "/".join(("", "v1", *(quote(step, safe="") for step in steps)))
        if query:
            path = f"{path}?{urlencode(query)}"
        try:
            response = self._ask_at(self.path, method, path, endless="follow" in query)
        except FileNotFoundError:
            raise ControllerUnreachable(
                f"no controller is running: there is no {self.path}",
                hint="start it with systemctl start dynmem, or name its --socket",
            ) from None
        except ConnectionRefusedError:
            raise ControllerUnreachable(
                f"no controller listens at {self.path}", hint="it has died: systemctl status dynmem"
            ) from None
        except PermissionError:
            raise ControllerUnreachable(
                f"you may not use {self.path}",
                hint="become root, or join the group dynmem; dynmem-view may look and change nothing",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise ControllerUnreachable(
                f"the controller at {self.path} does not answer: {error or type(error).__name__}",
                hint="systemctl status dynmem",
            ) from None
        if response.status >= 400:
            raise self._unbroken(lambda: _refused(response))
        return response

    def _ask_at(self, socket_path: str, method: str, path: str, *, endless: bool) -> http.client.HTTPResponse:
        tries = TRIES if method == "GET" else 1
        forbidden: PermissionError | None = None
        while True:
            connection = _UnixConnection(socket_path, ANSWER_SECONDS)
            tries -= 1
            try:
                connection.request(method, path, headers={"Connection": "close"})
                response = connection.getresponse()
            except PermissionError as error:
                if method != "GET" or socket_path != DEFAULT_SOCKET:
                    raise
                socket_path, forbidden = VIEW_SOCKET, error
            except (FileNotFoundError, ConnectionRefusedError):
                # Nobody listens to those who may only look. That we may not use the other is still so.
                if forbidden is not None:
                    raise forbidden from None
                raise
            except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
                if not tries:  # in a crowd one may have to go before one is heard
                    raise
            else:
                # Whoever has begun to tell may be silent for hours.
                if endless and connection.line is not None:
                    connection.line.settimeout(None)
                return response
            connection.close()


def _read(text: bytes, *, of_many: bool = False) -> Any:
    try:
        found = answer.read(text)
        if of_many and not isinstance(found, list):
            raise ValueError("it is no list")
        if not all(isinstance(one, answer.Answer) for one in (found if of_many else [found])):
            raise ValueError("it is no object")
    except ValueError as error:
        raise ControllerUnreachable(f"the answer is not understood: {error}", hint=FOREIGN) from None
    return found


def check_shape(told: Any, place: str, name: str) -> None:
    """Refuse an answer that says other things than the schema has: a module of it, and a view there.

    Raises:
        ControllerUnreachable: with the first of them.
    """
    from importlib import import_module

    from host_controller.api.shape import misfit  # most commands never need it

    where = misfit(told, getattr(import_module(f"host_controller.api.schema.{place}"), name))
    if where is not None:
        raise ControllerUnreachable(f"the answer is not understood: {where}", hint=FOREIGN)


@contextmanager
def understood(told: Any, place: str, name: str) -> Iterator[None]:
    """What is made of an answer is made in here; where that fails, whoever answered may be no controller.

    Raises:
        ControllerUnreachable: as `check_shape`. What goes wrong otherwise is our own fault, and passes.
    """
    try:
        yield
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError, OSError):
        check_shape(told, place, name)
        raise


def _refused(response: http.client.HTTPResponse) -> DynmemError:
    with response:
        body = response.read()
    try:
        problem = answer.read(body)
        code, message, hint = str(problem["code"]), str(problem["message"]), problem.get("hint")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ControllerUnreachable(f"HTTP {response.status} without a reason")
    if code in ("unknown-path", "unknown-parameter"):
        hint = f"this is dynmem {__version__}; dynmem status shows whether the controller is older"
    return RequestRefused(code, message, None if hint is None else str(hint))
