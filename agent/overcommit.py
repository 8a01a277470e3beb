"""The guest's kernel must not refuse memory that its maximum allows.

A kernel judges a new mapping by the memory that it has at that moment. A refusal reaches no report, so nobody
could help. Two modes of vm.overcommit_memory refuse [mm/util.c, __vm_enough_memory()]:

- 0, the default, refuses one mapping above MemTotal + swap. While a host manages the guest the mode is 1.
- 2 bounds the sum of all mappings by CommitLimit, a share of MemTotal. While a host manages the guest it is
  what it would be at the maximum, by vm.overcommit_kbytes.

What was there before is put back when the agent ends, and by `dynmem-agent restore` when it was killed.
Whoever changes a setting meanwhile has the last word. DYNMEM_OVERCOMMIT=leave in the environment leaves all
of it alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from agent.maximum import Maximum
from agent.system import Log, read_file, write_whole

HEURISTIC, ALWAYS, NEVER = "0", "1", "2"
_SETTINGS = "proc/sys/vm"
_BEFORE = "run/dynmem-agent/overcommit"


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the guest's administrator lets the agent set it; the default is yes."""
    return environment.get("DYNMEM_OVERCOMMIT", "keep").strip().lower() != "leave"


def huge_bytes(root: str) -> int:
    """Memory in huge pages of any size; before Linux 4.20 of the default size."""
    found = {}
    for line in read_file(os.path.join(root, "proc/meminfo"), 16384).splitlines():
        words = line.split()
        if len(words) > 1 and words[1].isdigit():
            found[words[0]] = int(words[1])
    pages = found.get(b"HugePages_Total:", 0) * found.get(b"Hugepagesize:", 0)
    return found.get(b"Hugetlb:", pages) << 10


class Overcommit:
    """The settings of one machine; `root` stands for /, `log` is as `system.Log`."""

    def __init__(self, root: str, log: Callable[[int, str, str], None], *, allowed: bool = True) -> None:
        self._root = root
        self._log = log
        self._allowed = allowed
        self._set: dict[str, str] = {}
        """What we have written, by the setting's name."""
        self._changed: dict[str, tuple[str, str, str]] = {}
        """As it is remembered, written down or not: the name, what we write, what was there before."""

    def keep(self, maximum_bytes: int, kernel_bytes: int) -> None:
        """Have the kernel promise what the guest could have at `maximum_bytes`. Cheap when nothing changed.

        kernel_bytes: what of RAM the kernel took before it counted MemTotal. 0 as maximum: not known.
        """
        if not self._allowed:
            return
        mode = self._read("overcommit_memory")
        if mode == HEURISTIC and "overcommit_memory" not in self._set:
            self._write("overcommit_memory", ALWAYS, before=mode)
        elif mode == NEVER and maximum_bytes:
            self._keep_limit(max(0, maximum_bytes - kernel_bytes))

    def restore(self) -> None:
        """Put back what was there before the agent came, unless somebody else has changed it since."""
        for line in self._remembered():
            name, ours, before = line
            if self._read(name) == ours:
                # A ratio that is written ends what was set in KiB, and the reverse.
                setting, value = (
                    ("overcommit_ratio", before) if name == "overcommit_kbytes" else (name, before)
                )
                self._try_write(setting, value)
        self._set.clear()
        self._changed.clear()
        try:
            os.unlink(os.path.join(self._root, _BEFORE))
        except OSError:
            return  # there was nothing to put back

    def _keep_limit(self, total_bytes: int) -> None:
        now = self._read("overcommit_kbytes")
        if now not in ("0", self._set.get("overcommit_kbytes")) and not self._inherits(now):
            return  # somebody has set it, and it does not follow MemTotal
        ratio = self._set.get("ratio") or self._read("overcommit_ratio")
        if not ratio.isdecimal():
            return
        self._set["ratio"] = ratio
        # Huge pages that are reserved promise nothing to anybody else [mm/util.c, vm_commit_limit()].
        kib = str((max(0, total_bytes - huge_bytes(self._root)) >> 10) * int(ratio) // 100)
        if kib != now:
            self._write("overcommit_kbytes", kib, before=ratio)

    def _inherits(self, kbytes: str) -> bool:
        """Whether an agent that was killed has set it: then we go on, from what was there before that one."""
        for name, ours, before in self._remembered():
            if (name, ours) == ("overcommit_kbytes", kbytes):
                self._set.update({name: kbytes, "ratio": before})
                return True
        return False

    def _write(self, name: str, value: str, before: str) -> None:
        self._remember(name, value, before)  # first: we may be killed in between
        if self._try_write(name, value):
            self._set[name] = value
            self._log(6, "overcommit", f"vm.{name} is {value} while a host manages this guest")

    def _try_write(self, name: str, value: str) -> bool:
        try:
            with open(os.path.join(self._root, _SETTINGS, name), "wb", buffering=0) as file:
                file.write(value.encode())
        except OSError as error:
            self._log(
                4, "overcommit", f"vm.{name} cannot be set: {error.strerror}; large mappings are refused"
            )
            self._allowed = False
            return False
        return True

    def _read(self, name: str) -> str:
        return read_file(os.path.join(self._root, _SETTINGS, name), 64).decode("ascii", "replace").strip()

    def _remember(self, name: str, ours: str, before: str) -> None:
        # What was before the first write is what goes back.
        kept = {old[0]: old for old in self._remembered()}
        kept[name] = self._changed[name] = (name, ours, kept[name][2] if name in kept else before)
        text = "".join(f"{' '.join(line)}\n" for line in kept.values())
        try:
            write_whole(os.path.join(self._root, _BEFORE), text)
        except OSError as error:
            self._log(4, "overcommit", f"what was before cannot be written down: {error.strerror}")

    def _remembered(self) -> list[tuple[str, str, str]]:
        try:
            with open(os.path.join(self._root, _BEFORE), encoding="ascii", errors="replace") as file:
                lines = [tuple(line.split()) for line in file.read(4096).splitlines()]
        except OSError:
            lines = []
        known = ("overcommit_memory", "overcommit_kbytes")
        kept = {line[0]: (line[0], line[1], line[2]) for line in lines if len(line) == 3 and line[0] in known}
        kept.update(self._changed)
        return list(kept.values())


def main(root: str = "/") -> int:
    """`dynmem-agent restore`: what a killed agent has left is put back. For ExecStopPost= and removal."""
    Overcommit(root, Log()).restore()
    Maximum(root).hide()  # nobody says any more that it still holds
    return 0
