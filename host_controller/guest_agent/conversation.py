"""A conversation with a QEMU guest agent over anything that carries a request and brings its answer."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from host_controller.guest_agent import words
from host_controller.guest_agent.errors import GuestAgentError, GuestAgentSilent
from host_controller.guest_agent.words import Ended

Ask = Callable[[str], str]
"""Carries a request, brings the answer; both JSON. Raises GuestAgentError."""
PIECE_BYTES: Final = 32 << 10
"""Of a file in one request: small enough that no request holds the guest agent for long."""
FIRST_LOOK_SECONDS: Final = 0.05
LAST_LOOK_SECONDS: Final = 1.0
WRITE_SECONDS: Final = 120.0
"""For a whole file: a guest agent that takes a byte at a time would hold whoever waits for days."""

WRITES: Final = frozenset({"guest-file-open", "guest-file-write", "guest-file-close"})
ASKS_FROZEN: Final = "guest-fsfreeze-status"
RUNS: Final = frozenset({"guest-exec", "guest-exec-status"})


class GuestAgent:
    """One guest's. `clock` and `wait` are seconds; every method raises GuestAgentError."""

    def __init__(self, ask: Ask, clock: Callable[[], float], wait: Callable[[float], None]) -> None:
        self._ask = ask
        self._clock = clock
        self._wait = wait

    def allowed(self) -> frozenset[str]:
        """The commands that it carries out; administrators forbid some."""
        return words.allowed(self._ask(words.request("guest-info")))

    def frozen(self) -> bool:
        """Whether somebody, a backup mostly, has frozen file systems: then it does little else meanwhile."""
        return words.frozen(self._ask(words.request(ASKS_FROZEN)))

    def write(self, path: str, content: bytes, progress: Callable[[int], None] = lambda done: None) -> None:
        """Write a file anew. progress: told how many bytes are written.

        Raises:
            GuestAgentSilent: it is not done in time.
        """
        handle = words.opened(self._ask(words.open_file(path, "w")))
        done, until = 0, self._clock() + WRITE_SECONDS
        try:
            while done < len(content):
                if self._clock() >= until:
                    raise GuestAgentSilent(
                        f"after {WRITE_SECONDS:g} s it has taken {done} of {len(content)} bytes",
                        hint="restart qemu-guest-agent in the guest, or do it by hand",
                    )
                piece = content[done : done + PIECE_BYTES]
                done += words.written(self._ask(words.write_file(handle, piece)), len(piece))
                progress(done)
        except BaseException:
            with suppress(GuestAgentError):
                self._ask(words.close_file(handle))
            raise
        # A full disk is often told only here.
        words.done(self._ask(words.close_file(handle)))

    def read(self, path: str, most_bytes: int) -> bytes:
        """The beginning of a file, in one piece."""
        handle = words.opened(self._ask(words.open_file(path, "r")))
        try:
            content, _ = words.was_read(self._ask(words.read_file(handle, most_bytes)), most_bytes)
        finally:
            with suppress(GuestAgentError):
                self._ask(words.close_file(handle))
        return content

    def run(self, program: Sequence[str], limit_seconds: float) -> Ended:
        """Run a program to its end.

        Raises:
            GuestAgentSilent: it still runs after the limit; it is left alone.
        """
        pid = words.started(self._ask(words.start(program)))
        until = self._clock() + limit_seconds
        delay = FIRST_LOOK_SECONDS
        while (found := words.ended(self._ask(words.ask_status(pid)))) is None:
            if self._clock() >= until:
                raise GuestAgentSilent(
                    f"what was started in the guest still runs after {limit_seconds:g} s (its pid {pid})",
                    hint="look there, then say it again",
                )
            self._wait(delay)
            delay = min(2 * delay, LAST_LOOK_SECONDS)
        return found
