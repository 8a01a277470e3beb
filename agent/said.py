"""What a command says: it reaches its reader, or the command ends with a sentence and an exit status.

The commands of guests and hosts write by several libraries, and any write can find the disk full or the
reader gone. So both streams are guarded below all of them, where bytes leave the process. What the terminal's
encoding has no letter for is written as `?`. The daemons have their own log, and no use for this.

Whoever ended a command needs no word about that: neither who pressed Ctrl-C, nor a reader that has read
enough (`| head`).
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any

FAILED = 1
# What shells say of a program that SIGINT or SIGPIPE ended.
INTERRUPTED = 130
READER_GONE = 141


class OutputLost(Exception):  # noqa: N818 # read as what happened
    """Standard output cannot be written. Not an OSError: nobody shall take it for one of another file's."""

    def __init__(self, why: OSError) -> None:
        super().__init__(f"standard output cannot be written: {why.strerror}")
        self.reader_gone = why.errno == errno.EPIPE


class _Patient(io.FileIO):
    """Whoever shares a descriptor may have made it non-blocking: a reader that is slow is not gone."""

    def write(self, data: Any) -> Any:
        while (written := super().write(data)) is None:
            poll = select.poll()
            poll.register(self, select.POLLOUT)
            poll.poll()
        return written


class _Output(_Patient):
    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error) from None


class _Complaints(_Patient):
    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except OSError:
            return len(data)  # there is nobody else to tell, and the exit status still says it


class _Unbuffered(io.BufferedWriter):
    """As after `python -u`; of a raw stream the text above it would forget what was written in part."""

    def write(self, data: Any) -> Any:
        written = super().write(data)
        self.flush()
        return written


def exit_status(program: str, command: Callable[[], int]) -> int:
    """Run a command to its end and return its exit status, or 1 where its output was lost; 130 after Ctrl-C,
    141 where nobody reads any more.

    A SystemExit of the command passes, once all that it wrote is out. Streams that somebody has put in place
    of the process's own are left alone.
    """
    _guard()
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except OutputLost as lost:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter still tries to write what is left
        if lost.reader_gone:
            return READER_GONE
        sys.stderr.write(f"{program}: {lost}\n")
        return FAILED


def click_status(command: Any, arguments: list[str] | None = None, **settings: Any) -> int:
    """Run a click command and return its exit status. Without `arguments` it is given those of sys.argv.

    Left to itself, click would say a word about Ctrl-C.
    """
    import click  # `install` and `remove` need none

    try:
        status = command.main(args=arguments, standalone_mode=False, **settings)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _guard() -> None:
    if sys.stdin is None:
        _stand_in(0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 # for as long as the process lives
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(1, _Output, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(2, _Complaints, sys.stderr)


def _text(fd: int, raw: type[io.FileIO], old: Any) -> io.TextIOWrapper:
    """The stream that the interpreter made, on another foundation. old: None if it was closed."""
    if old is None:
        _stand_in(fd)
    file = raw(fd, "w", closefd=False)
    at_once = getattr(old, "write_through", False)
    errors = getattr(old, "errors", "backslashreplace")
    return io.TextIOWrapper(
        _Unbuffered(file) if at_once else io.BufferedWriter(file),
        encoding=getattr(old, "encoding", None),
        errors="replace" if errors == "strict" else errors,
        line_buffering=getattr(old, "line_buffering", fd == 2),
        write_through=at_once,
    )


def _stand_in(fd: int) -> None:
    """Keep the next file from getting a closed descriptor's number. Reading finds an end, writing fails."""
    opened = os.open(os.devnull, os.O_RDONLY)
    if opened != fd:
        os.dup2(opened, fd)
        os.close(opened)
