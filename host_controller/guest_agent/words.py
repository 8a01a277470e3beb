"""Requests to the QEMU guest agent as JSON, and the answers taken apart."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from host_controller.guest_agent.errors import GuestAgentNonsense

MOST_ANSWER_CHARS: Final = 1 << 20
"""Of one answer. What we read is a few KiB; libvirt itself takes 10 MiB."""
MOST_OUTPUT_BYTES: Final = 64 << 10
"""Of what a program in the guest said."""


class Ended(NamedTuple):
    """A program that was run in the guest. status: its exit status, or 128 + the signal that ended it."""

    status: int
    output: str
    errors: str


def request(command: str, **arguments: Any) -> str:
    """A request as JSON text."""
    return json.dumps({"execute": command, "arguments": arguments} if arguments else {"execute": command})


def open_file(path: str, mode: str) -> str:
    """mode: as of fopen(3), `r` or `w`."""
    return request("guest-file-open", path=path, mode=mode)


def write_file(handle: int, content: bytes) -> str:
    """Write these bytes at the place where the file stands; they go as Base64."""
    return request("guest-file-write", handle=handle, **{"buf-b64": base64.b64encode(content).decode()})


def read_file(handle: int, most_bytes: int) -> str:
    """Read at most so many bytes from where the file stands."""
    return request("guest-file-read", handle=handle, count=most_bytes)


def close_file(handle: int) -> str:
    """Close it: until then what was written may not be on the disk."""
    return request("guest-file-close", handle=handle)


def start(program: Sequence[str]) -> str:
    """Start a program with its arguments, and keep what it says."""
    path, *arguments = program
    return request("guest-exec", path=path, arg=arguments, **{"capture-output": True})


def ask_status(pid: int) -> str:
    """How is the program?"""
    return request("guest-exec-status", pid=pid)


# --- answers; each raises GuestAgentNonsense ---


def allowed(untrusted_answer: str) -> frozenset[str]:
    """The names of the commands that this guest agent carries out, from guest-info."""
    commands = _field(_returned(untrusted_answer), "supported_commands", list)
    found = set()
    for one in commands:
        if isinstance(one, dict) and isinstance(one.get("name"), str) and one.get("enabled") is True:
            found.add(one["name"])
    return frozenset(found)


def frozen(untrusted_answer: str) -> bool:
    """Whether file systems of the guest are frozen, from guest-fsfreeze-status."""
    status = _returned(untrusted_answer)
    if status not in ("frozen", "thawed"):
        raise GuestAgentNonsense("it says neither that file systems are frozen nor that they are not")
    return bool(status == "frozen")


def opened(untrusted_answer: str) -> int:
    """The handle of a file."""
    return _whole(_returned(untrusted_answer), "a file's handle")


def written(untrusted_answer: str, given_bytes: int) -> int:
    """How much of a piece was written: at least a byte, at most all."""
    count = _whole(_field(_returned(untrusted_answer), "count", int), "a count")
    if not 0 < count <= given_bytes:
        raise GuestAgentNonsense(f"of {given_bytes} bytes it claims to have written {count}")
    return count


def was_read(untrusted_answer: str, most_bytes: int) -> tuple[bytes, bool]:
    """A piece of a file, and whether that was its end."""
    answer = _returned(untrusted_answer)
    content = _decoded(_field(answer, "buf-b64", str))
    if len(content) > most_bytes:
        raise GuestAgentNonsense(f"it was asked for {most_bytes} bytes and gave {len(content)}")
    return content, _field(answer, "eof", bool)


def done(untrusted_answer: str) -> None:
    """It was done, and there is nothing more to say."""
    _returned(untrusted_answer)


def started(untrusted_answer: str) -> int:
    """The pid of a program that was started."""
    return _whole(_field(_returned(untrusted_answer), "pid", int), "a pid")


def ended(untrusted_answer: str) -> Ended | None:
    """How a program ended; None while it runs."""
    answer = _returned(untrusted_answer)
    if not _field(answer, "exited", bool):
        return None
    signal = answer.get("signal")
    status = answer.get("exitcode", 0) if signal is None else 128 + _whole(signal, "a signal")
    if not isinstance(status, int) or isinstance(status, bool):
        raise GuestAgentNonsense("an exit status is no number")
    output, errors = (
        _decoded(answer[name] if isinstance(answer.get(name), str) else "")
        for name in ("out-data", "err-data")
    )
    return Ended(status, _text(output), _text(errors))


def _returned(untrusted_answer: str) -> Any:
    if len(untrusted_answer) > MOST_ANSWER_CHARS:
        raise GuestAgentNonsense(f"an answer of {len(untrusted_answer)} characters")
    try:
        answer = json.loads(untrusted_answer)
    except (ValueError, RecursionError):
        raise GuestAgentNonsense("an answer that is no JSON") from None
    if not isinstance(answer, dict) or "return" not in answer:
        raise GuestAgentNonsense("an answer without a result")
    return answer["return"]


def _field(answer: Any, name: str, kind: type) -> Any:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise GuestAgentNonsense(f"an answer without {name}")
    return value


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise GuestAgentNonsense(f"{what} that is no whole number")
    return value


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise GuestAgentNonsense("a text that is no base64") from None


def _text(content: bytes) -> str:
    return content[-MOST_OUTPUT_BYTES:].decode("utf-8", "replace")
