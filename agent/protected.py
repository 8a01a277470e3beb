"""Memory that control groups protect (v2, memory.min: MemoryMin= of a slice, memory QoS of Kubernetes). The
kernel takes none of it and kills before it would, and MemAvailable counts its cache all the same
(fact: protected-is-available).

Groups at the top count alone: what lies beneath has no more than they are given.
"""

from __future__ import annotations

import os

from agent.system import group_bytes, groups_beneath, read_file

_GROUPS = "sys/fs/cgroup"
_CACHE = (b"active_file", b"inactive_file", b"slab_reclaimable")
_PROGRAMS = (b"active_anon", b"inactive_anon")


class Protected:
    """Who protects memory is looked for now and then; what of it that is, is read more often."""

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, _GROUPS)
        self._found: list[str] = []
        self.cache_bytes = 0
        """What of files' pages and of the kernel's own cache stays."""
        self.programs_bytes = 0
        """What of programs' memory may not go to swap."""
        self.look_again()

    def look_again(self) -> None:
        """Groups come, and get other limits."""
        self._found = [path for path in groups_beneath(self._root) if _number(path, "min")]
        self.refresh()

    def refresh(self) -> None:
        """What they hold changes."""
        self.cache_bytes = self.programs_bytes = 0
        for path in self._found:
            cache, programs = group_bytes(path, _CACHE), group_bytes(path, _PROGRAMS)
            beyond = max(0, _number(path, "current") - _number(path, "min"))
            self.cache_bytes += max(0, cache - beyond)
            self.programs_bytes += max(0, programs - max(0, beyond - cache))


def _number(path: str, name: str) -> int:
    """Bytes; all there can be for `max`, and 0 where it does not say."""
    told = read_file(f"{path}/memory.{name}").strip()
    return 1 << 62 if told == b"max" else int(told) if told.isdigit() else 0
