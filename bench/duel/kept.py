"""A duel that can be stopped and goes on: what was judged is kept in a file, a host in a line.

A search is decided by its seed and by what its hosts show. So one that begins anew, and is told what it was
told before, comes to the same point without playing anything.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.duel.hosts import Host
from bench.duel.judge import Verdict
from bench.duel.search import Judge


class Kept:
    """A judge that remembers. `spent_seconds` is the processor time of all hosts asked for so far."""

    def __init__(
        self, judge: Judge, path: Path | None, mark: str, clock: Callable[[], float] = time.process_time
    ) -> None:
        """What another law has shown, by its `mark`, counts no more: the file begins anew."""
        self.spent_seconds = 0.0
        self._judge, self._path, self._clock = judge, path, clock
        self._told: dict[str, Any] = {}
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        if lines and lines[0] == mark:
            for line in lines[1:]:
                one = json.loads(line)
                self._told[one["host"]] = one
        elif path is not None:
            path.write_text(f"{mark}\n")

    def __call__(self, host: Host) -> Mapping[str, Verdict]:
        """Told or played."""
        key = json.dumps([host.share, host.seconds, host.vms], sort_keys=True)
        one = self._told.get(key)
        if one is None:
            began = self._clock()
            found = self._judge(host)
            one = {
                "host": key,
                "seconds": self._clock() - began,
                "found": [asdict(v) for v in found.values()],
            }
            self._keep(key, one)
        self.spent_seconds += one["seconds"]
        return {told["kind"]: Verdict(**told) for told in one["found"]}

    def _keep(self, key: str, one: dict[str, Any]) -> None:
        self._told[key] = one
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(one) + "\n")
