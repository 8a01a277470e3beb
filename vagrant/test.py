"""`make test-vagrant`: the lab in namespaces of its own: up, a growth, a reload, the end; nothing is left.

What it says goes to test-run.txt too. What Vagrant says is shown when something fails.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from host_controller.verify.accelerator import find_accelerator
from vagrant.checks import MIB, PREFIX
from vagrant.facts import HERE, ROOT

RECORD: Final = HERE / "test-run.txt"
GUEST: Final = "burst"
DOMAIN: Final = PREFIX + GUEST
STRESS_MIB, STRESS_SECONDS = 800, 60
STEP_LIMIT: Final = 1500.0
"""Seconds that a step of Vagrant's may take; emulated guests boot for minutes."""


class FailedError(Exception):
    """What was expected was not seen."""


class Run:
    """One run, in a state directory of its own that goes with it."""

    def __init__(self) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="dynmem-vagrant-test-", dir="/var/tmp"))
        self.state.chmod(0o755)
        self.environment = {**os.environ, "DYNMEM_VAGRANT": str(self.state)}
        self.words = self.state.with_suffix(".log")
        self.began = time.monotonic()
        RECORD.write_text("")

    def say(self, text: str) -> None:
        """To the terminal and to the record."""
        line = f"[{time.monotonic() - self.began:4.0f} s] {text}"
        print(line, flush=True)
        with RECORD.open("a") as record:
            record.write(line + "\n")

    def lab(self, *arguments: str) -> None:
        """`python -m vagrant.lab`."""
        self._do(sys.executable, "-m", "vagrant.lab", *arguments)

    def vagrant(self, *arguments: str) -> None:
        """Vagrant, in the lab."""
        self._do(str(HERE / "enter"), "vagrant", *arguments)

    def _do(self, *command: str) -> None:
        with self.words.open("ab") as words:
            code = subprocess.run(
                command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=words, stderr=words, timeout=STEP_LIMIT, check=False,
            ).returncode  # fmt: skip
        if code != 0:
            raise FailedError(f"`{' '.join(command[1:])}` exited {code}")

    def ask(self, *command: str) -> str:
        """What a command in the lab prints."""
        done = subprocess.run(
            [HERE / "enter", *command], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise FailedError(f"`{' '.join(command)}` exited {done.returncode}: {done.stderr}")
        return done.stdout

    def vm(self) -> dict[str, Any]:
        """The guest, as the controller sees it."""
        vms = json.loads(self.ask("dynmem", "status", "--json"))["vms"]
        return next((one for one in vms if one["name"] == DOMAIN), {})

    def wait(self, what: str, seen: Callable[[dict[str, Any]], bool], limit: float) -> dict[str, Any]:
        """The guest, once `seen` is true of it."""
        deadline = time.monotonic() + limit
        while not seen(vm := self.vm()):
            if time.monotonic() > deadline:
                raise FailedError(f"{what}: not within {limit:.0f} s; {describe(vm)}")
            time.sleep(0.5)
        return vm

    @contextmanager
    def working(self, *command: str) -> Iterator[None]:
        """A command in the guest, from beginning to end."""
        with self.words.open("ab") as words:
            ssh = subprocess.Popen(
                [HERE / "enter", "vagrant", "ssh", GUEST, "--command", " ".join(command)],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=words, stderr=words,
            )  # fmt: skip
            try:
                yield
                if ssh.wait(STEP_LIMIT) != 0:
                    raise FailedError(f"`{' '.join(command)}` in {GUEST} exited {ssh.returncode}")
            finally:
                ssh.kill()


def main() -> int:
    """The exit code."""
    run = Run()
    try:
        play(run)
        run.say("passed")
        run.words.unlink()
        return 0
    except (FailedError, subprocess.TimeoutExpired) as error:
        run.say(f"FAILED: {error}")
        print(run.words.read_text(errors="replace")[-6000:], file=sys.stderr)
        return 1
    finally:
        subprocess.run([HERE / "enter", "--end"], env=run.environment, check=False)
        shutil.rmtree(run.state, ignore_errors=True)


def play(run: Run) -> None:
    """The story."""
    accelerator = find_accelerator()
    run.say(f"guests run under {accelerator.name}: {accelerator.reason}")
    run.lab("up", "--netns", GUEST)
    run.say(f"up: {definition(run)}")
    vm = run.wait("the agent reports", lambda vm: bool(vm.get("agent")) and vm["phase"] == "live", 120)
    run.say(f"up: {describe(vm)}")
    usable, ram = vm["assigned_bytes"], vm["ram_bytes"]

    run.say(f"work stress {STRESS_MIB} {STRESS_SECONDS}")
    with run.working("work", "stress", str(STRESS_MIB), str(STRESS_SECONDS)):
        vm = run.wait("it grows past its boot RAM", lambda vm: vm["dimms"] > 0, STRESS_SECONDS)
        run.say(f"grows: {describe(vm)}")
        enough = STRESS_MIB * MIB
        vm = run.wait("all fits", lambda vm: vm["assigned_bytes"] > max(usable, enough), STRESS_SECONDS)
        run.say(f"has grown: {describe(vm)}")
    grown = vm["assigned_bytes"]
    vm = run.wait("it gives back", lambda vm: vm["assigned_bytes"] < grown - enough // 2, 120)
    run.say(f"gives back: {describe(vm)}")

    run.vagrant("reload", GUEST)
    run.say(f"reload: {definition(run)}")
    vm = run.wait("it is back", lambda vm: bool(vm.get("agent")) and vm["phase"] == "live", 120)
    run.say(f"reload: {describe(vm)}")
    if vm["ram_bytes"] != ram:
        raise FailedError("it did not come back with its boot RAM")

    namespace = run.ask("readlink", "/proc/self/ns/net").strip()
    run.lab("end")
    left = left_behind(run.state, namespace)
    if left:
        raise FailedError(f"left behind: {', '.join(left)}")
    run.say("end: no process, mount, network, cgroup or file is left")


def definition(run: Run) -> str:
    """What of the domain's XML dynamic memory rests on."""
    xml = run.ask("virsh", "dumpxml", DOMAIN)
    wanted = {
        "maxMemory": r"<maxMemory slots='(\d+) ?.*</maxMemory>",
        "statistics": r"<stats period='(\d+)'/>",
        "channel": r"name='org.dynmem.agent.0' state='(\w+)'",
        "limits": r"<dynmem:vm [^>]*(maximum=\"\d+\"|maximum='\d+')",
    }
    found = {name: re.search(pattern, xml) for name, pattern in wanted.items()}
    missing = [name for name, match in found.items() if match is None]
    if missing:
        raise FailedError(f"the domain has no {', no '.join(missing)}")
    return ", ".join(f"{name} {match[1]}" for name, match in found.items() if match is not None)


def describe(vm: dict[str, Any]) -> str:
    """A line on the guest."""
    if not vm:
        return "the controller does not know it"
    sizes = {name: vm[f"{name}_bytes"] for name in ("assigned", "demand", "ram")}
    words = ", ".join(f"{name} {'?' if size is None else size // MIB} MiB" for name, size in sizes.items())
    agent = f"agent {vm['agent']['version']}" if vm["agent"] else "no agent"
    return f"{vm['phase']}, {words}, {vm['dimms']} DIMMs, {agent}"


def left_behind(state: Path, namespace: str) -> list[str]:
    """Processes in the lab's namespace; mounts, cgroups and files of it."""
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns/net") == namespace:
                left.append(f"process {process.name} {(process / 'comm').read_text().strip()}")
        except OSError:
            continue
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    left += [line.split()[4] for line in mounts if str(state) in line]
    left += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/*{DOMAIN}*")]
    left += [str(path) for path in (state, Path("/var/lib/libvirt/images", f"{DOMAIN}.img")) if path.exists()]
    return left


if __name__ == "__main__":
    sys.exit(main())
