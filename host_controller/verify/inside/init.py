"""PID 1 of `dynmem verify`'s guest: mounts, modules, ports, the agent, and the workload server.

The initramfs has this host's Python and no shell.
"""

import ctypes
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

MODULES = Path("/modules")
PORTS = Path("/sys/class/virtio-ports")
LAB_PORT = "org.dynmem.lab.0"
PORT_SECONDS = 20.0
FINIT_MODULE = {"x86_64": 313}.get(platform.machine(), 273)
_libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, where: str, options: str = "") -> None:
    os.makedirs(where, exist_ok=True)
    arguments = (kind.encode(), where.encode(), kind.encode(), 0, options.encode())
    if _libc.mount(*arguments) != 0:
        say(f"{kind} cannot be mounted: {os.strerror(ctypes.get_errno())}")


def load_modules() -> None:
    for name in (MODULES / "order").read_text().split():
        descriptor = os.open(MODULES / name, os.O_RDONLY)
        if _libc.syscall(ctypes.c_long(FINIT_MODULE), descriptor, b"", 0) != 0:
            say(f"module {name}: {os.strerror(ctypes.get_errno())}")
        os.close(descriptor)


def name_ports() -> None:
    """The host names the ports some milliseconds after the driver has loaded; no udev links them here."""
    directory = Path("/dev/virtio-ports")
    directory.mkdir(exist_ok=True)
    until = time.monotonic() + PORT_SECONDS
    while time.monotonic() < until and not (directory / LAB_PORT).exists():
        for port in PORTS.iterdir() if PORTS.exists() else ():
            try:
                name = (port / "name").read_text().strip()
            except OSError:  # consoles have none
                continue
            if name and not (directory / name).exists():
                (directory / name).symlink_to(f"/dev/{port.name}")
        time.sleep(0.02)


def say(text: str) -> None:
    try:
        Path("/dev/kmsg").write_text(f"verify: {text}\n")
    except OSError:
        return


def start(*arguments: str) -> None:
    subprocess.Popen([sys.executable, "-I", "-S", *arguments], stdin=subprocess.DEVNULL, cwd="/")


def main() -> None:
    mount("devtmpfs", "/dev")
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    mount("tmpfs", "/run", "size=8m,mode=755")
    mount("tmpfs", "/tmp", "size=8m")
    os.makedirs("/run/lab", exist_ok=True)
    load_modules()
    name_ports()
    start("/verify/workload_server.py")
    start("/verify/dynmem-agent.pyz", "run")
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(1)


main()
