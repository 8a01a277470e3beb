"""What systemd is told of a Type=notify service: sd_notify(3) without a library."""

import os
import socket
import time

import structlog

log = structlog.get_logger(__name__)


class Systemd:
    """Silent when the process was not started by systemd."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        watched = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog = watched and "WATCHDOG_USEC" in os.environ
        self._unheard = False

    def ready(self, status: str) -> None:
        """Started, or reloaded."""
        self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """To be called more often than the watchdog's time."""
        if self._watchdog:
            self._tell("WATCHDOG=1")

    def _tell(self, message: str) -> None:
        """Say it, or note once that nobody hears: whatever is wrong with it, control goes on.

        Not even a descriptor may be left for the socket.
        """
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(message.encode(errors="replace"), address)
        except (OSError, ValueError) as error:
            if not self._unheard:
                log.warning("systemd is not told", error=str(error))
            self._unheard = True
        else:
            self._unheard = False
