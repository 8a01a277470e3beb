"""A small initramfs: files in a cpio archive, and a kernel's modules in an order in which they load.

It is not compressed: QEMU hands it over by DMA, and unpacking would cost more than copying.
"""

import io
import stat
from collections.abc import Iterable


class Cpio:
    """Writes the `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._inode = 0
        self._directories: set[str] = set()

    def add(self, name: str, mode: int, data: bytes = b"") -> None:
        """A member with its whole mode, kind included. Its directory must be there."""
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        self._out.write(b"070701" + "".join(f"{field:08X}" for field in fields).encode() + encoded)
        self._pad()
        self._out.write(data)
        self._pad()

    def directory(self, path: str) -> None:
        """A directory and those above it, unless they are there."""
        parts = path.strip("/").split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            if name and name not in self._directories:
                self._directories.add(name)
                self.add(name, stat.S_IFDIR | 0o755)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A regular file, with its directories."""
        name = path.strip("/")
        self.directory(name.rpartition("/")[0])
        self.add(name, stat.S_IFREG | mode, data)

    def finish(self) -> bytes:
        """The whole archive, ended as the kernel wants it."""
        self.add("TRAILER!!!", 0)
        return self._out.getvalue()

    def _pad(self) -> None:
        self._out.write(b"\0" * (-self._out.tell() % 4))


def members(archive: bytes) -> dict[str, bytes]:
    """The regular files of an uncompressed archive, by name."""
    found: dict[str, bytes] = {}
    at = 0
    while archive[at : at + 6] == b"070701":
        fields = [int(archive[at + 6 + 8 * one : at + 14 + 8 * one], 16) for one in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        begin = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            break
        if stat.S_ISREG(mode):
            found[name] = archive[begin : begin + size]
        at = (begin + size + 3) & ~3
    return found


def load_order(modules_dep: str, wanted: Iterable[str]) -> list[str]:
    """Module files in an order that insmod accepts: dependencies first. Built-in modules are not listed.

    modules_dep: the text of the kernel's modules.dep. wanted: names, with `_`.
    """
    depends = {
        line.split(":", 1)[0]: line.split(":", 1)[1].split()
        for line in modules_dep.splitlines()
        if ":" in line
    }
    by_name = {file_name(path).split(".", 1)[0].replace("-", "_"): path for path in depends}
    order: list[str] = []

    def visit(path: str) -> None:
        for dependency in depends[path]:
            visit(dependency)
        if path not in order:
            order.append(path)

    for name in wanted:
        if name in by_name:
            visit(by_name[name])
    return order


def file_name(path: str) -> str:
    """Without its directories."""
    return path.rsplit("/", 1)[-1]
