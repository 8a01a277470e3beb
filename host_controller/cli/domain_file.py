"""A domain in a file, which a cluster starts it from: read and written as a definition of libvirt's is."""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from host_controller.domain_xml.values import parse_xml
from host_controller.errors import DynmemError, InputError

LARGEST_BYTES: Final = 1 << 20
MARK: Final = "\ufeff"
"""Some editors begin a text with it. It stays there, and is no part of the XML."""


class DomainFile:
    """It is of a VM's next start: whatever runs now goes on as it is."""

    running = False
    persistent = True
    saved = False

    def __init__(self, file: Path) -> None:
        """Read it.

        Raises:
            InputError: it cannot be read, or is no domain's.
        """
        self._file = file
        read = self._read()
        self._text = read.removeprefix(MARK)
        self._mark = read[: len(read) - len(self._text)]
        try:
            self.name = parse_xml(self._text).findtext("name") or file.stem
        except DynmemError as error:
            raise InputError(f"{file}: {error.message}") from None

    def snapshots(self, *, prepared: bool) -> int:
        """None: those are libvirt's."""
        return 0

    def xml(self, *, secrets: bool = False) -> str:
        """What it says, which is all that there is."""
        return self._text

    def define(self, xml: str) -> None:
        """Replace what it says, at once, for the same readers as before. A link stays one.

        Raises:
            InputError: it cannot be written.
        """
        new = None
        try:
            file = self._file.resolve(strict=True)
            about = file.stat()
            descriptor, new = tempfile.mkstemp(dir=file.parent, prefix=".dynmem-")
            with open(descriptor, "w", encoding="utf-8") as opened:
                os.fchown(opened.fileno(), about.st_uid, about.st_gid)
                os.fchmod(opened.fileno(), stat.S_IMODE(about.st_mode))
                opened.write(self._mark + xml)
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(new, file)
        except OSError as error:
            if new is not None:
                Path(new).unlink(missing_ok=True)
            raise InputError(f"{self._file}: {error.strerror}", hint="nothing was changed") from None
        self._text = xml

    def _read(self) -> str:
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as opened:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise InputError(f"{self._file} is no file")
                text = opened.read(LARGEST_BYTES + 1)
        except OSError as error:
            raise InputError(f"{self._file}: {error.strerror}") from None
        if len(text) > LARGEST_BYTES:
            raise InputError(f"{self._file}: no domain takes more than {LARGEST_BYTES} bytes")
        if b"<!DOCTYPE" in text:
            raise InputError(f"{self._file}: a domain has no DOCTYPE")
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise InputError(f"{self._file}: it is no text in UTF-8") from None
