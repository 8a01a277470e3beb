"""VMs that are about to start, and the hook that asks for them."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from host_controller import hook
from host_controller.domain_xml.ours import NAMESPACE
from host_controller.units import GIB
from tests.support.virtual import aside

HOOK = Path(hook.__file__)


def xml(name: str = "new", memory: int = GIB, devices: str = "", ours: bool = True) -> bytes:
    kib = memory >> 10
    limits = f'startup="{kib}" minimum="262144" maximum="{kib * 2}" growth="hotadd"'
    metadata = f'<metadata><d:vm xmlns:d="{NAMESPACE}" {limits}/></metadata>' if ours else ""
    return (
        f"<domain><name>{name}</name><uuid>u-{name}</uuid>{metadata}<memory>{kib}</memory>"
        f'<maxMemory slots="16">{kib * 2}</maxMemory><devices>{devices}</devices></domain>'
    ).encode()


def call(path: Path, moment: str, body: bytes, name: str = "new", config: str = "") -> tuple[int, str]:
    """The hook as libvirt runs it."""
    if config:
        (path / "dynmem.toml").write_text(config)
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-S", str(HOOK), "--config", str(path / "dynmem.toml")),
            *("--socket", str(path / "control.sock"), name, *moment.split(), "-"),
        ],
        input=body,
        capture_output=True,
        timeout=60,
    )
    assert done.stdout == b"", "libvirt would take it for XML"
    return done.returncode, done.stderr.decode()


async def start(path: Path, body: bytes | None = None, name: str = "new") -> tuple[int, str]:
    """Start while virtual time goes on, as it does beside a hook that waits."""
    return await asyncio.to_thread(call, path, "prepare begin", body or xml(name), name)


async def flowing(task: "asyncio.Task[Any]") -> Any:
    """Await something that happens in real time in a thread, a virtual moment at a time."""
    while not task.done():
        await asyncio.sleep(0.05)
        await aside(time.sleep, 0.001)
    return task.result()
