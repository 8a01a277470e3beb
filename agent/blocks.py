"""Memory blocks in /sys/devices/system/memory: what there is, and the writes that change it.

A block is what the kernel brings online or offline at once: 128 MiB on x86 up to 64 GiB of RAM, more on
larger machines. The state of every block is cached, and so are the sums, since each look of the agent wants
them: to read one block costs two opens, which is as much as a look.
Source: Documentation/admin-guide/mm/memory-hotplug.rst.
"""

from __future__ import annotations

import os

from agent.lean import NamedTuple
from agent.report import Blocks
from agent.system import read_file


class Block(NamedTuple):
    """One block as last read. movable: online in ZONE_MOVABLE."""

    online: bool
    movable: bool


class MemoryBlocks:
    """The blocks of one machine; `root` stands for /."""

    def __init__(self, root: str = "/") -> None:
        self._directory = os.path.join(root, "sys/devices/system/memory")
        self._known: dict[int, Block] = {}
        self._totals: Blocks | None = None  # of what is known
        size = self._read("block_size_bytes")
        try:
            self.block_bytes = int(size, 16)
        except ValueError:
            self.block_bytes = 0  # no memory hotplug in this kernel
        self.scan()

    def scan(self) -> list[int]:
        """Read every block anew. Returns the numbers of those that were not there before."""
        before = set(self._known)
        self._known.clear()
        self._totals = None
        try:
            names = os.listdir(self._directory)
        except OSError:
            return []
        for name in names:
            if name.startswith("memory") and name[6:].isdecimal():
                self.refresh(int(name[6:]))
        return sorted(self._known.keys() - before)

    def refresh(self, number: int) -> Block | None:
        """Read one block anew. Returns None, and forgets it, if it is gone."""
        state = self._read(f"memory{number}/state")
        self._totals = None
        if not state:
            self._known.pop(number, None)
            return None
        online = state.startswith("online")
        # Not of an offline one: while it is being added, Linux 6.1 dereferences a null pointer for it.
        movable = online and self._read(f"memory{number}/valid_zones") == "Movable"
        block = self._known[number] = Block(online, movable)
        return block

    def totals(self) -> Blocks:
        """Sums over the cached blocks. Blocks that are going offline count as offline already."""
        if self._totals is None:
            online = sum(1 for block in self._known.values() if block.online)
            movable = sum(1 for block in self._known.values() if block.movable)
            size = self.block_bytes
            self._totals = Blocks(online * size, (len(self._known) - online) * size, movable * size)
        return self._totals

    def offline(self) -> list[int]:
        """Numbers of the cached blocks that were not online."""
        return [number for number, block in self._known.items() if not block.online]

    def in_range(self, start_bytes: int, size_bytes: int) -> list[int]:
        """Numbers of the blocks of a guest-physical range, ascending.

        Raises ValueError if the range is not made of whole blocks that are all there.
        """
        size = self.block_bytes
        if size == 0:
            raise ValueError("no memory hotplug in this kernel")
        if size_bytes == 0 or start_bytes % size or size_bytes % size:
            raise ValueError(f"the range is not made of whole memory blocks of {size} bytes")
        first, count = start_bytes // size, size_bytes // size
        if count > len(self._known):
            raise ValueError("the range is larger than all memory here")
        missing = sum(1 for number in range(first, first + count) if self.refresh(number) is None)
        if missing:
            raise ValueError(f"{missing} of {count} memory blocks are not there")
        return list(range(first, first + count))

    def write_state(self, number: int, word: str) -> None:
        """Write offline, online_movable or online_kernel. May block for long. Raises OSError (EBUSY)."""
        self._write(f"memory{number}/state", word)

    def policy(self) -> str:
        """auto_online_blocks: offline, online, online_kernel or online_movable; "" if there is none."""
        return self._read("auto_online_blocks")

    def policy_writable(self) -> bool:
        """Whether we may say what the kernel does with new blocks."""
        return os.access(os.path.join(self._directory, "auto_online_blocks"), os.W_OK)

    def write_policy(self, word: str) -> None:
        """Set auto_online_blocks. Raises OSError; EINVAL for a zone before Linux 5.7."""
        self._write("auto_online_blocks", word)

    def _read(self, path: str) -> str:
        return read_file(f"{self._directory}/{path}", 256).decode("ascii", "replace").strip()

    def _write(self, path: str, word: str) -> None:
        flags = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(os.path.join(self._directory, path), flags)
        try:
            os.write(fd, word.encode())
        finally:
            os.close(fd)
