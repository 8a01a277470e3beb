"""The throwaway guest's files: this host's Python, with all that its programs import."""

import json
import lzma
import os
import platform
import subprocess
from pathlib import Path

import pytest

from host_controller.delivery.agent_file import agent_file
from host_controller.verify import guest_kernel
from host_controller.verify.errors import VerifyError
from host_controller.verify.guest_kernel import GuestKernel, initramfs
from host_controller.verify.initramfs import Cpio, load_order, members
from host_controller.verify.python_tree import interpreter

KERNEL = GuestKernel(Path("/nowhere"), "6.1", (("virtio.ko", b"module"),))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name, content in members(initramfs(KERNEL, agent_file())).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)
    return root


def test_what_is_written_is_read_again() -> None:
    archive = Cpio()
    archive.file("a/b/c", b"12345")
    archive.file("a/d", b"")
    assert members(archive.finish()) == {"a/b/c": b"12345", "a/d": b""}


def test_modules_come_after_what_they_need_and_once() -> None:
    text = "k/virtio_pci.ko.xz: k/virtio.ko k/ring.ko\nk/ring.ko: k/virtio.ko\nk/virtio.ko:\n"
    assert load_order(text, ("virtio_pci", "virtio_mem", "virtio")) == [
        "k/virtio.ko",
        "k/ring.ko",
        "k/virtio_pci.ko.xz",
    ]


def test_every_import_of_the_guests_programs_and_of_the_agent_is_in_the_tree(tree: Path) -> None:
    """The interpreter is told to look nowhere else."""
    library = [
        str(tree / place.strip("/"))
        for place in json.loads(
            subprocess.check_output(
                [interpreter(), "-I", "-S", "-c", "import json, sys; print(json.dumps(sys.path))"]
            )
        )
    ]
    code = (
        f"import sys; sys.path[:] = {[str(tree / 'verify/dynmem-agent.pyz'), *library]!r}\n"
        "import agent.daemon, agent.installation\n"
        "import contextlib, ctypes, json, mmap, select, signal, subprocess, platform, pathlib, typing\n"
    )
    done = subprocess.run([interpreter(), "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_programs_and_the_modules_are_there(tree: Path) -> None:
    assert (tree / "init").read_text().startswith(f"#!{interpreter()} -IS\n")
    assert (tree / "modules/order").read_text() == "virtio.ko\n"
    assert (tree / "verify/dynmem-agent.pyz").read_bytes() == agent_file()
    compile((tree / "verify/forge_actual.py").read_text(), "forge_actual.py", "exec")


def test_the_workload_server_finds_its_programs_beside_it(tree: Path) -> None:
    code = f"import runpy; runpy.run_path({str(tree / 'verify/workload_server.py')!r})"
    done = subprocess.run([interpreter(), "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_kernel_that_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VerifyError, match=r"There is no kernel at .*--kernel"):
        GuestKernel.of_host(tmp_path / "vmlinuz-6.1")
    (tmp_path / "vmlinuz-6.1").write_bytes(b"")
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(VerifyError, match="cannot be read: run this as root"):
            GuestKernel.of_host(tmp_path / "vmlinuz-6.1")
    with pytest.raises(VerifyError, match="name its modules with --modules"):
        GuestKernel.of_host(tmp_path / "vmlinuz-6.1", tmp_path / "modules")


def test_compressed_modules_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"")
    (tmp_path / "virtio_pci.ko.xz").write_bytes(lzma.compress(b"module"))
    (tmp_path / "modules.dep").write_text("virtio_pci.ko.xz:\n")
    kernel = GuestKernel.of_host(tmp_path / "vmlinuz", tmp_path)
    assert kernel.modules == (("virtio_pci.ko", b"module"),)


def test_the_hosts_kernel_is_found_where_its_distribution_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_kernel, "BOOT", tmp_path / "boot")
    monkeypatch.setattr(guest_kernel, "MODULE_TREES", tmp_path / "modules")
    tree = tmp_path / "modules" / platform.release()
    tree.mkdir(parents=True)
    (tree / "modules.dep").write_text("")
    with pytest.raises(VerifyError, match=rf"no kernel at .*boot/vmlinuz-{platform.release()}"):
        GuestKernel.of_host()
    (tree / "vmlinuz").write_bytes(b"")  # Arch, Fedora, openSUSE
    assert GuestKernel.of_host().image == tree / "vmlinuz"
    (tmp_path / "boot").mkdir()
    debian = tmp_path / "boot" / f"vmlinuz-{platform.release()}"
    debian.write_bytes(b"")
    assert GuestKernel.of_host().image == debian


def test_a_program_that_is_not_there_to_unpack_modules_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"")
    (tmp_path / "virtio_pci.ko.zst").write_bytes(b"module")
    (tmp_path / "modules.dep").write_text("virtio_pci.ko.zst:\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VerifyError, match=r"virtio_pci\.ko\.zst cannot be unpacked: zstd: No such file"):
        GuestKernel.of_host(tmp_path / "vmlinuz", tmp_path)
