"""Are the books right? The observer's samples against capacity, and the overdrafts that were recorded."""

import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from host_controller.verify.observer import Sample
from lab.controller import Controller

GRACE = 0.5
"""Seconds by which the observer's and the controller's times of an overdraft may differ."""
UNSEEN = re.compile(r" within the last (0\.\d|1\.0) s$")
"""QEMU tells of a balloon at most once a second, so what a guest takes back may be a second old."""


@dataclass
class Overdraft:
    """Charges beyond capacity, as the controller recorded them; CLOCK_MONOTONIC seconds."""

    cause: str
    begin: float
    """When it was seen, or the earliest time at which it may have begun by its own words."""
    end: float = math.inf

    def covers(self, sample: Sample) -> bool:
        """Whether a sample was taken in it."""
        return self.begin - GRACE <= sample.at <= self.end + GRACE


@dataclass
class Books:
    """The overdrafts of one controller process after another, as far as `look` has read its journal."""

    controller: Controller
    overdrafts: list[Overdraft] = field(default_factory=list)
    _start: int = 0
    _number: int = 0

    def look(self) -> None:
        """Read what is new in the journal; a new process has a new one."""
        if self._start != self.controller.starts:
            self._start, self._number = self.controller.starts, 0
            for one in self.overdrafts:
                one.end = min(one.end, time.monotonic())
        for entry in list(self.controller.client.follow("events", after=self._number)):
            self._number = entry["number"]
            if entry["topic"] == "overdraft":
                self._note(entry)

    def _note(self, entry: dict[str, Any]) -> None:
        at = entry["at"] - time.time() + time.monotonic()
        if not entry["text"].startswith("overdraft ended"):
            unseen = UNSEEN.search(entry["text"])
            self.overdrafts.append(Overdraft(entry["text"], at - float(unseen[1]) if unseen else at))
        elif self.overdrafts:
            self.overdrafts[-1].end = at

    def unrecorded(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples above capacity of which the controller knew nothing."""
        return [
            sample
            for sample in samples
            if sample.charge > self.controller.capacity_bytes
            and not any(one.covers(sample) for one in self.overdrafts)
        ]
