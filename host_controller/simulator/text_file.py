"""Files of whoever simulates, as text."""

import io
from pathlib import Path
from typing import Final

from host_controller.errors import InputError

LARGEST_BYTES: Final = 256 << 20
"""A trace of a year by the second takes no more. What does not end, as /dev/zero, would take all memory."""


def read_text(path: Path, kind: str) -> str:
    """All of it, whatever its line ends, without a byte order mark.

    kind: of file, as in "name a readable TOML file".

    Raises:
        InputError: it cannot be read, or is no text in UTF-8.
    """
    hint = f"name a readable {kind} file"
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES + 1)
        if len(text) > LARGEST_BYTES:
            raise InputError(f"{path}: it is larger than {LARGEST_BYTES} bytes", hint=hint)
        return io.TextIOWrapper(io.BytesIO(text), encoding="utf-8-sig").read()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint=hint) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is no text in UTF-8", hint=hint) from None
