"""Files of whoever simulates, as text."""

from pathlib import Path

from host_controller.errors import InputError


def read_text(path: Path, kind: str) -> str:
    """All of it, whatever its line ends, without a byte order mark.

    kind: of file, as in "name a readable TOML file".

    Raises:
        InputError: it cannot be read, or is no text in UTF-8.
    """
    hint = f"name a readable {kind} file"
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint=hint) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is no text in UTF-8", hint=hint) from None
