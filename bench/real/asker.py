"""Asks a control socket for something some times: `python -m bench.real.asker SOCKET PATH ROUNDS`.

A process of its own, so that it measures the daemon and not the guests that are played beside it. As JSON it
prints the seconds that each answer took, from connecting to its last byte, and the last answer.
"""

import json
import socket
import sys
import time
from typing import Final

PAUSE_SECONDS: Final = 0.2


def ask(path: str, what: str) -> tuple[float, bytes]:
    """Seconds, and the answer without its head."""
    began = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(f"GET {what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        pieces = []
        while piece := connection.recv(1 << 18):
            pieces.append(piece)
    took = time.perf_counter() - began
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    assert b" 200 " in head.partition(b"\r\n")[0], head
    return took, body


def main(path: str, what: str, rounds: int) -> None:
    """Ask, and tell."""
    took, body = [], b""
    for _ in range(rounds):
        seconds, body = ask(path, what)
        took.append(seconds)
        time.sleep(PAUSE_SECONDS)
    print(json.dumps({"took": took, "answer": body.decode()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
