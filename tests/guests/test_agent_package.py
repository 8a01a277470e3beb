"""The agent's package in a Debian that systemd boots: installed, reporting, rebooted, purged."""

import os
import selectors
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import wire
from host_controller.verify.accelerator import find_accelerator
from lab import apt, image, initrd, packages
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
# The reboot waits for what the host asks of the agent: the zone of new memory.
INSTALL = """
dpkg --install /lab/*.deb; echo STEP installed $?; sync; echo STEP done
until grep -q movable /sys/devices/system/memory/auto_online_blocks; do sleep 1; done
systemctl reboot
"""
PURGE = """
tries=0
until systemctl is-active --quiet dynmem-agent || [ $((tries += 1)) -gt 120 ]; do sleep 1; done
systemctl show --property=ActiveState,NRestarts,Result dynmem-agent
systemctl show --property=MemoryMin,OOMScoreAdjust dynmem-agent
journalctl --unit dynmem-agent --no-pager --lines 20
dpkg --purge dynmem-agent; echo STEP purged $?
systemctl is-active dynmem-agent
echo STEP left $(find / -xdev -name '*dynmem*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/lab/*' \\
    -not -path '/var/log/*' -not -path '/run/*' | tr '\\n' ' ')
echo STEP done
"""


def system_image() -> Path:
    """A directory with kernel, initrd and root disk of a Debian with systemd, built once."""
    return build_once("systemd", key_of(SUITE, *WITH_SYSTEMD, *apt.LEFT_OUT, initrd.INIT), _build)


def _build(directory: Path) -> None:
    archive = directory / "root.tar"
    subprocess.run(
        image.debian(SUITE, archive, WITH_SYSTEMD),
        check=True,
        capture_output=True,
        env={**os.environ, "INITRD": "No"},
    )
    image.make_bootable(archive, directory)


class Machine:
    """One boot of the guest, with a step that it runs; the test is the host at the other end of the port."""

    def __init__(self, image: Path, directory: Path, boot: int, step: str, package: Path) -> None:
        lab = directory / f"lab{boot}"
        (lab / "guest").mkdir(parents=True)
        (lab / "guest" / "init").write_text(HANDOVER)
        (lab / "guest" / "init").chmod(0o755)
        (lab / "step").write_text(step)
        shutil.copy(package, lab)
        disk = directory / f"lab{boot}.ext4"
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", lab, disk, "16M"], check=True)
        overlay = directory / "disk.qcow2"
        if not overlay.exists():
            backing = ["-b", str(image / "root.ext4"), "-F", "raw"]
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, overlay], check=True)
        self.console = directory / f"console{boot}.log"
        port = directory / f"port{boot}"
        accelerator = find_accelerator()
        self.process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-M", "q35", "-accel", "kvm" if accelerator.name == "KVM" else "tcg"),
                *("-cpu", "host" if accelerator.name == "KVM" else "max", "-m", "640", "-no-reboot"),
                *("-kernel", image / "vmlinuz", "-initrd", image / "initrd", "-append", KERNEL_ARGUMENTS),
                *("-drive", f"file={overlay},if=virtio,cache=unsafe"),
                *("-drive", f"file={disk},if=virtio,format=raw,readonly=on"),
                *("-device", "virtio-serial-pci", "-device", "virtio-balloon-pci"),
                *("-chardev", f"socket,id=agent,path={port},server=on,wait=off"),
                *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
                *("-display", "none", "-monitor", "none", "-serial", f"file:{self.console}"),
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        end = time.monotonic() + 20
        self.port = socket.socket(socket.AF_UNIX)
        while self.port.connect_ex(str(port)) != 0:
            assert self.process.poll() is None, self.process.communicate()[1].decode()
            assert time.monotonic() < end, "QEMU did not open the port within 20 s"
            time.sleep(0.05)
        self.reader = wire.LineReader()

    def hear(self, kind: type, limit: float = BOOT_LIMIT) -> wire.GuestMessage:
        """The next message of this kind that the agent sends."""
        end = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(self.port, selectors.EVENT_READ)
            while time.monotonic() < end:
                if not selector.select(0.5):
                    continue
                for line in self.reader.feed(self.port.recv(1 << 16)):
                    if isinstance(line, bytes) and isinstance(message := wire.decode_from_guest(line), kind):
                        return message  # type: ignore[no-any-return] # of the asked kind
        raise AssertionError(
            f"no {kind.__name__} within {limit:g} s; the console says:\n{self.said()[-3000:]}"
        )

    def tell(self, message: wire.HostMessage) -> None:
        """Say something to the agent."""
        self.port.sendall(wire.encode(message))

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
def booted(image: Path, directory: Path, boot: int, step: str, package: Path) -> Iterator[Machine]:
    machine = Machine(image, directory, boot, step, package)
    try:
        yield machine
    finally:
        machine.end()


def test_the_package_installs_reports_survives_a_reboot_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for tool in ("mmdebstrap", "qemu-system-x86_64", "mke2fs"):
        if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            pytest.skip(f"needs {tool}")
    image = system_image()
    made = packages.build(tmp_path / "dist")
    package = next(path for path in made if path.name.startswith("dynmem-agent_"))

    begun = time.monotonic()
    with booted(image, tmp_path, 1, INSTALL, package) as machine:
        first = machine.hear(wire.Hello)
        assert isinstance(first, wire.Hello)
        assert first.psi
        # Hardened as it is, it may still do its work: the zone of new memory is written to /sys.
        machine.tell(wire.Welcome("test"))
        machine.tell(wire.OnlineZone(7, "movable"))
        answer = machine.hear(wire.Ack, 60)
        assert isinstance(answer, wire.Ack)
        assert answer.ok, answer.detail
        assert "STEP installed 0" in machine.until_said("STEP done")
        machine.process.wait(BOOT_LIMIT)  # it reboots in good order, which ends this QEMU (-no-reboot)
    print(f"\ninstalled and reporting {time.monotonic() - begun:.0f} s after power on")

    begun = time.monotonic()
    with booted(image, tmp_path, 2, PURGE, package) as machine:
        second = machine.hear(wire.Hello)
        print(f"after the reboot it reports {time.monotonic() - begun:.0f} s after power on")
        assert isinstance(second, wire.Hello)
        assert second.boot_id != first.boot_id
        said = machine.until_said("STEP done")
        print("\n".join(line for line in said.splitlines() if "=" in line or "STEP" in line))
        assert "ActiveState=active" in said
        assert "NRestarts=0" in said
        assert "OOMScoreAdjust=-950" in said
        assert "STEP purged 0" in said
        left = next(line for line in said.splitlines() if line.startswith("STEP left")).split()[2:]
        assert left == []
