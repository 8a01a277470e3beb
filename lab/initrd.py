"""A small initrd: busybox, the virtio modules, and a script that mounts the root disk and goes on.

Written here rather than by initramfs-tools, whose udev and 14 MB cost seconds of every boot under TCG.
It is not compressed: QEMU hands it over by DMA, and unpacking would cost more than copying.
"""

import stat
import tarfile

from host_controller.verify.initramfs import Cpio, file_name, load_order

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

    archive = Cpio()
    for directory in ("bin", "dev", "modules", "root"):
        archive.add(directory, stat.S_IFDIR | 0o755)
    busybox = next(name for name in ("usr/bin/busybox", "bin/busybox") if name in members)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, read(busybox))
    archive.add("init", stat.S_IFREG | 0o755, INIT.encode())
    order = load_order(read(dependencies_path).decode(), MODULES)
    for path in order:
        archive.add(f"modules/{file_name(path)}", stat.S_IFREG | 0o644, read(module_root + path))
    names = "".join(f"{file_name(path)}\n" for path in order)
    archive.add("modules/order", stat.S_IFREG | 0o644, names.encode())
    return archive.finish()
