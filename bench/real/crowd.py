"""Strangers at a socket: `python -m bench.real.crowd PATH IDLE SENDERS`, until its input ends.

So many connections that say nothing, and so many that send 4 MiB for ever.
Says "here" once all of them have come.
"""

import contextlib
import socket
import sys
import threading
import time
from typing import Final

BODY: Final = b"<domain>" + b" " * (4 << 20) + b"</domain>"
HEAD: Final = f"POST /v1/admission HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()


def connected(path: str) -> socket.socket:
    """A connection; others wait for one as well."""
    while True:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(30)
        try:
            one.connect(path)
        except BlockingIOError:
            one.close()
            time.sleep(0.01)
        else:
            return one


def send_forever(path: str) -> None:
    """One who sends 4 MiB, and again."""
    while True:
        with contextlib.suppress(OSError), connected(path) as one:
            one.sendall(HEAD + BODY)
            one.recv(1 << 16)


def main() -> None:
    """Come, stay, and go when nobody is interested any more."""
    path, idle, senders = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    waiting = [connected(path) for _ in range(idle)]
    for _ in range(senders):
        threading.Thread(target=send_forever, args=(path,), daemon=True).start()
    sys.stdout.write("here\n")
    sys.stdout.flush()
    sys.stdin.read()
    for one in waiting:
        one.close()


if __name__ == "__main__":
    main()
