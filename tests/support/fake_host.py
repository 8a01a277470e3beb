"""A made-up root directory: what a host's kernel and its libvirt say, as files."""

import os
from pathlib import Path

from host_controller.host.identity import Identity
from host_controller.host.proc import PAGE_BYTES
from host_controller.host.watch import HostWatch
from host_controller.units import GIB, KIB, MIB

UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
OTHER_UUID = "5dea22b3-1d52-d8f3-2516-782e98ab3fa0"


class FakeHost:
    """A host of 64 GiB, most of it free, with nothing on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.memory = {"MemTotal": 64 * GIB, "MemFree": 60 * GIB, "MemAvailable": 62 * GIB}
        self.run = root / "run/libvirt/qemu"
        self.run.mkdir(parents=True)
        (root / "proc").mkdir()
        self.meminfo()

    def watch(self) -> HostWatch:
        identity = Identity("qemu:///system", self.root / "proc", self.run)
        return HostWatch("qemu:///system", root=self.root, identity=identity)

    def meminfo(self, **sizes: int | None) -> None:
        """Change lines of /proc/meminfo; None takes one away."""
        self.memory.update({name: size for name, size in sizes.items() if size is not None})
        for name, size in sizes.items():
            if size is None:
                self.memory.pop(name, None)
        lines = [f"{name + ':':<16}{size // KIB:8} kB\n" for name, size in self.memory.items()]
        self.write("proc/meminfo", "".join(lines))

    def use(self, size: int) -> None:
        """Somebody takes that much ordinary memory."""
        self.meminfo(MemAvailable=self.memory["MemAvailable"] - size)

    def huge_pages(self, page: int, total: int, free: int = 0, **more: int) -> None:
        """A pool; what is in it is not available any more."""
        directory = f"sys/kernel/mm/hugepages/hugepages-{page // KIB}kB"
        values = {"nr_hugepages": total, "free_hugepages": free, "resv_hugepages": 0, "surplus_hugepages": 0}
        for name, value in {**values, "nr_overcommit_hugepages": 0, **more}.items():
            self.write(f"{directory}/{name}", f"{value}\n")

    def arc(self, size: int, floor: int) -> None:
        lines = ["13 1 0x01 147 39984 5 6", "name                            type data"]
        lines += [
            f"{name:<32}4    {value}" for name, value in (("c_min", floor), ("c", size), ("size", size))
        ]
        self.write("proc/spl/kstat/zfs/arcstats", "\n".join(lines) + "\n")

    def process(
        self,
        pid: int,
        held: int,
        *arguments: str,
        name: str = "qemu-system-x86",
        started: int = 1000,
        uid: int = 64055,
        file_bytes: int = 0,
        cgroup: str = "0::/",
        inside: tuple[int, ...] = (),
    ) -> None:
        """A process; by default one that is called as QEMU is. inside: its numbers in others' PID spaces."""
        words = arguments or ("/usr/bin/qemu-system-x86_64",)
        base = f"proc/{pid}"
        self.write(f"{base}/cmdline", "\0".join(words) + "\0")
        self.write(f"{base}/comm", f"{name}\n")
        self.write(f"{base}/stat", f"{pid} ({name}) {' '.join(['S', *['0'] * 18, str(started), '0'])}\n")
        self.write(
            f"{base}/status",
            f"Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nRssFile:\t{file_bytes // KIB} kB\n"
            f"NSpid: {' '.join(map(str, (pid, *inside)))}\n",
        )
        self.write(f"{base}/cgroup", f"{cgroup}\n")
        self.holds(pid, held)

    def qemu(self, pid: int, uuid: str, held: int, *, vm: str | None = None, **more: object) -> None:
        """libvirt's QEMU, with its pid file, unless `vm` is empty."""
        self.process(pid, held, "/usr/bin/qemu-system-x86_64", "-uuid", uuid, **more)  # type: ignore[arg-type]
        if vm != "":
            self.write(f"run/libvirt/qemu/{vm or uuid}.pid", str(pid))

    def holds(self, pid: int, held: int) -> None:
        self.write(f"proc/{pid}/statm", f"9999999 {held // PAGE_BYTES} 1 1 0 1 0\n")

    def end(self, pid: int) -> None:
        for file in (self.root / "proc" / str(pid)).iterdir():
            file.unlink()
        (self.root / "proc" / str(pid)).rmdir()

    def group(self, path: str, *, old: bool = False, **settings: object) -> None:
        """A control group: `max=…`, `high=…`, `current=…`, `stat=…`."""
        base = f"sys/fs/cgroup/{'memory/' if old else ''}{path.strip('/')}"
        for name, value in settings.items():
            self.write(f"{base}/memory.{name}", f"{value}\n")

    def node(self, number: int, total: int, **sizes: int) -> None:
        """A NUMA node, of which all but `used` is free."""
        base = f"sys/devices/system/node/node{number}"
        memory = {"MemTotal": total, "MemFree": total - sizes.pop("used", 0), **sizes}
        lines = [f"Node {number} {name + ':':<16}{size // KIB:8} kB\n" for name, size in memory.items()]
        self.write(f"{base}/meminfo", "".join(lines))
        there = sorted(one.name.removeprefix("node") for one in (self.root / base).parent.glob("node*"))
        self.write("sys/devices/system/node/has_memory", f"{','.join(there)}\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        os.utime(file)


__all__ = ["GIB", "MIB", "OTHER_UUID", "UUID", "FakeHost"]
