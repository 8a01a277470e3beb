"""Files for us alone: the mode is set here, whatever umask and unit say. Their methods raise OSError."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700


def private_directory(path: Path, mode: int = DIRECTORY_MODE) -> None:
    """Make a directory that is missing; one that is there keeps its mode, which is its owner's business."""
    if path.is_dir():
        return
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.mkdir(mode=mode, exist_ok=True)


def open_private(path: Path, flags: int = os.O_WRONLY | os.O_TRUNC) -> int:
    """A descriptor of a file that only its owner may open from now on, one that was there included.

    A link or a device of that name is refused: whoever may write beside the file could have put it there, and
    /dev/null for us alone would stop the host.
    """
    # Without waiting for whoever reads a pipe; files know no such thing.
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        own(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def own(descriptor: int, path: Path) -> None:
    """Only its owner may open this file from now on. What is no file is left as it is: OSError."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "it is no file, but a device, a pipe or the like", str(path))
    os.fchmod(descriptor, FILE_MODE)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file's content."""
    with os.fdopen(open_private(path), "wb") as file:
        file.write(content)


def replace_private(path: Path, content: bytes) -> None:
    """Put a new file in a file's place, at once: a reader sees the old one whole, or the new one."""
    new = path.with_suffix(".new")
    write_private(new, content)
    new.replace(path)
