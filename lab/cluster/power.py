"""The power switch of a cluster's nodes, which their fencing agent `fence_lab` asks over a socket."""

import socket
import threading
from collections.abc import Callable, Collection
from pathlib import Path


class PowerSwitch:
    """Takes `ACTION NODE` in a line, answers in one. A node that is rebooted stays off, for tests to see."""

    def __init__(self, path: Path, nodes: Collection[str], switch_off: Callable[[str], None]) -> None:
        self._nodes, self._switch_off = nodes, switch_off
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, name="power switch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            with one, one.makefile("rw") as file:
                action, _, node = file.readline().strip().partition(" ")
                file.write(f"{self._answer(action, node)}\n")

    def _answer(self, action: str, node: str) -> str:
        if action == "list":
            return " ".join(self._nodes)
        if action == "monitor":
            return "ok"
        if node not in self._nodes:
            return "unknown"
        if action in ("off", "reboot"):
            self._switch_off(node)
        return "ok"
