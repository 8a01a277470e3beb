"""A log that never grows beyond a bound: a new file is begun, and one old one is kept beside it."""

import contextlib
import os
from pathlib import Path
from typing import Final

from host_controller.private import open_private

LARGEST_BYTES: Final = 4 << 20
"""A quiet arbiter writes some KiB a day."""


class BoundedLog:
    """What `print` writes to. What cannot be written is lost: a full disk stops no arbiter."""

    def __init__(self, path: Path, largest_bytes: int = LARGEST_BYTES) -> None:
        """Go on with what is there.

        Raises:
            OSError: it cannot be written.
        """
        self._path, self._largest = path, largest_bytes
        self._descriptor = self._open()

    def write(self, text: str) -> int:
        """Append; returns how many characters, 0 where the file took none."""
        content = text.encode(errors="replace")
        try:
            if os.fstat(self._descriptor).st_size + len(content) > self._largest:
                self._begin_anew()
            os.write(self._descriptor, content)
        except OSError:
            return 0
        return len(text)

    def flush(self) -> None:
        """Do nothing: each `write` has reached the file."""

    def _begin_anew(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody took it away
            self._path.rename(self._path.with_name(f"{self._path.name}.1"))
        new = self._open()
        os.close(self._descriptor)
        self._descriptor = new

    def _open(self) -> int:
        return open_private(self._path, os.O_WRONLY | os.O_APPEND)
