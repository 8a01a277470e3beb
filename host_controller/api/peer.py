"""Who is at the other end of a connection: on a unix socket the kernel says it (SO_PEERCRED, unix(7))."""

import asyncio
import pwd
import socket
import struct
from pathlib import Path
from typing import Any, Final, NamedTuple

from host_controller.beside import Beside
from host_controller.neutral import neutral

_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""
_SO_PEERCRED: Final = socket.SO_PEERCRED
LONGEST_NAME: Final = 64
NAME_SECONDS: Final = 1.0
UNKNOWN: Final = "nobody known"
_NOBODY_LOGGED_IN: Final = 0xFFFFFFFF
"""What the kernel says of a process that no login began (proc_pid_loginuid(5))."""


class Peer(NamedTuple):
    """Whoever asks. Of a network peer only the address is known."""

    key: str
    """What counts as one for the limits: a user, or an address."""
    uid: int | None = None
    user: str = ""
    """Empty as long as nobody has asked for names (`Names`)."""
    pid: int | None = None
    program: str = ""
    """What the process called itself when it asked; it can call itself anything."""
    login: str = ""
    """Who logged in, where the process acts as somebody else: sudo and Cockpit's bridge keep that."""
    login_uid: int | None = None

    def __str__(self) -> str:
        if self.uid is None:
            return self.key
        user = f"{self.login} as {self.user}" if self.login else self.user
        return f"{user} (uid {self.uid}, {self.program or 'a process'} {self.pid})"

    def detail(self) -> dict[str, object]:
        """Who it was, as the detail of an event has it."""
        detail: dict[str, object] = {
            "by_uid": self.uid,
            "by_user": self.user,
            "by_pid": self.pid,
            "by_program": self.program,
        }
        return detail | ({"by_login": self.login} if self.login else {})


NOBODY: Final = Peer("somebody")
"""The connection ended before the kernel could be asked."""


def peer_of(transport: Any) -> Peer:
    """The peer of a connection's transport."""
    connection = None if transport is None else transport.get_extra_info("socket")
    if connection is None:
        return NOBODY
    if connection.family != socket.AF_UNIX:
        address = transport.get_extra_info("peername")
        return Peer(neutral(address[0], LONGEST_NAME)) if address else NOBODY
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return NOBODY
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return Peer(f"uid {uid}", uid, "", pid, _program(pid), "", _login_uid(pid, uid))


class Names:
    """Users' names. They may come from a server that does not answer: nobody waits for them for long."""

    def __init__(self) -> None:
        self._beside = Beside("names of users")

    async def peer_of(self, transport: Any) -> Peer:
        """The peer of a connection's transport, with its names."""
        peer = peer_of(transport)
        if peer.uid is None:
            return peer
        uids = [peer.uid] if peer.login_uid is None else [peer.uid, peer.login_uid]
        try:
            async with asyncio.timeout(NAME_SECONDS):
                user, *login = await self._beside.call(lambda: [_user(uid) for uid in uids])
        except TimeoutError:
            user, *login = [UNKNOWN] * len(uids)
        return peer._replace(user=user, login="".join(login))

    def close(self) -> None:
        """No more of it."""
        self._beside.close()


def _user(uid: int) -> str:
    try:
        return neutral(pwd.getpwuid(uid).pw_name, LONGEST_NAME)
    except (KeyError, OSError):
        return UNKNOWN


def _login_uid(pid: int, uid: int, root: Path = Path("/proc")) -> int | None:
    """Who logged in, by the kernel's audit; None where that is the same user, or nobody."""
    try:
        found = int((root / str(pid) / "loginuid").read_text())
    except (OSError, ValueError):
        return None
    return None if found in (uid, _NOBODY_LOGGED_IN) else found


def _program(pid: int) -> str:
    """Its comm: which file it runs would cost a right that we do not have."""
    try:
        return neutral(Path(f"/proc/{pid}/comm").read_text(errors="replace").strip(), LONGEST_NAME)
    except OSError:
        return ""
