"""A Debian that systemd boots, under QEMU alone: the test is the host at the other end of its ports."""

import os
import selectors
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent import codec, wire
from host_controller.verify.accelerator import find_accelerator
from lab import apt, image, initrd
from lab.cache import build_once, key_of
from lab.domain import AGENT_PORT

WITH_SYSTEMD = (*image.PACKAGES, "systemd-sysv", "udev", "dbus")
KERNEL_ARGUMENTS = (
    "console=ttyS0 loglevel=4 root=/dev/vda rw psi=1 mitigations=off audit=0 apparmor=0 no_timer_check "
    "systemd.show_status=false systemd.default_timeout_start_sec=300 random.trust_cpu=on"
)
BOOT_LIMIT = 240.0
HANDOVER = """#!/bin/sh
# The lab's initrd ends here: one unit more for this boot, and on to systemd.
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/systemd/system/multi-user.target.wants
cat > /run/systemd/system/lab-step.service <<END
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh /lab/step
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
END
ln -s ../lab-step.service /run/systemd/system/multi-user.target.wants/lab-step.service
ln -s /dev/null /run/systemd/system/serial-getty@ttyS0.service
exec /sbin/init
"""
SUITE = os.environ.get("DYNMEM_PACKAGE_SUITE", image.CODENAME)
"""Debian release of the guest: bookworm (12) by default, or trixie (13)."""


def system_image(*more: str) -> Path:
    """A directory with kernel, initrd and root disk of a Debian with systemd, built once. more: packages."""
    packages = (*WITH_SYSTEMD, *more)
    key = key_of(SUITE, *packages, *apt.LEFT_OUT, initrd.INIT)
    return build_once("systemd", key, lambda directory: _build(directory, packages))


def _build(directory: Path, packages: tuple[str, ...]) -> None:
    archive = directory / "root.tar"
    subprocess.run(
        image.debian(SUITE, archive, packages),
        check=True,
        capture_output=True,
        env={**os.environ, "INITRD": "No"},
    )
    image.make_bootable(archive, directory)


class Machine:
    """One boot of the guest, with a step that it runs; the test is the host at the other end of the port."""

    def __init__(
        self,
        image: Path,
        directory: Path,
        boot: int,
        step: str,
        files: Sequence[Path],
        *,
        guest_agent: bool,
        user_data: str | None,
    ) -> None:
        lab = directory / f"lab{boot}"
        (lab / "guest").mkdir(parents=True)
        (lab / "guest" / "init").write_text(HANDOVER)
        (lab / "guest" / "init").chmod(0o755)
        (lab / "step").write_text(step)
        for file in files:
            shutil.copy(file, lab)
        words = KERNEL_ARGUMENTS
        if user_data is not None:
            (lab / "seed").mkdir()
            (lab / "seed" / "meta-data").write_text("instance-id: lab\n")
            (lab / "seed" / "user-data").write_text(user_data)
            words += " ds=nocloud;s=/lab/seed/"
        disk = directory / f"lab{boot}.ext4"
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", lab, disk, "16M"], check=True)
        overlay = directory / "disk.qcow2"
        if not overlay.exists():
            backing = ["-b", str(image / "root.ext4"), "-F", "raw"]
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, overlay], check=True)
        self.console = directory / f"console{boot}.log"
        port = directory / f"port{boot}"
        self.guest_agent_socket = directory / f"ga{boot}"
        accelerator = find_accelerator()
        self.process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-M", "q35", "-accel", "kvm" if accelerator.name == "KVM" else "tcg"),
                *("-cpu", "host" if accelerator.name == "KVM" else "max", "-m", "640", "-no-reboot"),
                *("-kernel", image / "vmlinuz", "-initrd", image / "initrd", "-append", words),
                *("-drive", f"file={overlay},if=virtio,cache=unsafe"),
                *("-drive", f"file={disk},if=virtio,format=raw,readonly=on"),
                *("-device", "virtio-serial-pci", "-device", "virtio-balloon-pci"),
                *("-chardev", f"socket,id=agent,path={port},server=on,wait=off"),
                *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
                *(self._guest_agent() if guest_agent else ()),
                *("-display", "none", "-monitor", "none", "-serial", f"file:{self.console}"),
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        end = time.monotonic() + 60
        self.port = socket.socket(socket.AF_UNIX)
        while self.port.connect_ex(str(port)) != 0:
            assert self.process.poll() is None, self.process.communicate()[1].decode()
            assert time.monotonic() < end, "QEMU did not open the port within 60 s"
            time.sleep(0.05)
        self.reader = codec.LineReader()

    def _guest_agent(self) -> tuple[str, ...]:
        socket = f"socket,id=ga,path={self.guest_agent_socket},server=on,wait=off"
        return ("-chardev", socket, "-device", "virtserialport,chardev=ga,name=org.qemu.guest_agent.0")

    def hear(self, kind: type, limit: float = BOOT_LIMIT) -> wire.GuestMessage:
        """The next message of this kind that the agent sends."""
        end = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(self.port, selectors.EVENT_READ)
            while time.monotonic() < end:
                if not selector.select(0.5):
                    continue
                for line in self.reader.feed(self.port.recv(1 << 16)):
                    if isinstance(line, bytes) and isinstance(message := codec.decode_from_guest(line), kind):
                        return message  # type: ignore[no-any-return] # of the asked kind
        raise AssertionError(
            f"no {kind.__name__} within {limit:g} s; the console says:\n{self.said()[-3000:]}"
        )

    def tell(self, message: wire.HostMessage) -> None:
        """Say something to the agent."""
        self.port.sendall(codec.encode(message))

    def until_said(self, what: str, limit: float = BOOT_LIMIT) -> str:
        """What the console says, once this is in it."""
        end = time.monotonic() + limit
        while what not in self.said():
            assert time.monotonic() < end, f"no {what!r} within {limit:g} s:\n{self.said()[-3000:]}"
            time.sleep(0.2)
        return self.said()

    def said(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.port.close()


@contextmanager
def booted(
    image: Path,
    directory: Path,
    boot: int,
    step: str,
    files: Sequence[Path] = (),
    *,
    guest_agent: bool = False,
    user_data: str | None = None,
) -> Iterator[Machine]:
    """A boot of it; the disk stays in `directory` for the next one.

    files: what it sees in /lab. user_data: cloud-init's.
    """
    machine = Machine(image, directory, boot, step, files, guest_agent=guest_agent, user_data=user_data)
    try:
        yield machine
    finally:
        machine.end()
