"""One guest's channel, without I/O: bytes in, events out; and what is believed of a report.

A guest can send anything, at any speed. Every line takes from one allowance, an empty one too. What exceeds
it is dropped after reading and counted; when the allowance is used up, lines are not even cut, so that a
flood costs the host a scan for newlines and no more.
"""

from collections import Counter
from typing import Final

from agent import codec
from host_controller.core.interface import GuestNoise, GuestSpoke

RATE_PER_SECOND: Final = 20.0
"""Twice the agent's alert cadence of 10 Hz."""
BURST: Final = 40.0
NOISE_SECONDS: Final = 1.0
"""Noise is told at most this often, so that a flood of garbage is no flood of events."""


class TokenBucket:
    """Allows `rate` a second on average, and `burst` at once."""

    def __init__(self, rate_per_second: float, burst: float, now: float) -> None:
        self._rate = rate_per_second
        self._burst = burst
        self._tokens = burst
        self._at = now

    def refill(self, now: float) -> int:
        """How many whole tokens there are now."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        return int(self._tokens)

    def take(self) -> None:
        """Use one; the caller has seen that there is one."""
        self._tokens -= 1.0


class Link:
    """Turns what comes through one guest's port into events."""

    def __init__(
        self, vm: str, now: float, rate_per_second: float = RATE_PER_SECOND, burst: float = BURST
    ) -> None:
        self.vm = vm
        self.counts: Counter[str] = Counter()
        """Since the start, by kind: messages by their type, and every kind of noise."""
        self._reader = codec.LineReader()
        self._bucket = TokenBucket(rate_per_second, burst, now)
        self._noise: Counter[str] = Counter()
        self._told_at = now - NOISE_SECONDS

    @property
    def holds_noise(self) -> bool:
        """There is noise that `flush` will tell when its time has come."""
        return bool(self._noise)

    def feed(self, data: bytes, now: float) -> list[GuestSpoke | GuestNoise]:
        """The events in `data`, and the noise since it was last told, if that was a second ago or more.

        Kinds: `too-fast`, `line-too-long`, `not-json`, `unknown-version`, `unknown-type`, `bad-field`,
        `not-a-message`.
        """
        spoken: list[GuestSpoke | GuestNoise] = []
        allowed = self._bucket.refill(now)
        at = 0
        while at < len(data) and allowed:
            # One line at a time, so that the reader never cuts more than may be decoded.
            newline = data.find(b"\n", at)
            end = newline + 1 or len(data)
            lines = self._reader.feed(data[at:end])
            for line in lines:
                self._decode(line, spoken)
            # Cutting an empty line, or the end of one that was too long, is work as well.
            if lines or newline >= 0:
                allowed -= 1
                self._bucket.take()
            at = end
        if at < len(data):
            self._noise["too-fast"] += self._skip(data, at)
        return spoken + self.flush(now)

    def flush(self, now: float) -> list[GuestSpoke | GuestNoise]:
        """The noise that is due to be told, one event per kind."""
        if not self._noise or now - self._told_at < NOISE_SECONDS:
            return []
        self._told_at = now
        noise, self._noise = self._noise, Counter()
        self.counts.update(noise)
        return [GuestNoise(self.vm, kind, count) for kind, count in noise.items() if count]

    def reset(self) -> None:
        """The channel was opened anew: half a line of before means nothing."""
        self._reader.reset()

    def _skip(self, data: bytes, at: int) -> int:
        """Drop whole lines unread; keep what may be the start of a line that counts. Returns how many."""
        last = data.rfind(b"\n", at)
        if last < 0:
            dropped = len(self._reader.feed(data[at:]))
        else:
            dropped = data.count(b"\n", at)
            self._reader.reset()
            tail = data[last + 1 :]
            dropped += len(self._reader.feed(tail)) if tail else 0
        return dropped

    def _decode(self, line: bytes | codec.LineTooLong, spoken: list[GuestSpoke | GuestNoise]) -> None:
        if isinstance(line, codec.LineTooLong):
            self._noise["line-too-long"] += 1
            return
        try:
            message = codec.decode_from_guest(line)
        except codec.WireError as error:
            self._noise[noise_kind(error)] += 1
            return
        self.counts[type(message).__name__.lower()] += 1
        spoken.append(GuestSpoke(self.vm, message))


def noise_kind(error: codec.WireError) -> str:
    """The counter that a bad line goes to."""
    match error:
        case codec.LineTooLong():
            return "line-too-long"
        case codec.NotJson():
            return "not-json"
        case codec.UnknownVersion():
            return "unknown-version"
        case codec.UnknownType():
            return "unknown-type"
        case codec.BadField():
            return "bad-field"
        case _:
            return "not-a-message"
