"""What the guest may come to have, for programs that size themselves by MemTotal when they start.

/run/dynmem-agent/maximum holds one number, bytes, that everybody may read. It is there while a host manages
the guest and has said what its maximum is.
"""

from __future__ import annotations

import os

from agent.system import read_file, write_whole

_PLACE = "run/dynmem-agent/maximum"


class Maximum:
    """That file; `root` stands for /. One that cannot be written is left out: nothing depends on it."""

    def __init__(self, root: str) -> None:
        self._path = os.path.join(root, _PLACE)
        self._shown_bytes = 0

    def show(self, maximum_bytes: int) -> None:
        """Say so from now on; 0 is not known."""
        if maximum_bytes == self._shown_bytes:
            return
        if not maximum_bytes:
            self.hide()
            return
        try:
            write_whole(self._path, f"{maximum_bytes}\n")  # a reader sees one number or the other
        except OSError:
            return
        self._shown_bytes = maximum_bytes

    def hide(self) -> None:
        """The guest is nobody's any more."""
        self._shown_bytes = 0
        try:
            os.unlink(self._path)
        except OSError:
            return


def told(root: str) -> int:
    """What the file says, bytes; 0 where no host has said it."""
    text = read_file(os.path.join(root, _PLACE), 32).strip()
    return int(text) if text.isdigit() else 0
