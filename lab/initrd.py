"""A small initrd: busybox, the virtio modules, and a script that mounts the root disk and goes on.

Written here rather than by initramfs-tools, whose udev and 14 MB cost seconds of every boot under TCG.
It is not compressed: QEMU hands it over by DMA, and unpacking would cost more than copying.
"""

import io
import stat
import tarfile

MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_balloon", "virtio_mem")

INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "/modules/$module"; done < /modules/order
/bin/busybox mount -t ext4 -o noatime /dev/vda /root || exec /bin/busybox sh
/bin/busybox mount -t ext4 -o ro /dev/vdb /root/lab || exec /bin/busybox sh
/bin/busybox umount /dev
exec /bin/busybox switch_root /root /lab/guest/init
"""


def build_initrd(rootfs: tarfile.TarFile) -> bytes:
    """The initrd (cpio, newc) for the one kernel of a root file system in a tar archive."""
    members = {member.name.removeprefix("./"): member for member in rootfs.getmembers()}
    dependencies_path = next(name for name in members if name.endswith("/modules.dep"))
    module_root = dependencies_path.removesuffix("modules.dep")

    def read(name: str) -> bytes:
        handle = rootfs.extractfile(members[name])
        if handle is None:
            raise FileNotFoundError(name)
        return handle.read()

    archive = _Cpio()
    for directory in ("bin", "dev", "modules", "root"):
        archive.add(directory, stat.S_IFDIR | 0o755)
    busybox = next(name for name in ("usr/bin/busybox", "bin/busybox") if name in members)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, read(busybox))
    archive.add("init", stat.S_IFREG | 0o755, INIT.encode())
    order = _load_order(read(dependencies_path).decode(), MODULES)
    for path in order:
        archive.add(f"modules/{_file_name(path)}", stat.S_IFREG | 0o644, read(module_root + path))
    names = "".join(f"{_file_name(path)}\n" for path in order)
    archive.add("modules/order", stat.S_IFREG | 0o644, names.encode())
    return archive.finish()


def _file_name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _load_order(modules_dep: str, wanted: tuple[str, ...]) -> list[str]:
    """Module files in an order that insmod accepts: dependencies first. Built-in modules are not listed."""
    depends = {
        line.split(":", 1)[0]: line.split(":", 1)[1].split()
        for line in modules_dep.splitlines()
        if ":" in line
    }
    by_name = {_file_name(path).split(".", 1)[0].replace("-", "_"): path for path in depends}
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


class _Cpio:
    """Writes the `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._inode = 0

    def add(self, name: str, mode: int, data: bytes = b"") -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        self._out.write(b"070701" + "".join(f"{field:08X}" for field in fields).encode() + encoded)
        self._pad()
        self._out.write(data)
        self._pad()

    def _pad(self) -> None:
        self._out.write(b"\0" * (-self._out.tell() % 4))

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return self._out.getvalue()
