"""The kernel of the throwaway guest: the host's own, or another one; and the initramfs that it boots with."""

import lzma
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from host_controller.verify import python_tree
from host_controller.verify.errors import VerifyError
from host_controller.verify.initramfs import Cpio, file_name, load_order

MODULES: Final = ("virtio_pci", "virtio_console", "virtio_balloon", "virtio_mem")
BOOT: Final = Path("/boot")
MODULE_TREES: Final = Path("/lib/modules")
INSIDE: Final = Path(__file__).parent / "inside"
WORKLOAD_SERVER: Final = ("workload_server.py", "workloads.py")
"""The program, and what it imports: they lie in one directory."""
PROGRAMS: Final = ("init.py", *WORKLOAD_SERVER, "forge_actual.py")
DECOMPRESS: Final = {".zst": ["zstd", "-d", "-c"], ".gz": ["gzip", "-d", "-c"]}


@dataclass(frozen=True, slots=True)
class GuestKernel:
    """A kernel and its virtio modules, in an order in which they load."""

    image: Path
    release: str
    modules: tuple[tuple[str, bytes], ...]

    @classmethod
    def of_host(cls, image: Path | None = None, modules: Path | None = None) -> Self:
        """The running kernel, or that of `image` and `modules` (a directory with modules.dep).

        Raises:
            VerifyError: it is not where kernels are, or cannot be read.
        """
        if image is None:
            modules = modules or MODULE_TREES / platform.release()
            # Debian's place; and where Arch, Fedora and openSUSE have it, with or without the other.
            places = BOOT / f"vmlinuz-{platform.release()}", modules / "vmlinuz"
            image = next((one for one in places if os.path.isfile(one)), places[0])
        if not os.path.isfile(image):
            raise VerifyError(f"There is no kernel at {image}: name one with --kernel.")
        if not os.access(image, os.R_OK):
            raise VerifyError(f"{image} cannot be read: run this as root, or name another with --kernel.")
        if modules is None:
            modules = MODULE_TREES / image.name.partition("-")[2]
        try:
            dependencies = (modules / "modules.dep").read_text()
            loaded = tuple(
                (file_name(path).split(".ko")[0] + ".ko", _plain(modules / path))
                for path in load_order(dependencies, MODULES)
            )
        except OSError as error:
            raise VerifyError(
                f"{error.filename}: {error.strerror}; name its modules with --modules."
            ) from None
        return cls(image, modules.name, loaded)


def initramfs(kernel: GuestKernel, agent_file: bytes) -> bytes:
    """This host's Python, the agent and the guest's programs, for that kernel. Some 30 MiB."""
    archive = Cpio()
    for path in ("dev", "proc", "sys", "run", "tmp"):
        archive.directory(path)
    for path, content, mode in python_tree.files():
        archive.file(path, content, mode)
    for name in PROGRAMS:
        archive.file(f"verify/{name}", (INSIDE / name).read_bytes(), 0o755)
    archive.file("verify/dynmem-agent.pyz", agent_file)
    shebang = f"#!{python_tree.interpreter()} -IS\n".encode()
    archive.file("init", shebang + (INSIDE / "init.py").read_bytes(), 0o755)
    for name, content in kernel.modules:
        archive.file(f"modules/{name}", content)
    archive.file("modules/order", "".join(f"{name}\n" for name, _ in kernel.modules).encode())
    return archive.finish()


def _plain(path: Path) -> bytes:
    """A module as finit_module(2) takes it from every kernel: not compressed."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix in DECOMPRESS:
        command = DECOMPRESS[path.suffix]
        try:
            done = subprocess.run([*command, path], capture_output=True, check=False)
        except OSError as error:
            raise VerifyError(f"{path} cannot be unpacked: {command[0]}: {error.strerror}.") from None
        if done.returncode != 0:
            raise VerifyError(f"{path} cannot be unpacked: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout
    return path.read_bytes()
