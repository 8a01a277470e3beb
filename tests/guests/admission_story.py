"""What test_admission.py runs in its own mount namespace. Not collected by itself."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.controller import Limits
from lab.guest import Guest
from lab.lab import Lab
from tests.guests.conftest import Rig, RigFactory

HOOKS = Path("/etc/libvirt/hooks")
CONFIG = HOOKS / "dynmem.toml"
CAPACITY = 1060
"""Room for one VM that is squeezed and another that starts with 512 MiB, not for a third."""
CODE = "from host_controller.cli import main; main()"


@pytest.fixture(scope="session")
def hooked() -> None:
    """The hook, there before libvirtd starts: only then does it look."""
    arguments = ["hook", "install", "--directory", str(HOOKS / "qemu.d"), "--config", str(CONFIG)]
    subprocess.run([sys.executable, "-c", CODE, *arguments], check=True)
    CONFIG.write_text("")


@pytest.fixture
def rig(hooked: None, lab: Lab, make_rig: RigFactory) -> Rig:
    made = make_rig(CAPACITY, more='[admission]\nwait = 15\nwithout_controller = "deny"\n')
    CONFIG.write_bytes(made.controller.config.read_bytes())
    let_the_hook_ask(made)
    return made


def let_the_hook_ask(rig: Rig) -> None:
    """It runs as the session's account; on a real host it is root's, as the socket."""
    for path in (rig.controller.directory / "run", rig.controller.directory / "run" / "control.sock"):
        rig.lab.account.own(path)


def virsh(rig: Rig, *arguments: str) -> tuple[int, str, float]:
    """Exit code, what it said, and how long it took."""
    begun = time.monotonic()
    done = subprocess.run(
        ["virsh", "-c", rig.lab.session.uri, *arguments], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - begun


def reservations(rig: Rig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rig.controller.status()["host"]["reservations"]
    return found


def test_the_story(rig: Rig) -> None:
    limits = Limits(startup=512, minimum=160, maximum=512)
    first, second, third = (rig.define(name, limits) for name in ("first", "second", "third"))
    start_and_watch(rig, first)
    rig.controller.wait_managed(first)

    # What is missing is taken from the first, within the rules.
    code, said, took = virsh(rig, "start", second.name)
    assert code == 0, said
    print(f"\nadmitted after {took:.1f} s")
    rig.observer.start(second)
    second.wait_booted()
    rig.controller.wait_managed(second)
    assert reservations(rig) == []

    # Two cannot go lower at once than what they need: a third one is refused, and virsh says why.
    second.workload.allocate(250, rate=50)
    second.workload.wait_event("done", "memory", 60)
    code, said, took = virsh(rig, "start", third.name)
    print(f"refused after {took:.1f} s: {said.strip()}")
    assert code == 1
    assert "third cannot start: it needs" in said
    assert "are missing" in said
    assert first.name in said

    # A saved VM needs its memory again to come back.
    file = second.directory / "saved"
    second.workload.free()
    code, said, _ = virsh(rig, "save", second.name, str(file))
    assert code == 0, said
    rig.controller.wait_for(
        lambda status: all(vm["name"] != second.name for vm in status["vms"]), 60, "the saved VM is gone"
    )
    code, said, took = virsh(rig, "restore", str(file))
    assert code == 0, said
    print(f"restored after {took:.1f} s")
    admitted = [one for one in events(rig, "admission") if one["text"].startswith(f"{second.name} may start")]
    assert len(admitted) == 2

    # Of two starts at once with room for one, one is admitted.
    virsh(rig, "destroy", second.name)
    rig.controller.wait_for(
        lambda status: all(vm["name"] != second.name for vm in status["vms"]), 60, "it is gone"
    )
    with ThreadPoolExecutor(2) as both:
        results = list(both.map(lambda guest: virsh(rig, "start", guest.name)[0], (second, third)))
    print(f"two starts at once: {results}")
    assert sorted(results) == [0, 1]
    assert events(rig, "overdraft") == []

    # Its hook keeps libvirt from listing who runs, and the controller has just started: its books are empty.
    left = (second, third)[results.index(1)]
    rig.controller.kill()
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(virsh, rig, "start", left.name)
        rig.controller.start()
        let_the_hook_ask(rig)
        code, said, took = asked.result()
    print(f"refused by a new controller after {took:.1f} s: {said.strip()}")
    assert code == 1
    assert "are missing" in said
    assert first.name in said


def start_and_watch(rig: Rig, guest: Guest) -> None:
    code, said, _ = virsh(rig, "start", guest.name)
    assert code == 0, said
    rig.observer.start(guest)
    guest.wait_booted()


def events(rig: Rig, topic: str) -> list[dict[str, Any]]:
    return [one for one in rig.controller.client.follow("events") if one["topic"] == topic]
